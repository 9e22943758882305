//! `redoubt mount`: a recovery point over NBD.

use super::nbd::{Address, uri};
use crate::cli::Mount;
use crate::failure::Outcome;
use crate::output::{self, say};
use crate::overlay_file::OverlayFile;
use crate::recovery::{self, point_name};
use crate::signals::Signals;
use crate::units::{show_size, show_wall};
use redoubt_host::HostNet;
use redoubt_ports::Net;
use redoubt_roles::nbd_server::{DiskExport, SingleExport, serve};
use std::path::PathBuf;
use std::sync::Arc;

pub(crate) async fn run(args: Mount) -> Outcome<()> {
    let stop = Signals::catch()?.watch();
    let found = recovery::find(&args.point).await?;
    let (point, volume) = (point_name(&found.point), found.volume.clone());
    let listener = HostNet.listen(&args.listen).await?;
    let (overlay, file) = if args.overlay {
        let path = args.overlay_file.unwrap_or_else(|| PathBuf::from(format!("{volume}-{point}.overlay")));
        let (overlay, file) = OverlayFile::take(path, found.overlay_of()?, args.overlay_max).await?;
        (Some(overlay), Some(file))
    } else {
        (None, None)
    };
    let disk = found.disk(overlay)?;
    let access = match &file {
        None => "read-only".to_owned(),
        Some(file) => {
            let max = show_size(args.overlay_max);
            format!("writes go to {} (at most {max}), removed at the end", file.path().display())
        }
    };
    say(format!("{volume} as of {} UTC (point {point}), {access}", show_wall(found.point.marker.wall.0)));
    let address = Address { uri: uri(&listener.endpoint(), &volume), volume: volume.clone() };
    output::data(args.common.format, &address, |address| address.uri.clone());
    let export = Arc::new(DiskExport::new(Arc::new(disk), !args.overlay));
    serve(listener, Arc::new(SingleExport::new(volume, export)), stop).await;
    match file {
        Some(file) => file.remove(),
        None => Ok(()),
    }
}
