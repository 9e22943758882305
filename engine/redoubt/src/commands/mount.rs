//! `redoubt mount`: a recovery point over NBD.

use super::nbd::{Address, uri};
use super::progress;
use crate::cache_directory::CacheDirectory;
use crate::cli::{Common, Mount};
use crate::control::{self, Controlled};
use crate::failure::{Failure, Outcome};
use crate::hold::while_held;
use crate::output::{self, say};
use crate::overlay_file::OverlayFile;
use crate::recovery::{self, Found, point_name};
use crate::signals::Signals;
use crate::status::Report;
use crate::status::mount::MountReport;
use crate::units::{show_size, show_wall};
use futures::future::BoxFuture;
use redoubt_host::HostNet;
use redoubt_ports::Net;
use redoubt_roles::mount::{
    CACHE_BYTES_DEFAULT, HydrationState, HydrationStatus, LocalCache, Overlay, PointDisk,
};
use redoubt_roles::nbd_server::{DiskExport, SingleExport, serve};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;

pub(crate) async fn run(args: Mount) -> Outcome<()> {
    let stop = Signals::catch()?.watch();
    let found = recovery::find_fast(&args.point).await?;
    let listener = HostNet.listen(&args.listen).await?;
    let cache = take_cache(&args, &found).await?;
    let (overlay, file) = take_overlay(&args, &found).await?;
    let mut disk: PointDisk = found.disk(overlay)?;
    if let Some(cache) = &cache {
        disk = disk.with_cache(cache.cache.clone());
    }
    announce(&args, &found, file.as_ref(), cache.as_ref());
    let uri = uri(&listener.endpoint(), &found.volume);
    let address = Address { uri: uri.clone(), volume: found.volume.clone() };
    output::data(args.common.format, &address, |address| address.uri.clone());
    // The point alone was looked for: what is wrong behind it is told when clients are served already.
    let looking = tokio::spawn(found.recovery.look_behind());
    let hydration = args.hydrate.then(|| disk.hydrate());
    let names = [point_name(&found.point), found.volume.clone(), uri];
    let beside = beside(&args, names, cache.as_ref(), hydration, stop.clone());
    let export = Arc::new(DiskExport::new(Arc::new(disk), !args.overlay));
    let serving = serve(listener, Arc::new(SingleExport::new(found.volume.clone(), export)), stop);
    let beside = while_held(&found, async { tokio::join!(serving, beside).1 }).await;
    looking.abort();
    let removed = match file {
        Some(file) => file.remove(),
        None => Ok(()),
    };
    if let Some(cache) = cache {
        cache.remove().await?;
    }
    beside.and(removed)
}

/// Takes the cache, if there is to be one: a vault on this host is as near as its cache would be.
async fn take_cache(args: &Mount, found: &Found) -> Outcome<Option<CacheDirectory>> {
    let by_itself = if args.hydrate || !found.recovery.is_near { CACHE_BYTES_DEFAULT } else { 0 };
    let bytes = args.cache.unwrap_or(by_itself);
    if bytes == 0 {
        return match args.hydrate {
            true => Err(Failure::usage("--hydrate needs a cache").hint("leave --cache 0 out")),
            false => Ok(None),
        };
    }
    if let Some(path) = &args.cache_dir {
        return CacheDirectory::take(path.clone(), bytes).await.map(Some);
    }
    let name = format!("{}-{}", found.volume, point_name(&found.point));
    CacheDirectory::take_free(&name, bytes).await.map(Some)
}

async fn take_overlay(args: &Mount, found: &Found) -> Outcome<(Option<Overlay>, Option<OverlayFile>)> {
    if !args.overlay {
        return Ok((None, None));
    }
    let path = args
        .overlay_file
        .clone()
        .unwrap_or_else(|| PathBuf::from(format!("{}-{}.overlay", found.volume, point_name(&found.point))));
    let (overlay, file) = OverlayFile::take(path, found.overlay_of()?, args.overlay_max).await?;
    Ok((Some(overlay), Some(file)))
}

fn announce(args: &Mount, found: &Found, file: Option<&OverlayFile>, cache: Option<&CacheDirectory>) {
    let access = match file {
        None => "read-only".to_owned(),
        Some(file) => {
            let max = show_size(args.overlay_max);
            format!("writes go to {} (at most {max}), removed at the end", file.path().display())
        }
    };
    let (volume, point) = (&found.volume, point_name(&found.point));
    say(format!("{volume} as of {} UTC (point {point}), {access}", show_wall(found.point.marker.wall.0)));
    if let Some(cache) = cache {
        let (path, max) = (cache.path().display(), show_size(cache.cache.status().bytes_max));
        say(format!("cache in {path} (at most {max}), removed at the end: redoubt status --state {path}"));
    }
}

/// What goes on beside serving: status for who asks, progress for who watches.
async fn beside(
    args: &Mount,
    names: [String; 3],
    cache: Option<&CacheDirectory>,
    hydration: Option<watch::Receiver<HydrationStatus>>,
    stop: watch::Receiver<bool>,
) -> Outcome<()> {
    let Some(cache) = cache else { return Ok(()) };
    let control = HostNet.listen(&control::endpoint(cache.path())).await?;
    let told = hydration.clone();
    let mounted = Arc::new(Mounted { names, cache: cache.cache.clone(), hydration });
    let progress = async {
        if let Some(told) = told {
            show_hydration(&args.common, told, stop.clone()).await;
        }
    };
    tokio::join!(control::serve(control, mounted, stop.clone()), progress);
    Ok(())
}

/// Draws the progress of a hydration until it ends or the mount does.
async fn show_hydration(
    common: &Common,
    mut told: watch::Receiver<HydrationStatus>,
    mut stop: watch::Receiver<bool>,
) {
    let total = told.borrow().total_bytes;
    let bar = progress::bytes(common, "hydrating", total);
    loop {
        let status = told.borrow_and_update().clone();
        bar.set_position(status.done_bytes);
        let data = show_size(status.data_bytes);
        match status.state {
            HydrationState::Complete => {
                bar.finish_and_clear();
                return say(match status.damage {
                    None => format!("hydrated: all {data} of data are in the cache"),
                    Some(damage) => {
                        let lost = show_size(status.damaged_bytes);
                        format!("warning: hydrated {data}; {lost} are damaged in the vault: {damage}")
                    }
                });
            }
            HydrationState::NoRoom => {
                bar.finish_and_clear();
                return say(format!(
                    "warning: the cache is full with {data} of data; mount again with a larger --cache"
                ));
            }
            HydrationState::Running | HydrationState::Waiting(_) => {}
        }
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return bar.finish_and_clear(),
            changed = told.changed() => if changed.is_err() { return bar.finish_and_clear() },
        }
    }
}

/// A mount, as its control socket sees it.
struct Mounted {
    names: [String; 3],
    cache: Arc<LocalCache>,
    hydration: Option<watch::Receiver<HydrationStatus>>,
}

impl Controlled for Mounted {
    fn status(&self) -> BoxFuture<'_, Outcome<Report>> {
        let hydration = self.hydration.as_ref().map(|told| told.borrow().clone());
        let report = MountReport::new(self.names.clone(), &self.cache.status(), hydration.as_ref());
        Box::pin(async { Ok(Report::Mount(report)) })
    }

    fn protect(&self, _: String, _: String) -> BoxFuture<'_, Outcome<Vec<Address>>> {
        Box::pin(async {
            Err(Failure::usage("a mount protects no disks")
                .hint("name the state directory of `redoubt agent` or `redoubt up` with --state"))
        })
    }
}
