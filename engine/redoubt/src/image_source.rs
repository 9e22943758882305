//! An image to be read from front to back: a disk, an image file, or a qcow2 image.
//!
//! What is *not* here: what becomes of the bytes (`commands::import`).

use crate::cli::ImageFormat;
use crate::failure::{Exit, Failure, Outcome};
use crate::qcow2_reader::{MAGIC, Qcow2Reader};
use bytes::Bytes;
use redoubt_core::{Extent, SECTOR_BYTES, Sectors};
use redoubt_host::HostDisk;
use redoubt_ports::Disk;
use std::fs::File;
use std::io::Read;
use std::sync::Arc;

/// Parts begin and end on so many sectors, or with the disk: 64 KiB, what is compared at once.
const GRAIN: u64 = 128;

/// An open image. Cheap to clone.
#[derive(Clone)]
pub(crate) enum ImageSource {
    Raw(Arc<HostDisk>),
    Qcow2 { name: String, image: Arc<Qcow2Reader> },
}

impl ImageSource {
    /// Opens an image; without a form its name's ending decides, and what is in it must agree.
    pub(crate) fn open(path: &str, form: Option<ImageFormat>) -> Outcome<ImageSource> {
        let form = form.unwrap_or(match path.rsplit_once('.') {
            Some((_, "qcow2")) => ImageFormat::Qcow2,
            _ => ImageFormat::Raw,
        });
        match form {
            ImageFormat::Raw => raw(path),
            ImageFormat::Qcow2 => qcow2(path),
        }
    }

    pub(crate) fn sectors(&self) -> Sectors {
        match self {
            ImageSource::Raw(disk) => disk.info().sectors,
            ImageSource::Qcow2 { image, .. } => Sectors(image.bytes / SECTOR_BYTES),
        }
    }

    /// Returns the parts of an extent that may hold data, in order and on [`GRAIN`].
    pub(crate) async fn data(&self, extent: Extent) -> Outcome<Vec<Extent>> {
        let found = match self {
            ImageSource::Raw(disk) => disk.data_extents(extent).await?,
            ImageSource::Qcow2 { name, image } => {
                let (image, failed) = (image.clone(), failed(name));
                blocking(move || clusters(&image, extent).map_err(failed)).await?
            }
        };
        let mut grown: Vec<Extent> = Vec::new();
        for part in found {
            let first = (part.lba.0 / GRAIN * GRAIN).max(extent.lba.0);
            let end = (part.end().div_ceil(GRAIN) * GRAIN).min(extent.end());
            match grown.last_mut() {
                Some(last) if last.end() >= first => last.sectors.0 = end.max(last.end()) - last.lba.0,
                _ => grown.push(Extent::new(first, end - first)),
            }
        }
        Ok(grown)
    }

    pub(crate) async fn read(&self, extent: Extent) -> Outcome<Bytes> {
        match self {
            ImageSource::Raw(disk) => Ok(disk.read(extent).await?),
            ImageSource::Qcow2 { name, image } => {
                let (image, failed) = (image.clone(), failed(name));
                blocking(move || {
                    let mut bytes = vec![0; extent.bytes() as usize];
                    image.read(extent.lba.bytes(), &mut bytes).map_err(failed)?;
                    Ok(bytes.into())
                })
                .await
            }
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Outcome<T> + Send + 'static) -> Outcome<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Failure::new(Exit::Tool, format!("a read died: {error}")))?
}

fn failed(name: &str) -> impl Fn(std::io::Error) -> Failure + Send + 'static {
    let name = name.to_owned();
    move |error| Failure::new(Exit::Failed, format!("cannot read image {name}: {error}"))
}

fn raw(path: &str) -> Outcome<ImageSource> {
    let mut magic = [0; MAGIC.len()];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    if read.is_ok() && &magic == MAGIC {
        // A guest may write this into its disk: nobody guesses.
        return Err(Failure::new(Exit::Refused, format!("{path} is named as a raw image and begins as a qcow2 one"))
            .hint("say what it is with --from-format qcow2, or with its name; a disk that only begins so: convert it to qcow2"));
    }
    Ok(ImageSource::Raw(Arc::new(HostDisk::open(path, true)?)))
}

fn qcow2(path: &str) -> Outcome<ImageSource> {
    let file = File::open(path).map_err(|error| {
        Failure::new(Exit::Unreachable, format!("cannot open image {path}: {error}")).hint("check the path")
    })?;
    let image = Qcow2Reader::open(file).map_err(|error| {
        Failure::new(Exit::Refused, format!("cannot use image {path}: {error}"))
            .hint(format!("make a plain one of it: `qemu-img convert -O raw {path} {path}.img`"))
    })?;
    if image.bytes == 0 || image.bytes % SECTOR_BYTES != 0 {
        let what = format!("image {path} is of a disk of {} bytes, which are no whole sectors", image.bytes);
        return Err(Failure::new(Exit::Refused, what).hint("is it the image of a disk?"));
    }
    Ok(ImageSource::Qcow2 { name: path.to_owned(), image: Arc::new(image) })
}

/// Returns the clusters of an extent that a table names.
fn clusters(image: &Qcow2Reader, extent: Extent) -> std::io::Result<Vec<Extent>> {
    let (from, to) = (extent.lba.bytes(), extent.lba.bytes() + extent.bytes());
    let mut found = Vec::new();
    for cluster in from / image.cluster()..to.div_ceil(image.cluster()) {
        if image.place(cluster)?.is_some() {
            let first = (cluster * image.cluster()).max(from);
            let end = ((cluster + 1) * image.cluster()).min(to);
            found.push(Extent::new(first / SECTOR_BYTES, (end - first) / SECTOR_BYTES));
        }
    }
    Ok(found)
}
