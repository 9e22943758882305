//! What a machine's stream is made of: records in one total order, over all its volumes.
//!
//! One stream per machine (decision 0002): a recovery point is then a prefix of *one* sequence,
//! and "all disks of the machine agree" needs no protocol.
//!
//! Invariants
//! - CH-1 Records of a batch have contiguous sequences `first..=last`.
//! - CH-2 Sequences of successive batches are contiguous, except that a batch whose first record that
//!   is not [`Change::Attach`] is [`Change::ResyncBegin`] may jump forward over burnt sequences.
//! - CH-3 Between `ResyncBegin` and `ResyncEnd` no prefix is a legal image: markers inside are
//!   never recovery points.
//!
//! What is *not* here: the sealed (encrypted, chained) form of a batch; see `redoubt-wire`.

use crate::ids::{Generation, MarkerId, VolumeId, VolumeIndex, WriteSeq};
use crate::time::WallTime;
use crate::units::{Extent, Lba, Sectors};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Largest payload of one record. A larger guest write becomes several records, stamped together
/// in one step, so that no marker can fall between them.
pub const RECORD_BYTES_MAX: usize = 1 << 20;

/// Largest sum of payloads in one batch; bounds what one frame can make a receiver allocate.
pub const BATCH_BYTES_MAX: usize = 4 << 20;

/// Largest number of records in one batch; the second bound on what a frame can cost.
pub const BATCH_RECORDS_MAX: usize = 8192;

/// How a recovery point was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MarkerKind {
    /// Cut without asking the application.
    Crash,
    /// Cut while the application was quiesced.
    App,
    /// Cut after the source was shut down for a planned failover.
    Planned,
}

/// A mark in the stream; becomes a recovery point once everything before it is in the vault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// Identity, equal in the logs of all members of a group point.
    pub id: MarkerId,
    /// How it was made.
    pub kind: MarkerKind,
    /// When, by the source's clock; for people and retention only, never for order.
    pub wall: WallTime,
}

/// Why order was lost and a resync began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResyncReason {
    /// First copy of a machine.
    Initial,
    /// The agent stopped without a clean end; hot extents are compared.
    UncleanStop,
    /// The spool overflowed; marked ranges are copied.
    Overflow,
    /// The process server lost staged data that the agent had already forgotten.
    StageLost,
    /// Histories differ at one sequence.
    Fork,
    /// The disk changed while tracking was off.
    Untracked,
    /// A person asked for it.
    Requested,
}

/// One change of a machine, or one mark in its stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Declares a volume and its size; precedes every other change of that volume.
    Attach {
        /// Ordinal used by later records.
        volume: VolumeIndex,
        /// Lasting identity.
        id: VolumeId,
        /// Size.
        sectors: Sectors,
    },
    /// New content; the payload is a whole number of sectors.
    Write {
        /// Target volume.
        volume: VolumeIndex,
        /// First sector.
        lba: Lba,
        /// Content, `1..=RECORD_BYTES_MAX` bytes.
        payload: Bytes,
    },
    /// The extent reads as zeros from now on.
    WriteZeroes {
        /// Target volume.
        volume: VolumeIndex,
        /// Sectors that become zero.
        extent: Extent,
    },
    /// The guest discarded the extent; the engine makes it read as zeros at the source as well,
    /// so that both sides stay equal.
    Trim {
        /// Target volume.
        volume: VolumeIndex,
        /// Sectors that become zero.
        extent: Extent,
    },
    /// The volume has a new size. Sectors beyond a smaller size are gone; new ones read as zeros.
    Resize {
        /// Target volume.
        volume: VolumeIndex,
        /// New size.
        sectors: Sectors,
    },
    /// Everything before this record, on all volumes, is one consistent cut.
    Marker(Marker),
    /// Order before this record is not connected to what follows.
    ResyncBegin {
        /// Why.
        reason: ResyncReason,
    },
    /// Content read back from the source during a resync.
    ResyncWrite {
        /// Target volume.
        volume: VolumeIndex,
        /// First sector.
        lba: Lba,
        /// Content.
        payload: Bytes,
    },
    /// Zeros read back from the source during a resync.
    ResyncZeroes {
        /// Target volume.
        volume: VolumeIndex,
        /// Sectors that are zero.
        extent: Extent,
    },
    /// The replica equals the source at this record; exact order holds from here on.
    ResyncEnd,
}

