//! A qcow2 image, version 3, written from the front to the back: clusters of 64 KiB, no compression, no backing
//! file, no snapshots.
//!
//! | cluster | holds |
//! |---|---|
//! | 0 | header, written last |
//! | 1.. | data, each table of level 2 behind the data it names |
//! | then | table of level 1, refcount blocks, refcount table |
//!
//! Every cluster of the file has exactly one reference. Numbers are big-endian. A cluster that is not named
//! reads as zeros.
//!
//! What is *not* here: where the data comes from; when the file gets its name.

use std::io::{BufWriter, Result, Seek, SeekFrom, Write};

const CLUSTER_BITS: u32 = 16;
const CLUSTER: u64 = 1 << CLUSTER_BITS;
/// Entries of a table of one cluster.
const ENTRIES: u64 = CLUSTER / 8;
/// References are counted in 16 bits.
const REFCOUNT_ORDER: u32 = 4;
const REFCOUNTS: u64 = CLUSTER / 2;
/// "The cluster has one reference": it may be written in place.
const ONE_REFERENCE: u64 = 1 << 63;
const HEADER_BYTES: u32 = 104;
const BUFFER_BYTES: usize = 1 << 20;

/// An image being written. Offsets of data must not go backwards.
pub(crate) struct Qcow2<W: Write + Seek> {
    file: BufWriter<W>,
    size: u64,
    /// Next free cluster of the file.
    next: u64,
    level1: Vec<u64>,
    /// The open table of level 2: its number, its entries.
    level2: (u64, Vec<u64>),
    /// The open cluster: its number in the disk, its bytes.
    open: Option<(u64, Vec<u8>)>,
}

impl<W: Write + Seek> Qcow2<W> {
    /// Begins an image of a disk of `size` bytes.
    pub(crate) fn new(file: W, size: u64) -> Result<Qcow2<W>> {
        let mut file = BufWriter::with_capacity(BUFFER_BYTES, file);
        file.seek(SeekFrom::Start(CLUSTER))?;
        let level1 = vec![0; size.div_ceil(CLUSTER * ENTRIES) as usize];
        Ok(Qcow2 { file, size, next: 1, level1, level2: (0, vec![0; ENTRIES as usize]), open: None })
    }

    /// Writes data at an offset of the disk.
    pub(crate) fn write(&mut self, mut offset: u64, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let (cluster, at) = (offset / CLUSTER, (offset % CLUSTER) as usize);
            let (now, later) = bytes.split_at(bytes.len().min(CLUSTER as usize - at));
            self.turn_to(cluster)?;
            if let Some((_, open)) = &mut self.open {
                open[at..at + now.len()].copy_from_slice(now);
            }
            (offset, bytes) = (offset + now.len() as u64, later);
        }
        Ok(())
    }

    /// Opens a cluster, closing the one before.
    fn turn_to(&mut self, cluster: u64) -> Result<()> {
        let before = match self.open.take() {
            Some(open) if open.0 == cluster => {
                self.open = Some(open);
                return Ok(());
            }
            Some((before, bytes)) => {
                let place = self.append(&bytes)?;
                self.level2.1[(before % ENTRIES) as usize] = place | ONE_REFERENCE;
                Some(bytes)
            }
            None => None,
        };
        if cluster / ENTRIES != self.level2.0 {
            self.close_level2()?;
            self.level2.0 = cluster / ENTRIES;
        }
        let mut bytes = before.unwrap_or_default();
        bytes.clear();
        bytes.resize(CLUSTER as usize, 0);
        self.open = Some((cluster, bytes));
        Ok(())
    }

    fn close_level2(&mut self) -> Result<()> {
        let (number, entries) = (self.level2.0, std::mem::take(&mut self.level2.1));
        if entries.iter().any(|entry| *entry != 0) {
            let place = self.append(&table(&entries))?;
            self.level1[number as usize] = place | ONE_REFERENCE;
        }
        self.level2.1 = entries;
        self.level2.1.fill(0);
        Ok(())
    }

    /// Appends whole clusters and returns where they begin.
    fn append(&mut self, bytes: &[u8]) -> Result<u64> {
        let place = self.next * CLUSTER;
        self.file.write_all(bytes)?;
        let rest = bytes.len().next_multiple_of(CLUSTER as usize) - bytes.len();
        self.file.write_all(&vec![0; rest])?;
        self.next += (bytes.len() + rest) as u64 / CLUSTER;
        Ok(place)
    }

    /// Writes the tables, then the header. What follows, such as a sync, is the owner's.
    pub(crate) fn finish(mut self) -> Result<()> {
        if let Some((cluster, bytes)) = self.open.take() {
            let place = self.append(&bytes)?;
            self.level2.1[(cluster % ENTRIES) as usize] = place | ONE_REFERENCE;
        }
        self.close_level2()?;
        let level1 = self.append(&table(&self.level1.clone()))?;
        // The counters count themselves: more of them until all are counted.
        let (mut blocks, mut tables) = (0, 0);
        while blocks * REFCOUNTS < self.next + blocks + tables || tables * ENTRIES < blocks {
            blocks = (self.next + blocks + tables).div_ceil(REFCOUNTS);
            tables = blocks.div_ceil(ENTRIES);
        }
        let (total, first) = (self.next + blocks + tables, self.next * CLUSTER);
        for block in 0..blocks {
            let counted = (total - block * REFCOUNTS).min(REFCOUNTS);
            self.append(&[0, 1].repeat(counted as usize))?;
        }
        let places: Vec<u64> = (0..blocks).map(|block| first + block * CLUSTER).collect();
        let refcounts = self.append(&table(&places))?;
        let header = self.header(level1, refcounts, tables as u32);
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&header)?;
        self.file.flush()
    }

    fn header(&self, level1: u64, refcounts: u64, refcount_clusters: u32) -> Vec<u8> {
        let mut header = Vec::with_capacity(CLUSTER as usize);
        header.extend(b"QFI\xfb");
        header.extend(3u32.to_be_bytes());
        // No backing file: its name's place and length.
        header.extend([0; 12]);
        header.extend(CLUSTER_BITS.to_be_bytes());
        header.extend(self.size.to_be_bytes());
        // No encryption.
        header.extend([0; 4]);
        header.extend((self.level1.len() as u32).to_be_bytes());
        header.extend(level1.to_be_bytes());
        header.extend(refcounts.to_be_bytes());
        header.extend(refcount_clusters.to_be_bytes());
        // No snapshots: how many, where; then no incompatible, compatible or automatic features.
        header.extend([0; 4 + 8 + 3 * 8]);
        header.extend(REFCOUNT_ORDER.to_be_bytes());
        header.extend(HEADER_BYTES.to_be_bytes());
        // No header extension, and the rest of the cluster.
        header.resize(CLUSTER as usize, 0);
        header
    }
}

