//! `redoubt export`: a recovery point as a sparse raw or a qcow2 image.
//!
//! - EX-1 The image appears under its name only when it is complete and durable.
//! - EX-2 Until then it is `FILE.part`, locked by its export. One that a killed export left is replaced.

use super::progress;
use crate::cli::{Export, ImageFormat};
use crate::failure::{Exit, Failure, Outcome};
use crate::output;
use crate::qcow2::Qcow2;
use crate::recovery::{self, point_name};
use crate::signals::Signals;
use crate::units::show_size;
use indicatif::ProgressBar;
use redoubt_core::Extent;
use redoubt_ports::Disk;
use redoubt_roles::mount::PointDisk;
use serde::Serialize;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Sectors copied at once: large enough for the store, small enough for memory and progress.
const STEP_SECTORS: u64 = 8192;
/// Runs of zeros of at least this many bytes stay holes: a file system's block.
const HOLE_BYTES: usize = 4096;

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
    let found = recovery::find(&args.point).await?;
    let disk = found.disk(None)?;
    let part = Part::create(&args.file)?;
    let progress = progress::bytes(&args.common, &found.volume, disk.info().sectors.bytes());
    let copied = tokio::select! {
        biased;
        () = signals.stop() => Err(Failure::new(Exit::Failed, "interrupted; nothing was made")),
        copied = copy(&disk, &part, args.to_format, &progress) => copied,
    };
    progress.finish_and_clear();
    let data_bytes = copied?;
    part.finish(&args.file)?;
    let done = Exported {
        file: args.file.display().to_string(),
        point: point_name(&found.point),
        volume: found.volume,
        image_format: args.to_format,
        bytes: disk.info().sectors.bytes(),
        data_bytes,
    };
    output::data(args.common.format, &done, |done| {
        let (size, data) = (show_size(done.bytes), show_size(done.data_bytes));
        format!("{}: {} of point {}, {size}, {data} of it data", done.file, done.volume, done.point)
    });
    found.recovery.done()
}

/// The image in its form.
enum Image<'a> {
    Raw(&'a std::fs::File),
    Qcow2(Box<Qcow2<&'a std::fs::File>>),
}

impl Image<'_> {
    fn new(file: &std::fs::File, format: ImageFormat, bytes: u64) -> std::io::Result<Image<'_>> {
        match format {
            ImageFormat::Raw => file.set_len(bytes).map(|()| Image::Raw(file)),
            ImageFormat::Qcow2 => Ok(Image::Qcow2(Box::new(Qcow2::new(file, bytes)?))),
        }
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Image::Raw(file) => file.write_all_at(bytes, offset),
            Image::Qcow2(image) => image.write(offset, bytes),
        }
    }

    fn finish(self) -> std::io::Result<()> {
        match self {
            Image::Raw(_) => Ok(()),
            Image::Qcow2(image) => image.finish(),
        }
    }
}

async fn copy(disk: &PointDisk, part: &Part, format: ImageFormat, progress: &ProgressBar) -> Outcome<u64> {
    let sectors = disk.info().sectors;
    let failed = |error: std::io::Error| part.failed(&error);
    let mut image = Image::new(&part.file, format, sectors.bytes()).map_err(failed)?;
    let mut data_bytes = 0;
    for extent in disk.data_extents(Extent::new(0, sectors.0)).await? {
        let mut at = extent.lba.0;
        while at < extent.end() {
            let step = Extent::new(at, (extent.end() - at).min(STEP_SECTORS));
            let bytes = disk.read(step).await?;
            for (number, block) in bytes.chunks(HOLE_BYTES).enumerate() {
                if block.iter().any(|byte| *byte != 0) {
                    let offset = step.lba.bytes() + (number * HOLE_BYTES) as u64;
                    image.write(offset, block).map_err(failed)?;
                    data_bytes += block.len() as u64;
                }
            }
            at = step.end();
            progress.set_position(step.lba.bytes() + step.bytes());
        }
    }
    image.finish().map_err(failed)?;
    Ok(data_bytes)
}

/// The unfinished image; removed unless it is finished.
struct Part {
    path: PathBuf,
    file: std::fs::File,
}

impl Part {
    fn create(target: &Path) -> Outcome<Part> {
        if target.exists() {
            let what = format!("{} exists already; nothing was changed", target.display());
            return Err(Failure::new(Exit::Refused, what).hint("choose another name, or remove it"));
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
        // A link, unlike a rename, never replaces what somebody put there meanwhile.
        std::fs::hard_link(&self.path, target).map_err(|error| self.failed(&error))?;
        let parent =
            target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::File::open(parent).and_then(|parent| parent.sync_all()).map_err(|error| self.failed(&error))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
