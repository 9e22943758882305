//! Simulated leaves: network, disks, files, store and hosts.