fn table(entries: &[u64]) -> Vec<u8> {
    entries.iter().flat_map(|entry| entry.to_be_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn number(image: &[u8], at: u64, length: usize) -> u64 {
        image[at as usize..at as usize + length].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    /// Reads a cluster of the disk, and counts the references to clusters of the file.
    fn cluster(image: &[u8], number_of: u64) -> Option<&[u8]> {
        let entry = |at| Some(number(image, at, 8) & !ONE_REFERENCE).filter(|place| *place != 0);
        let level1 = number(image, 40, 8);
        let level2 = entry(level1 + number_of / ENTRIES * 8)?;
        let place = entry(level2 + number_of % ENTRIES * 8)?;
        Some(&image[place as usize..(place + CLUSTER) as usize])
    }

    #[test]
    fn what_was_written_reads_back_and_every_cluster_is_counted_once() {
        let (size, far) = (3 * CLUSTER * ENTRIES + 512, 2 * CLUSTER * ENTRIES);
        let mut bytes = Cursor::new(Vec::new());
        let mut image = Qcow2::new(&mut bytes, size).unwrap();
        image.write(512, &[1; 512]).unwrap();
        image.write(CLUSTER - 512, &[2; 1024]).unwrap();
        image.write(far, &[3; 512]).unwrap();
        image.write(size - 512, &[4; 512]).unwrap();
        image.finish().unwrap();
        let image = bytes.into_inner();
        assert_eq!((&image[..4], number(&image, 4, 4), number(&image, 24, 8)), (&b"QFI\xfb"[..], 3, size));
        let first = cluster(&image, 0).unwrap();
        assert!(first[..512] == [0; 512] && first[512..1024] == [1; 512]);
        assert!(first[CLUSTER as usize - 512..] == [2; 512]);
        assert!(cluster(&image, 1).unwrap()[..1024] == [[2; 512], [0; 512]].concat());
        assert!(cluster(&image, 2).is_none());
        assert!(cluster(&image, far / CLUSTER).unwrap()[..512] == [3; 512]);
        assert!(cluster(&image, size / CLUSTER).unwrap()[..512] == [4; 512]);
        let block = number(&image, number(&image, 48, 8), 8);
        let clusters = image.len() as u64 / CLUSTER;
        assert_eq!(image.len() as u64 % CLUSTER, 0);
        for at in 0..REFCOUNTS {
            let wanted = u64::from(at < clusters);
            assert_eq!(number(&image, block + at * 2, 2), wanted, "cluster {at} of {clusters}");
        }
    }
}
