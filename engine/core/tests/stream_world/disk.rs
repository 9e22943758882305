//! Files with a durable length each: what a power loss keeps is the synced part and some torn bytes.

use redoubt_core::batch_file::{ENTRY_HEADER_BYTES, Scan, Tail, entry, file_header, scan};
use redoubt_core::{
    BatchPosition, Chain, Generation, MachineId, SealedBatch, SealedFlags, SealedMeta, WriteSeq,
};
use std::collections::BTreeMap;

pub(crate) const MACHINE: MachineId = MachineId(7);

#[derive(Debug, Default)]
struct Img {
    bytes: Vec<u8>,
    synced: usize,
}

/// One directory of batch files.
#[derive(Debug)]
pub(crate) struct Disk {
    magic: [u8; 4],
    files: BTreeMap<u64, Img>,
}

/// A batch in a file: its header, file and offset of its entry.
#[derive(Clone, Copy)]
pub(crate) struct Found {
    pub(crate) meta: SealedMeta,
    pub(crate) file: u64,
    pub(crate) offset: u64,
}

impl Disk {
    pub(crate) fn new(magic: [u8; 4]) -> Disk {
        Disk { magic, files: BTreeMap::new() }
    }

    pub(crate) fn create(&mut self, file: u64) {
        let header = file_header(self.magic, MACHINE, file).to_vec();
        let old = self.files.insert(file, Img { bytes: header, synced: 0 });
        assert!(old.is_none(), "file {file} is made once");
    }

    /// Writes an entry.
    pub(crate) fn append(&mut self, file: u64, offset: u64, batch: &SealedBatch) {
        let img = self.files.get_mut(&file).expect("the file exists");
        assert_eq!(img.bytes.len() as u64, offset, "entries lie one after another");
        entry(&batch.bytes).iter().for_each(|part| img.bytes.extend_from_slice(part));
    }

    pub(crate) fn len(&self, file: u64) -> u64 {
        self.files[&file].bytes.len() as u64
    }

    pub(crate) fn sync(&mut self) {
        self.files.values_mut().for_each(|img| img.synced = img.bytes.len());
    }

    pub(crate) fn remove(&mut self, file: u64) {
        self.files.remove(&file);
    }

    pub(crate) fn remove_below(&mut self, first_kept: u64) {
        self.files.retain(|file, _| *file >= first_kept);
    }

    pub(crate) fn next_file(&self) -> u64 {
        self.files.keys().next_back().map_or(1, |file| file + 1)
    }

    pub(crate) fn lose_power(&mut self, torn: usize) {
        for img in self.files.values_mut() {
            let keep = (img.synced + torn).min(img.bytes.len());
            img.bytes.truncate(keep);
            img.synced = img.synced.min(keep);
        }
    }

    /// Bit rot in the last entry of the newest file.
    pub(crate) fn rot_last(&mut self) {
        if let Some(byte) = self.files.values_mut().next_back().and_then(|img| img.bytes.last_mut()) {
            *byte ^= 0x10;
        }
    }

    pub(crate) fn read(&self, file: u64, offset: u64) -> Option<bytes::Bytes> {
        let img = self.files.get(&file)?;
        let start = offset as usize + ENTRY_HEADER_BYTES;
        let length = u32::from_le_bytes(img.bytes.get(offset as usize..)?.first_chunk().copied()?) as usize;
        Some(bytes::Bytes::copy_from_slice(img.bytes.get(start..start + length)?))
    }

    /// What is durable now, without changing anything.
    pub(crate) fn durable(&self) -> Vec<Chain> {
        let usable =
            |(_, img): (&u64, &Img)| scan(&img.bytes[..img.synced].to_vec().into(), self.magic, MACHINE).ok();
        let scans = self.files.iter().filter_map(usable);
        scans.flat_map(|scan| scan.entries).map(|entry| meta_of(&entry.bytes).chain).collect()
    }

    /// A restart's scan: cuts torn tails, removes files that are none, syncs what it uses.
    pub(crate) fn recover(&mut self) -> (Vec<(u64, u64)>, Vec<Found>) {
        let (mut lengths, mut found) = (Vec::new(), Vec::new());
        let numbers: Vec<u64> = self.files.keys().copied().collect();
        for number in numbers {
            let img = self.files.get_mut(&number).expect("it was listed");
            let Ok(Scan { entries, tail, .. }) = scan(&img.bytes.clone().into(), self.magic, MACHINE) else {
                self.files.remove(&number);
                continue;
            };
            if let Tail::Torn(at) | Tail::Damaged(at) = tail {
                img.bytes.truncate(at as usize);
            }
            img.synced = img.bytes.len();
            lengths.push((number, img.bytes.len() as u64));
            found.extend(entries.into_iter().map(|entry| Found {
                meta: meta_of(&entry.bytes),
                file: number,
                offset: entry.offset - ENTRY_HEADER_BYTES as u64,
            }));
        }
        (lengths, found)
    }
}

/// Makes bytes that carry the header, as the seal does: magic, fields, padding; the chain digests them.
pub(crate) fn seal(
    generation: u64,
    first: u64,
    last: u64,
    opens: bool,
    prev: Chain,
    extra: usize,
    unique: u64,
) -> SealedBatch {
    let mut bytes = redoubt_core::sealed::SEALED_MAGIC.to_vec();
    for number in [generation, first, last, u64::from(opens), unique] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(&prev.0);
    bytes.resize(redoubt_core::sealed::SEALED_HEADER_BYTES + extra, 0xee);
    let meta = meta_of(&bytes);
    SealedBatch { meta, bytes: bytes.into() }
}

pub(crate) fn meta_of(bytes: &[u8]) -> SealedMeta {
    let number = |index: usize| {
        u64::from_le_bytes(bytes[4 + 8 * index..].first_chunk().copied().expect("the header is whole"))
    };
    SealedMeta {
        machine: MACHINE,
        generation: Generation(number(0)),
        first: WriteSeq(number(1)),
        last: WriteSeq(number(2)),
        flags: SealedFlags(if number(3) == 1 { SealedFlags::STARTS_RESYNC } else { 0 }),
        prev: Chain(bytes[44..].first_chunk().copied().expect("the header is whole")),
        chain: Chain(*blake3::hash(bytes).as_bytes()),
        bytes: bytes.len() as u32,
    }
}

/// Where a stream begins.
pub(crate) const START: BatchPosition =
    BatchPosition { generation: Generation(0), seq: WriteSeq(0), chain: Chain([0; 32]) };
