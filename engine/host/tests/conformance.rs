//! The promises of the ports, kept by the kernel: image files, a directory, TCP and Unix sockets, and
//! a vault directory.
#![allow(clippy::disallowed_methods)]

use redoubt_core::SECTOR_BYTES;
use redoubt_host::{HostDisks, HostFiles, HostNet, LocalStore};
use redoubt_ports::conformance::net::Site;
use redoubt_ports::conformance::{disk, files, net, store};
use redoubt_ports::{Disks, Endpoint, Files, RawStore};
use std::cell::Cell;
use std::path::PathBuf;
use std::sync::Arc;

/// Hands out names that were never used, in a directory that goes at the end.
struct Places {
    directory: tempfile::TempDir,
    next: Cell<u32>,
}

impl Places {
    fn new() -> Places {
        Places { directory: tempfile::tempdir().unwrap(), next: Cell::new(0) }
    }

    fn fresh(&self) -> PathBuf {
        self.next.set(self.next.get() + 1);
        self.directory.path().join(self.next.get().to_string())
    }

    fn fresh_directory(&self) -> PathBuf {
        let path = self.fresh();
        std::fs::create_dir(&path).unwrap();
        path
    }
}

#[tokio::test]
async fn an_image_file_keeps_the_promises_of_a_disk() {
    let places = Places::new();
    disk::run(|| async {
        let path = places.fresh();
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(disk::DISK_SECTORS.0 * SECTOR_BYTES).unwrap();
        (Arc::new(HostDisks) as Arc<dyn Disks>, path.to_str().unwrap().to_owned())
    })
    .await;
}

#[tokio::test]
async fn a_directory_keeps_the_promises_of_files() {
    let places = Places::new();
    files::run(|| async { Arc::new(HostFiles::open(&places.fresh_directory()).unwrap()) as Arc<dyn Files> })
        .await;
}

fn site(at: Endpoint) -> Site {
    Site { server: Arc::new(HostNet), client: Arc::new(HostNet), at }
}

#[tokio::test]
async fn tcp_keeps_the_promises_of_a_net() {
    net::run(|| async { site(Endpoint::Tcp("127.0.0.1".to_owned(), 0)) }).await;
}

#[tokio::test]
async fn unix_sockets_keep_the_promises_of_a_net() {
    let places = Places::new();
    net::run(|| async { site(Endpoint::Unix(places.fresh().to_str().unwrap().to_owned())) }).await;
}

#[tokio::test]
async fn a_vault_directory_keeps_the_promises_of_a_store() {
    let places = Places::new();
    store::run(|| async {
        Arc::new(LocalStore::open(&places.fresh_directory()).unwrap()) as Arc<dyn RawStore>
    })
    .await;
}
