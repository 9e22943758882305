//! What a resync talks about: blocks, what the vault is known to hold of them, what a read found.
//!
//! What is *not* here: which block is next ([`super::ResyncPlanner`]).

use crate::extent_map::BLOCK_SECTORS;
use crate::ids::VolumeIndex;
use crate::units::{Extent, SECTOR_BYTES};
use bytes::Bytes;

/// Bytes of one block.
const BLOCK_BYTES: usize = (BLOCK_SECTORS * SECTOR_BYTES) as usize;
/// A page of zeros to compare with: much faster than byte by byte.
const ZEROS: [u8; 4096] = [0; 4096];

/// The dirty bits of all volumes.
pub trait DirtyBlocks {
    /// Returns the first dirty block of the volume not before `from`.
    fn next_dirty(&self, volume: VolumeIndex, from: u64) -> Option<u64>;
    /// Returns the sectors of a block, clipped to the volume; `None` beyond its end.
    fn block_extent(&self, volume: VolumeIndex, block: u64) -> Option<Extent>;
    /// Returns how many blocks of the volume are dirty.
    fn dirty_count(&self, volume: VolumeIndex) -> u64;
}

/// What the vault is known to hold of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Not known, or not relied upon any more: send.
    Unknown,
    /// Zeros.
    Zeros,
    /// Content with this BLAKE3.
    Hash([u8; 32]),
}

/// What the read of a block found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Zeros only.
    Zeros,
    /// Something else; its BLAKE3 if somebody asked for it.
    Data(Option<[u8; 32]>),
}

/// What to do with a block that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The vault has it: stamp nothing.
    Same,
    /// Stamp `ResyncZeroes`.
    Zeroes,
    /// Stamp `ResyncWrite`.
    Write,
}

/// Compares what the vault holds with what the disk holds.
pub(super) fn judge(expected: Expected, content: Content) -> Verdict {
    match (expected, content) {
        (Expected::Zeros, Content::Zeros) => Verdict::Same,
        (Expected::Hash(a), Content::Data(Some(b))) if a == b => Verdict::Same,
        (_, Content::Zeros) => Verdict::Zeroes,
        (_, Content::Data(_)) => Verdict::Write,
    }
}

/// A run of blocks as it was read: one [`Content`] for each, and the bytes. Made before the machine is
/// stepped, so that no digest is computed while guests wait for the step.
#[derive(Clone, Debug)]
pub struct RunRead {
    /// Bytes of all blocks; empty if all are zeros.
    pub payload: Bytes,
    /// One for each block, in order.
    pub contents: Vec<Content>,
}

impl RunRead {
    /// Looks at what was read; `with_digests` as [`super::ResyncPlanner::wants_digests`] said.
    pub fn of(payload: Bytes, with_digests: bool) -> RunRead {
        let content = |block: &[u8]| {
            if block.chunks(ZEROS.len()).all(|part| part == &ZEROS[..part.len()]) {
                Content::Zeros
            } else {
                Content::Data(with_digests.then(|| *blake3::hash(block).as_bytes()))
            }
        };
        let contents = payload.chunks(BLOCK_BYTES).map(content).collect();
        RunRead { payload, contents }
    }

    /// The disk says that the extent is a hole: nothing was read.
    pub fn hole(extent: Extent) -> RunRead {
        let blocks = extent.sectors.0.div_ceil(BLOCK_SECTORS) as usize;
        RunRead { payload: Bytes::new(), contents: vec![Content::Zeros; blocks] }
    }
}

/// Neighbouring blocks of one run with one verdict; each piece becomes one record, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Sectors.
    pub extent: Extent,
    /// What to do.
    pub verdict: Verdict,
}

/// Joins what may be joined: equal neighbours that carry no payload.
pub fn pieces(run: Extent, verdicts: &[Verdict]) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    for (index, verdict) in verdicts.iter().enumerate() {
        let first = run.lba.0 + index as u64 * BLOCK_SECTORS;
        let end = (first + BLOCK_SECTORS).min(run.end());
        match pieces.last_mut() {
            Some(last) if last.verdict == *verdict && *verdict != Verdict::Write => {
                last.extent = Extent::new(last.extent.lba.0, end - last.extent.lba.0);
            }
            _ => pieces.push(Piece { extent: Extent::new(first, end - first), verdict: *verdict }),
        }
    }
    pieces
}
