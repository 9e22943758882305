//! `redoubt export`: a recovery point as a sparse raw or a qcow2 image.
//!
//! - EX-1 The image appears under its name only when it is complete and durable.
//! - EX-2 Until then it is `FILE.part`, locked by its export. One that a killed export left is replaced.

use super::progress;
use crate::cli::{Export, ImageFormat};
use crate::failure::{Exit, Failure, Outcome};
use crate::hold::while_held;
use crate::image::Image;
use crate::output;
use crate::recovery::{self, Found, point_name};
use crate::signals::Signals;
use crate::units::show_size;
use futures::stream::{self, Stream, StreamExt};
use indicatif::ProgressBar;
use redoubt_core::{Extent, Sectors, VolumeIndex};
use redoubt_vault::{PointView, ReadError};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use serde::Serialize;
use std::fs::FileType;
use std::io::ErrorKind;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// Sectors read at once, 8 MiB: large requests for the store, little enough for memory and progress.
const STEP_SECTORS: u64 = 16384;
/// Such reads at once: with requests of 4 MiB enough to hide a round trip to a cloud.
const READS_AT_ONCE: usize = 6;
/// Endings of other programs' images.
const FOREIGN: [&str; 7] = ["vmdk", "vhd", "vhdx", "vdi", "qcow", "qed", "ova"];
/// Sectors asked for their data at once, 1 GiB: bounds what a large disk holds in memory.
const LOOK_SECTORS: u64 = 1 << 21;

#[derive(Serialize)]
struct Exported {
    file: String,
    point: String,
    volume: String,
    image_format: ImageFormat,
    bytes: u64,
    data_bytes: u64,
}

pub(crate) async fn run(args: Export) -> Outcome<()> {
    let mut signals = Signals::catch()?;
    let format = form(&args)?;
    let found = recovery::find(&args.point).await?;
    let bytes = found.view()?.2.bytes();
    let part = Part::create(&args.file)?;
    let progress = progress::bytes(&args.common, &found.volume, bytes);
    let copying = async {
        tokio::select! {
            biased;
            () = signals.stop() => Err(Failure::new(Exit::Failed, "interrupted; nothing was made")),
            copied = copy(&found, &part, format, &progress) => copied,
        }
    };
    let copied = while_held(&found, copying).await;
    progress.finish_and_clear();
    let data_bytes = copied?;
    part.finish(&args.file)?;
    let done = Exported {
        file: args.file.display().to_string(),
        point: point_name(&found.point),
        volume: found.volume,
        image_format: format,
        bytes,
        data_bytes,
    };
    output::data(args.common.format, &done, |done| {
        let (size, data) = (show_size(done.bytes), show_size(done.data_bytes));
        format!("{}: {} of point {}, {size}, {data} of it data", done.file, done.volume, done.point)
    });
    found.recovery.done()
}

/// Tells in which form the image is written. A name that promises another one must not be given to what is none.
fn form(args: &Export) -> Outcome<ImageFormat> {
    if let Some(form) = args.to_format {
        return Ok(form);
    }
    let ending = args.file.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    match ending.to_ascii_lowercase().as_str() {
        "qcow2" => Ok(ImageFormat::Qcow2),
        other if FOREIGN.contains(&other) => {
            let hint = format!(
                "write qcow2, then `qemu-img convert` makes a {other} of it; or say --to-format raw if raw is meant"
            );
            Err(Failure::usage(format!("a {other} image cannot be written, only raw and qcow2")).hint(hint))
        }
        _ => Ok(ImageFormat::Raw),
    }
}

/// Says what to do if the target is there: nobody is told to remove a disk.
fn instead_of(found: FileType) -> &'static str {
    if found.is_block_device() {
        "an export makes a new file; to fill a disk serve the point with `redoubt mount` and copy it with `nbdcopy`"
    } else if found.is_dir() {
        "add the name of a new file in that directory"
    } else {
        "choose another name, or remove it"
    }
}

