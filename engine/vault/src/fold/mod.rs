//! Folds: what is left of a stretch of the log whose points are all decided.
//!
//! A fold names the segments of which some kept point of the stretch, or the end of the stretch, still shows
//! something, and the zeros that do. Whoever has folds and the log behind them can say all that the
//! points say, without any table of the index: each segment's own table tells its extents, the fold their versions.
//! Extents in a segment that nothing shows any more do no harm: what shows is newer than they, and is there.
//!
//! Invariants
//! - FO-1 Content keeps its own versions: a fold drops, it never moves anything to another version.
//! - FO-2 A fold is put before the catalogue that names it, created once, and never changed.
//! - FO-3 The last fold of a run is put last, after all that was made for it was proved, and says which points it
//!   shows and where the log goes on: folds can be used without any catalogue.
//!
//! What is *not* here: what is dropped and when (`crate::maintainer`); reading points through the index: no
//! mount needs a fold.

mod codec;
mod gather;
mod listed;

#[cfg(test)]
pub(crate) use codec::tests::example;
pub(crate) use codec::{PLAIN_MAX, decode, encode, peek_dek};
pub(crate) use gather::gather;
pub(crate) use listed::newest_listed;

use crate::chain::{LogMark, LogTail};
use crate::error::StoreFailure;
use crate::index::{PointOf, SegmentPlace, TableId, Version};
use crate::load::Log;
use crate::log::HeadState;
use crate::names;
use redoubt_core::VolumeIndex;
use redoubt_core::maintenance::PointClock;

/// The end of what was folded: the log is read from the slot behind it on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The last slot that was folded; 0: none was.
    pub(crate) slot: u64,
    /// BLAKE3 of that slot's header and body: what the next record names.
    pub(crate) digest: [u8; 32],
    /// Epoch of the log there.
    pub(crate) epoch: u64,
    /// Data key of the last record that counts, 0 if there is none.
    pub(crate) dek: u32,
    pub(crate) head: HeadState,
}

impl Mark {
    /// The first slot that the log is read from.
    pub(crate) fn log_from(&self) -> u64 {
        self.slot + 1
    }

    /// Begins to read the log behind it.
    pub(crate) fn tail(&self) -> LogTail {
        let Mark { slot, digest, epoch, dek, ref head } = *self;
        let mut tail = LogMark { slot, digest, epoch }.tail(head.clone());
        tail.dek = dek;
        tail
    }

    pub(crate) fn at(tail: &LogTail) -> Mark {
        let LogTail { slot, digest, epoch, dek, ref head, .. } = *tail;
        Mark { slot, digest, epoch, dek, head: head.clone() }
    }
}

/// A fold object, as a catalogue names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FoldInfo {
    pub(crate) uuid: u128,
    /// Epoch of the maintainer that wrote it: part of its name.
    pub(crate) epoch: u64,
    pub(crate) length: u64,
    /// BLAKE3 of all its bytes, for scrubbing without a key.
    pub(crate) digest: [u8; 32],
    pub(crate) dek: u32,
    /// Bytes of the segments it names, and of the units in them that something shows.
    pub(crate) stored: u64,
    pub(crate) live: u64,
}

/// What the spans of a segment's extents mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Spans {
    /// They are those of this slot's commit.
    Of(u64),
    /// Span k is the k-th of these versions, which ascend.
    Each(Vec<Version>),
}

impl Spans {
    /// Returns the version of a span.
    pub(crate) fn version(&self, span: u16) -> Option<Version> {
        match self {
            Spans::Of(slot) => Some(Version::new(*slot, span)),
            Spans::Each(versions) => versions.get(usize::from(span)).copied(),
        }
    }
}

/// A segment of which something shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FoldRow {
    pub(crate) place: SegmentPlace,
    pub(crate) length: u64,
    /// Offset of its unit table.
    pub(crate) tail: u64,
    pub(crate) units: u32,
    pub(crate) root: [u8; 32],
    /// BLAKE3 of all its bytes.
    pub(crate) digest: [u8; 32],
    pub(crate) spans: Spans,
}

impl FoldRow {
    /// Returns about how many bytes it takes in a fold, at most.
    pub(crate) fn bytes(&self) -> usize {
        let versions = match &self.spans {
            Spans::Of(_) => 1,
            Spans::Each(versions) => versions.len(),
        };
        160 + 10 * versions
    }
}

/// Zeros that show. Segments may hold them as well; those that did may be gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FoldZeros {
    pub(crate) volume: VolumeIndex,
    pub(crate) first: u64,
    pub(crate) sectors: u64,
    pub(crate) version: Version,
}

/// What is left of slots `from..=to`, or a part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fold {
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// Identity of the run it belongs to, and its place among the folds of that.
    pub(crate) run: u128,
    pub(crate) part: u32,
    /// Bytes of the units of its segments that something shows.
    pub(crate) live: u64,
    pub(crate) rows: Vec<FoldRow>,
    pub(crate) zeros: Vec<FoldZeros>,
    /// What the last fold of a run says besides.
    pub(crate) end: Option<FoldEnd>,
}

/// What a catalogue says of a folded run and its end: enough to go on without one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FoldEnd {
    /// The end of the run's stretch.
    pub(crate) mark: Mark,
    /// The clock when it was folded.
    pub(crate) clock: PointClock,
    /// Points of the stretch that were kept, oldest first.
    pub(crate) live: Vec<PointOf>,
    pub(crate) retired: Vec<PointOf>,
}

impl Log {
    /// Reads a fold, or tells what is wrong with it.
    pub(crate) async fn fold(&self, info: &FoldInfo) -> Result<Result<Fold, String>, StoreFailure> {
        let name = names::fold(self.machine, info.epoch, info.uuid);
        let Some(bytes) = self.vault.store.get(&name, None).await? else {
            return Ok(Err("a fold is missing".to_owned()));
        };
        let key = match self.keys.for_read(info.dek).await {
            Ok(key) => key,
            Err(crate::ReadError::Store(failure)) => return Err(failure),
            Err(error) => return Ok(Err(error.to_string())),
        };
        let id = TableId { vault: self.vault.uuid, machine: self.machine, uuid: info.uuid, dek: info.dek };
        Ok(decode(&id, info.epoch, &bytes, &key).map_err(|what| what.to_string()))
    }
}
