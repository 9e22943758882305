//! Reads a qcow2 image, version 2 or 3, of which this file is all there is: a backing file, encryption, compression
//! and external data are refused by name, with the command that makes a plain image of it.
//!
//! Numbers are big-endian. A cluster that no table names reads as zeros. What is refused is refused before anything
//! of the image is used; a table that leads out of the file is an error of the read.
//!
//! What is *not* here: what is done with the bytes (`commands::import`), how images are written (`qcow2`).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Error, Result};
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError};

pub(crate) const MAGIC: &[u8; 4] = b"QFI\xfb";
const HEADER_V2_BYTES: usize = 72;
const HEADER_V3_BYTES: usize = 80;
/// Incompatible features that change nothing for a reader: unclean counts of references.
const HARMLESS_FEATURES: u64 = 1;
const FEATURES: [(u64, &str); 4] = [
    (2, "is marked corrupt"),
    (4, "keeps its data in another file"),
    (8, "is compressed"),
    (16, "has subclusters"),
];
const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;
const COMPRESSED: u64 = 1 << 62;
const ALL_ZEROS: u64 = 1;
/// 8 PiB with clusters of 64 KiB: a bound for the memory of the first table, 128 MiB.
const LEVEL1_MAX: u64 = 1 << 24;
/// Tables of level 2 in memory, of one cluster each: reads go from front to back.
const LEVEL2_KEPT: usize = 16;

/// An open image.
#[derive(Debug)]
pub(crate) struct Qcow2Reader {
    file: File,
    /// Size of the disk.
    pub(crate) bytes: u64,
    cluster_bits: u32,
    is_v3: bool,
    level1: Vec<u64>,
    level2: Mutex<BTreeMap<u64, std::sync::Arc<Vec<u64>>>>,
}

fn wrong(what: impl Into<String>) -> Error {
    Error::other(what.into())
}

