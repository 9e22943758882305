//! Shows one disk over NBD without replication: for tests with clients that others wrote.
//!
//! `plain_export --disk FILE --listen ENDPOINT [--read-only]` prints the endpoint when it is ready
//! and stops, after draining, at the end of its standard input, so that a test needs no signal.
#![allow(clippy::disallowed_methods, missing_docs)]

use redoubt_host::{HostDisks, HostNet};
use redoubt_ports::{Disks, Endpoint, Net};
use redoubt_roles::nbd_server::{DiskExport, SingleExport, serve};
use std::sync::Arc;
use tokio::io::AsyncReadExt;

const USAGE: &str = "usage: plain_export --disk FILE --listen ENDPOINT [--read-only]";

fn main() {
    let (mut disk, mut endpoint, mut read_only) = (None, None, false);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--disk" => disk = arguments.next(),
            "--listen" => endpoint = arguments.next(),
            "--read-only" => read_only = true,
            _ => panic!("{USAGE}"),
        }
    }
    let disk = disk.expect(USAGE);
    let endpoint: Endpoint = endpoint.expect(USAGE).parse().expect(USAGE);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().expect("the runtime starts");
    runtime.block_on(async {
        let disk = HostDisks.open(&disk, read_only).await.expect("the disk opens");
        let listener = HostNet.listen(&endpoint).await.expect("the endpoint can be bound");
        println!("{}", listener.endpoint());
        let directory = Arc::new(SingleExport::new("plain", Arc::new(DiskExport::new(disk, read_only))));
        let (stop, stopping) = tokio::sync::watch::channel(false);
        let server = tokio::spawn(serve(listener, directory, stopping));
        let mut rest = Vec::new();
        // An error of the standard input ends it, too.
        let _ = tokio::io::stdin().read_to_end(&mut rest).await;
        stop.send_replace(true);
        server.await.expect("the server ends cleanly");
    });
}