/// Copies what of the volume holds data, in the order of its addresses. Reads go on while what was read is written.
async fn copy(found: &Found, part: &Part, format: ImageFormat, progress: &ProgressBar) -> Outcome<u64> {
    let (view, volume, sectors) = found.view()?;
    let failed = |error: std::io::Error| part.failed(&error);
    let file = part.file.try_clone().map_err(failed)?;
    let mut image = Image::new(file, format, sectors.bytes()).map_err(failed)?;
    let reader = view.clone();
    // Tasks, so that they go on while something is written.
    let read = move |step: Result<Extent, ReadError>| {
        let view = reader.clone();
        let read = tokio::spawn(async move {
            let step = step?;
            Ok::<_, ReadError>((step, view.read(volume, step).await?))
        });
        async move { read.await.map_err(|error| Failure::new(Exit::Tool, format!("a read died: {error}"))) }
    };
    let mut reads = std::pin::pin!(steps(&view, volume, sectors).map(read).buffered(READS_AT_ONCE));
    while let Some(read) = reads.next().await {
        let (step, bytes) = read??;
        let written = tokio::task::spawn_blocking(move || {
            image.write(step.lba.bytes(), &bytes)?;
            Ok::<_, std::io::Error>(image)
        });
        let written = written.await;
        image = written
            .map_err(|error| Failure::new(Exit::Tool, format!("a write died: {error}")))?
            .map_err(failed)?;
        progress.set_position(step.lba.bytes() + step.bytes());
    }
    image.finish().map_err(failed)
}

/// Returns the parts of a volume that hold data, in pieces of one read.
fn steps(
    view: &PointView,
    volume: VolumeIndex,
    sectors: Sectors,
) -> impl Stream<Item = Result<Extent, ReadError>> {
    let windows = (0..sectors.0).step_by(LOOK_SECTORS as usize);
    let windows = windows.map(move |at| Extent::new(at, (sectors.0 - at).min(LOOK_SECTORS)));
    let look = move |window| {
        let view = view.clone();
        async move { view.data_extents(volume, window).await }
    };
    let cut = |found: Result<Vec<Extent>, ReadError>| match found {
        Ok(extents) => stream::iter(extents.into_iter().flat_map(pieces).map(Ok).collect::<Vec<_>>()),
        Err(error) => stream::iter(vec![Err(error)]),
    };
    stream::iter(windows).then(look).flat_map(cut)
}

fn pieces(extent: Extent) -> impl Iterator<Item = Extent> {
    let starts = (extent.lba.0..extent.end()).step_by(STEP_SECTORS as usize);
    starts.map(move |at| Extent::new(at, (extent.end() - at).min(STEP_SECTORS)))
}

/// The unfinished image; removed unless it is finished.
struct Part {
    path: PathBuf,
    file: std::fs::File,
}

impl Part {
    fn create(target: &Path) -> Outcome<Part> {
        if let Ok(found) = std::fs::metadata(target) {
            let what = format!("{} exists already; nothing was changed", target.display());
            return Err(Failure::new(Exit::Refused, what).hint(instead_of(found.file_type())));
        }
        let mut name = target.as_os_str().to_owned();
        name.push(".part");
        let path = PathBuf::from(name);
        let cannot = |error: std::io::Error| {
            Failure::new(Exit::Unreachable, format!("cannot make {}: {error}", path.display()))
                .hint("its directory must exist and be writable")
        };
        let file = std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(cannot)?;
        if file.try_lock().is_err() {
            let what = format!("{} is being written by another export", path.display());
            return Err(Failure::new(Exit::Refused, what).hint("wait for it, or choose another name"));
        }
        // What a killed export left is no use: it may be of another point.
        file.set_len(0).map_err(cannot)?;
        Ok(Part { path, file })
    }

    fn failed(&self, error: &std::io::Error) -> Failure {
        Failure::new(Exit::Failed, format!("cannot write {}: {error}", self.path.display()))
            .hint("make room, then try again; nothing was left behind")
    }

    fn finish(&self, target: &Path) -> Outcome<()> {
        self.file.sync_all().map_err(|error| self.failed(&error))?;
        self.name_it(target).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => {
                let what =
                    format!("{} was made by somebody else meanwhile; it was not changed", target.display());
                Failure::new(Exit::Refused, what).hint("choose another name")
            }
            _ => self.failed(&error),
        })?;
        let parent =
            target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::File::open(parent).and_then(|parent| parent.sync_all()).map_err(|error| self.failed(&error))
    }
}

impl Part {
    /// Gives the image its name, which nobody else must have taken meanwhile.
    fn name_it(&self, target: &Path) -> std::io::Result<()> {
        match renameat_with(CWD, &self.path, CWD, target, RenameFlags::NOREPLACE) {
            // Not every file system knows such a rename (NFS), and not every one knows links (FAT).
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => std::fs::hard_link(&self.path, target),
            named => Ok(named?),
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
