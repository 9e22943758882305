//! The suites that every port must pass, on the real ports.
#![allow(clippy::disallowed_methods)]

use redoubt_host::{HostDisks, HostFiles, HostNet, LocalStore};
use redoubt_ports::conformance::{disk, files, net, store};
use redoubt_ports::{Disks, Endpoint, Files, Net, RawStore};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Fresh directories below one that is removed at the end.
struct Fresh(tempfile::TempDir, AtomicU32);

impl Fresh {
    fn new() -> Fresh {
        Fresh(tempfile::tempdir().unwrap(), AtomicU32::new(0))
    }

    fn directory(&self) -> PathBuf {
        let path = self.0.path().join(self.1.fetch_add(1, Ordering::Relaxed).to_string());
        std::fs::create_dir(&path).unwrap();
        path
    }
}

#[tokio::test]
async fn real_disks_keep_their_promises() {
    let fresh = Fresh::new();
    disk::run(|| async {
        let path = fresh.directory().join("disk.img");
        std::fs::File::create(&path).unwrap().set_len(disk::DISK_SECTORS.bytes()).unwrap();
        (Arc::new(HostDisks) as Arc<dyn Disks>, path.to_str().unwrap().to_owned())
    })
    .await;
}

#[tokio::test]
async fn real_files_keep_their_promises() {
    let fresh = Fresh::new();
    files::run(|| async { Arc::new(HostFiles::open(&fresh.directory()).unwrap()) as Arc<dyn Files> }).await;
}

#[tokio::test]
async fn real_sockets_keep_their_promises() {
    let fresh = Fresh::new();
    let site = |at| {
        let host = || Arc::new(HostNet) as Arc<dyn Net>;
        net::Site { server: host(), client: host(), at }
    };
    net::run(|| async { site("tcp:127.0.0.1:0".parse().unwrap()) }).await;
    net::run(|| async { site(Endpoint::Unix(fresh.directory().join("s").to_str().unwrap().to_owned())) })
        .await;
}

#[tokio::test]
async fn a_local_store_keeps_its_promises() {
    let fresh = Fresh::new();
    store::run(|| async { Arc::new(LocalStore::open(&fresh.directory()).unwrap()) as Arc<dyn RawStore> })
        .await;
}
