//! Scratch space of one measurement: a directory beside the build, hence on the same file system for
//! every contestant, removed at the end.

use crate::command::{output, top};
use anyhow::{Context, Result};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Bytes written at once when an image is made.
const PIECE: usize = 1 << 20;

/// A directory for one measurement, removed on drop.
pub(crate) struct Place(PathBuf);

/// What an image is filled with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fill {
    /// Zeros that are written, so that the blocks are allocated.
    Zeros,
    /// Bytes that no compressor shortens.
    Random,
    /// Every other 2 KiB random, the rest zeros: compresses to a half.
    Half,
}

impl Place {
    /// Makes an empty directory.
    pub(crate) fn new(name: &str) -> Result<Place> {
        let path = top().join("target/bench").join(name);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        Ok(Place(path))
    }

    /// Returns a path in the directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Makes an image: `mib` of content, then a hole up to `size_mib`.
    pub(crate) fn image(&self, name: &str, fill: Fill, mib: u64, size_mib: u64) -> Result<PathBuf> {
        let path = self.path(name);
        let mut file = std::fs::File::create(&path).with_context(|| path.display().to_string())?;
        let mut random = Random(mib + 1);
        let mut piece = vec![0; PIECE];
        for _ in 0..mib {
            random.fill(&mut piece, fill);
            file.write_all(&piece)?;
        }
        file.set_len(size_mib << 20)?;
        file.sync_all()?;
        Ok(path)
    }
}

/// Writes an image back and drops it from the page cache.
///
/// An image is made in large pieces, so the cache holds it in folios of many pages; how many is up to the
/// memory of that moment. On ext4 a 4 KiB write costs more the larger its folio is: with two images made alike,
/// one and the same program came out at 0.8 and at 1.1 times the other side.
pub(super) fn forget(image: &Path) -> Result<()> {
    let mut dd = Command::new("dd");
    dd.args(["if=/dev/null", "count=0", "oflag=nocache", "conv=notrunc,fdatasync", "status=none"]);
    dd.arg(format!("of={}", image.display()));
    output(dd).map(|_| ())
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Repeatable noise (splitmix64): two contestants get equal images.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// Returns the next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Fills a buffer.
    pub(crate) fn fill(&mut self, buffer: &mut [u8], fill: Fill) {
        for (index, part) in buffer.chunks_mut(2048).enumerate() {
            if fill == Fill::Zeros || fill == Fill::Half && index % 2 == 1 {
                part.fill(0);
                continue;
            }
            for word in part.chunks_mut(8) {
                word.copy_from_slice(&self.next().to_le_bytes()[..word.len()]);
            }
        }
    }
}

/// Returns the bytes of all files below a directory.
pub(crate) fn bytes_below(directory: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let entry = entry?;
        // A file may vanish between listing and asking: a service renames its uploads.
        let Ok(meta) = entry.metadata() else { continue };
        sum += if meta.is_dir() { bytes_below(&entry.path())? } else { meta.len() };
    }
    Ok(sum)
}
