//! `redoubt mount`: a recovery point over NBD.

use super::nbd::{Address, uri};
use crate::cli::Mount;
use crate::failure::Outcome;
use crate::output::{self, say};
use crate::recovery::{self, point_name};
use crate::signals::Signals;
use crate::units::show_wall;
use redoubt_host::HostNet;
use redoubt_ports::Net;
use redoubt_roles::nbd_server::{DiskExport, SingleExport, serve};
use std::sync::Arc;

pub(crate) async fn run(args: Mount) -> Outcome<()> {
    let stop = Signals::catch()?.watch();
    let (disk, point, volume) = recovery::disk(&args.point, args.overlay).await?;
    let listener = HostNet.listen(&args.listen).await?;
    let access = if args.overlay { "writes are forgotten at the end" } else { "read-only" };
    say(format!(
        "{volume} as of {} UTC (point {}), {access}",
        show_wall(point.marker.wall.0),
        point_name(&point)
    ));
    let address = Address { uri: uri(&listener.endpoint(), &volume), volume: volume.clone() };
    output::data(args.common.format, &address, |address| address.uri.clone());
    let export = Arc::new(DiskExport::new(Arc::new(disk), !args.overlay));
    serve(listener, Arc::new(SingleExport::new(volume, export)), stop).await;
    Ok(())
}