impl Change {
    /// Returns the payload, if the change carries one.
    pub fn payload(&self) -> Option<&Bytes> {
        match self {
            Change::Write { payload, .. } | Change::ResyncWrite { payload, .. } => Some(payload),
            _ => None,
        }
    }

    /// Returns the volume and the sectors whose content this change sets, if any.
    pub fn touched(&self) -> Option<(VolumeIndex, Extent)> {
        match self {
            Change::Write { volume, lba, payload } | Change::ResyncWrite { volume, lba, payload } => {
                Some((*volume, Extent::covering_bytes(lba.bytes(), payload.len() as u64)?))
            }
            Change::WriteZeroes { volume, extent }
            | Change::Trim { volume, extent }
            | Change::ResyncZeroes { volume, extent } => Some((*volume, *extent)),
            _ => None,
        }
    }
}

/// A change with its place in the machine's total order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Place in the order.
    pub seq: WriteSeq,
    /// What happened.
    pub change: Change,
}

/// Consecutive records of one machine and one generation, in the clear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Generation in which every record was stamped.
    pub generation: Generation,
    /// Records, never empty.
    pub records: Vec<Record>,
}

/// Why a list of records is not a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BatchError {
    /// A batch has at least one record.
    #[error("a batch needs at least one record")]
    Empty,
    /// CH-1 is broken.
    #[error("sequence {found} follows {previous} inside a batch; it must be the next one")]
    NotContiguous {
        /// The sequence before.
        previous: WriteSeq,
        /// The sequence found.
        found: WriteSeq,
    },
    /// A bound is exceeded.
    #[error("a batch of {records} records and {bytes} payload bytes is over the limit")]
    TooLarge {
        /// Records in the list.
        records: usize,
        /// Payload bytes in the list.
        bytes: usize,
    },
}

impl Batch {
    /// Makes a batch after checking CH-1 and the bounds.
    pub fn new(generation: Generation, records: Vec<Record>) -> Result<Batch, BatchError> {
        let bytes: usize = records.iter().filter_map(|r| r.change.payload()).map(Bytes::len).sum();
        if records.is_empty() {
            return Err(BatchError::Empty);
        }
        if records.len() > BATCH_RECORDS_MAX || bytes > BATCH_BYTES_MAX {
            return Err(BatchError::TooLarge { records: records.len(), bytes });
        }
        for pair in records.windows(2) {
            if pair[1].seq != pair[0].seq.next() {
                return Err(BatchError::NotContiguous { previous: pair[0].seq, found: pair[1].seq });
            }
        }
        Ok(Batch { generation, records })
    }

    /// Returns the first sequence.
    pub fn first(&self) -> WriteSeq {
        self.records[0].seq
    }

    /// Returns the last sequence.
    pub fn last(&self) -> WriteSeq {
        self.records[self.records.len() - 1].seq
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(seq: u64) -> Record {
        Record { seq: WriteSeq(seq), change: Change::ResyncEnd }
    }

    #[test]
    fn a_gap_inside_a_batch_is_refused() {
        assert_eq!(Batch::new(Generation(1), vec![]), Err(BatchError::Empty));
        assert!(Batch::new(Generation(1), vec![end(4), end(5)]).is_ok());
        let gap = BatchError::NotContiguous { previous: WriteSeq(4), found: WriteSeq(6) };
        assert_eq!(Batch::new(Generation(1), vec![end(4), end(6)]), Err(gap));
    }
}