fn number(bytes: &[u8], at: usize, width: usize) -> u64 {
    bytes[at..at + width].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

impl Qcow2Reader {
    /// Reads header and first table.
    pub(crate) fn open(file: File) -> Result<Qcow2Reader> {
        let mut header = [0; HEADER_V3_BYTES];
        let length = file.metadata()?.len();
        if length < HEADER_V2_BYTES as u64 {
            return Err(wrong("it is too short for a qcow2 image"));
        }
        let known = HEADER_V3_BYTES.min(length as usize);
        file.read_exact_at(&mut header[..known], 0)?;
        let (version, cluster_bits) = (number(&header, 4, 4), number(&header, 20, 4) as u32);
        if &header[..4] != MAGIC || !(2..=3).contains(&version) {
            return Err(wrong("it is no qcow2 image of version 2 or 3"));
        }
        if number(&header, 8, 8) != 0 {
            return Err(wrong("it has a backing file, so it is only part of a disk"));
        }
        if number(&header, 32, 4) != 0 {
            return Err(wrong("it is encrypted"));
        }
        let features = if version == 3 { number(&header, 72, 8) & !HARMLESS_FEATURES } else { 0 };
        if let Some((_, what)) = FEATURES.iter().find(|(bit, _)| features & bit != 0) {
            return Err(wrong(format!("it {what}")));
        }
        if features != 0 || !(9..=21).contains(&cluster_bits) {
            return Err(wrong(format!(
                "it has features {features:#x} and clusters of 2^{cluster_bits} bytes"
            )));
        }
        let (bytes, entries) = (number(&header, 24, 8), number(&header, 36, 4));
        let needed = bytes.div_ceil(1 << (2 * cluster_bits - 3));
        if entries < needed || needed > LEVEL1_MAX {
            return Err(wrong(format!(
                "its first table has {entries} entries, a disk of {bytes} bytes needs {needed}"
            )));
        }
        let level1 = table(&file, number(&header, 40, 8), needed as usize)?;
        Ok(Qcow2Reader { file, bytes, cluster_bits, is_v3: version == 3, level1, level2: Mutex::default() })
    }

    /// Bytes of a cluster.
    pub(crate) fn cluster(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Returns where in the file a cluster of the disk is; `None` for zeros.
    pub(crate) fn place(&self, cluster: u64) -> Result<Option<u64>> {
        let per_table = self.cluster() / 8;
        let level2 = self.level1.get((cluster / per_table) as usize).map_or(0, |entry| entry & OFFSET_MASK);
        if level2 == 0 {
            return Ok(None);
        }
        let entry = self.level2(level2)?[(cluster % per_table) as usize];
        if entry & COMPRESSED != 0 {
            return Err(wrong("it is compressed"));
        }
        let place = entry & OFFSET_MASK;
        Ok((place != 0 && !(self.is_v3 && entry & ALL_ZEROS != 0)).then_some(place))
    }

    fn level2(&self, at: u64) -> Result<std::sync::Arc<Vec<u64>>> {
        let mut kept = self.level2.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = kept.get(&at) {
            return Ok(found.clone());
        }
        let found = std::sync::Arc::new(table(&self.file, at, (self.cluster() / 8) as usize)?);
        if kept.len() >= LEVEL2_KEPT {
            kept.pop_first();
        }
        kept.insert(at, found.clone());
        Ok(found)
    }

    /// Reads part of the disk.
    pub(crate) fn read(&self, mut offset: u64, buffer: &mut [u8]) -> Result<()> {
        let mut rest = buffer;
        while !rest.is_empty() {
            let at = offset % self.cluster();
            let (now, later) = rest.split_at_mut(rest.len().min((self.cluster() - at) as usize));
            match self.place(offset >> self.cluster_bits)? {
                Some(place) => self.file.read_exact_at(now, place + at)?,
                None => now.fill(0),
            }
            (offset, rest) = (offset + now.len() as u64, later);
        }
        Ok(())
    }
}

fn table(file: &File, at: u64, entries: usize) -> Result<Vec<u64>> {
    let mut bytes = vec![0; entries * 8];
    file.read_exact_at(&mut bytes, at)?;
    Ok(bytes.chunks(8).map(|entry| number(entry, 0, 8)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qcow2::Qcow2;
    use std::io::Write;

    const CLUSTER: u64 = 1 << 16;
    const SIZE: u64 = 3 * CLUSTER * (CLUSTER / 8) + 512;

    /// An image with something in the first, in a later and in the last table of level 2.
    fn image() -> Vec<u8> {
        let mut bytes = std::io::Cursor::new(Vec::new());
        let mut image = Qcow2::new(&mut bytes, SIZE).unwrap();
        image.write(512, &[1; 512]).unwrap();
        image.write(CLUSTER - 512, &[2; 1024]).unwrap();
        image.write(SIZE - 512, &[4; 512]).unwrap();
        image.finish().unwrap();
        bytes.into_inner()
    }

    fn open(bytes: &[u8]) -> Result<Qcow2Reader> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Qcow2Reader::open(file)
    }

    #[test]
    fn what_was_written_is_read() {
        let image = open(&image()).unwrap();
        assert_eq!(image.bytes, SIZE);
        let mut bytes = vec![9; 2 * CLUSTER as usize];
        image.read(0, &mut bytes).unwrap();
        let mut wanted = vec![0; 2 * CLUSTER as usize];
        wanted[512..1024].fill(1);
        wanted[CLUSTER as usize - 512..CLUSTER as usize + 512].fill(2);
        assert!(bytes == wanted);
        let mut last = vec![9; 1024];
        image.read(SIZE - 1024, &mut last).unwrap();
        assert!(last[..512] == [0; 512] && last[512..] == [4; 512]);
        assert!(image.place(2).unwrap().is_none() && image.place(0).unwrap().is_some());
    }

    #[test]
    fn what_cannot_be_read_is_refused_by_name() {
        let good = image();
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            open(&bytes).unwrap_err().to_string()
        };
        for (at, byte, told) in [
            (0, 0, "no qcow2 image"),
            (7, 4, "no qcow2 image"),
            (15, 1, "backing file"),
            (35, 1, "encrypted"),
            (79, 2, "corrupt"),
            (79, 4, "another file"),
            (79, 8, "compressed"),
            (79, 32, "features 0x20"),
            (23, 40, "clusters of 2^40"),
            (39, 1, "needs"),
        ] {
            assert!(with(at, byte).contains(told), "{at}: {}", with(at, byte));
        }
        assert!(open(&good[..40]).unwrap_err().to_string().contains("too short"));
        assert!(open(&good[..CLUSTER as usize * 2]).is_err(), "its table is cut off");
    }

    #[test]
    fn a_compressed_cluster_and_one_of_zeros_are_told_apart() {
        let mut bytes = image();
        let level1 = number(&bytes, 40, 8) as usize;
        let level2 = (number(&bytes, level1, 8) & OFFSET_MASK) as usize;
        bytes[level2] |= 0x40;
        assert!(open(&bytes).unwrap().place(0).unwrap_err().to_string().contains("compressed"));
        bytes[level2] &= !0x40;
        bytes[level2 + 7] |= 1;
        assert!(open(&bytes).unwrap().place(0).unwrap().is_none());
    }
}
