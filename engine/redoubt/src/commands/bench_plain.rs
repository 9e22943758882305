//! `redoubt bench-plain`: a disk over NBD without replication, the yardstick of the benches and
//! the server of the tests with clients that others wrote.

use super::nbd::{Address, uri};
use crate::cli::BenchPlain;
use crate::failure::Outcome;
use crate::output;
use crate::signals::Signals;
use redoubt_host::{HostDisks, HostNet};
use redoubt_ports::{Disks, Net};
use redoubt_roles::nbd_server::{DiskExport, SingleExport, serve};
use std::sync::Arc;

pub(crate) async fn run(args: BenchPlain) -> Outcome<()> {
    let stop = Signals::catch()?.watch();
    let disk = HostDisks.open(&args.disk, args.read_only).await?;
    let listener = HostNet.listen(&args.listen).await?;
    let address = Address { volume: "disk".to_owned(), uri: uri(&listener.endpoint(), "") };
    output::data(args.common.format, &address, |address| address.uri.clone());
    let export = Arc::new(DiskExport::new(Arc::clone(&disk), args.read_only));
    serve(listener, Arc::new(SingleExport::new("disk", export)), stop).await;
    disk.flush().await?;
    Ok(())
}
