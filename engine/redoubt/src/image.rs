//! An image file being filled from the front to the back, in its form; what is zero stays a hole.
//!
//! What is *not* here: where the bytes come from, and when the file gets its name (`commands::export`).

use crate::cli::ImageFormat;
use crate::qcow2::Qcow2;
use std::fs::File;
use std::io::Result;
use std::os::unix::fs::FileExt;

/// Runs of zeros of at least this many bytes stay holes: a file system's block.
const HOLE_BYTES: usize = 4096;

enum Form {
    Raw(File),
    Qcow2(Box<Qcow2<File>>),
}

/// The image, and how much of it is data.
pub(crate) struct Image {
    form: Form,
    pub(crate) data_bytes: u64,
}

impl Image {
    /// Begins an image of a disk of so many bytes.
    pub(crate) fn new(file: File, format: ImageFormat, bytes: u64) -> Result<Image> {
        let form = match format {
            ImageFormat::Raw => {
                file.set_len(bytes)?;
                Form::Raw(file)
            }
            ImageFormat::Qcow2 => Form::Qcow2(Box::new(Qcow2::new(file, bytes)?)),
        };
        Ok(Image { form, data_bytes: 0 })
    }

    /// Writes what of the bytes is not zero; offsets must not go backwards.
    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        for run in data_runs(bytes) {
            let (at, data) = (offset + run.start as u64, &bytes[run]);
            match &mut self.form {
                Form::Raw(file) => file.write_all_at(data, at)?,
                Form::Qcow2(image) => image.write(at, data)?,
            }
            self.data_bytes += data.len() as u64;
        }
        Ok(())
    }

    /// Completes it; what is written is not durable yet.
    pub(crate) fn finish(self) -> Result<u64> {
        if let Form::Qcow2(image) = self.form {
            image.finish()?;
        }
        Ok(self.data_bytes)
    }
}

/// Returns the runs of blocks that are not all zeros.
fn data_runs(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut runs: Vec<std::ops::Range<usize>> = Vec::new();
    for (number, block) in bytes.chunks(HOLE_BYTES).enumerate() {
        if is_zero(block) {
            continue;
        }
        let start = number * HOLE_BYTES;
        match runs.last_mut() {
            Some(last) if last.end == start => last.end += block.len(),
            _ => runs.push(start..start + block.len()),
        }
    }
    runs
}

/// Most blocks of data are told by their first bytes; the rest is looked at in words.
fn is_zero(block: &[u8]) -> bool {
    let (words, rest) = block.as_chunks::<8>();
    words.iter().all(|word| u64::from_ne_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_whole_blocks_that_hold_data_and_touching_ones_are_one() {
        let mut bytes = vec![0; 10 * HOLE_BYTES + 100];
        assert!(data_runs(&bytes).is_empty());
        bytes[HOLE_BYTES + 7] = 1;
        bytes[3 * HOLE_BYTES - 1] = 1;
        bytes[10 * HOLE_BYTES + 99] = 1;
        let runs = [HOLE_BYTES..3 * HOLE_BYTES, 10 * HOLE_BYTES..10 * HOLE_BYTES + 100];
        assert_eq!(data_runs(&bytes), runs);
    }
}
