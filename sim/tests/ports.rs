//! The promises of the ports, kept by the lab's leaves while no fault is injected: what a role does
//! here means the same on a real host.
#![cfg(madsim)]

use madsim::runtime::Runtime;
use redoubt_core::SECTOR_BYTES;
use redoubt_ports::conformance::net::Site;
use redoubt_ports::conformance::{disk, files, net, store};
use redoubt_ports::{Disks, Endpoint, Files, RawStore};
use redoubt_sim::ports::{Hardware, SimWorld};
use std::sync::Arc;

/// Seeds per suite: delays differ with each.
const SEEDS: u64 = 4;

fn hardware() -> Hardware {
    Hardware::of("datastore", "wan", "cloud").expect("these models are in the tree")
}

fn with_each_seed<F: Future<Output = ()>>(test: impl Fn(u64) -> F) {
    for seed in 0..SEEDS {
        Runtime::with_seed_and_config(seed, madsim::Config::default()).block_on(test(seed));
    }
}

#[test]
fn a_simulated_disk_keeps_the_promises_of_a_disk() {
    with_each_seed(|seed| async move {
        let world = SimWorld::new(seed, false, &hardware());
        disk::run(|| async {
            let host = world.host("a", "source");
            host.add_disk("vda", disk::DISK_SECTORS.0 * SECTOR_BYTES);
            (host.world().world.disks as Arc<dyn Disks>, "vda".to_owned())
        })
        .await;
    });
}

#[test]
fn a_simulated_directory_keeps_the_promises_of_files() {
    with_each_seed(|seed| async move {
        let world = SimWorld::new(seed, false, &hardware());
        files::run(|| async { world.host("a", "source").world().world.files as Arc<dyn Files> }).await;
    });
}

#[test]
fn simulated_links_keep_the_promises_of_a_net() {
    for (client, site) in [("b", "source"), ("c", "target"), ("a", "source")] {
        with_each_seed(|seed| async move {
            let world = SimWorld::new(seed, false, &hardware());
            net::run(|| async {
                let server = world.host("a", "source").world().world.net;
                let client = world.host(client, site).world().world.net;
                Site { server, client, at: Endpoint::Tcp("a".to_owned(), 0) }
            })
            .await;
        });
    }
}

#[test]
fn a_simulated_store_keeps_the_promises_of_a_store() {
    with_each_seed(|seed| async move {
        store::run(|| async {
            SimWorld::new(seed, false, &hardware()).host("a", "source").world().store as Arc<dyn RawStore>
        })
        .await;
    });
}
