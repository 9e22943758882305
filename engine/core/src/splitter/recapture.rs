//! Decides what must be read back after writes that failed.
//!
//! A failed write leaves old or new content in each sector, and nobody knows which: the stream is right again
//! only after the sectors were read and stamped as they are, or written anew. Until then no marker may be cut.
//!
//! - RE-1 Sectors that a failed write may have changed are in the list until they were read back or written
//!   as a whole; a resize may take them away.
//!
//! What is *not* here: the delay between attempts (the agent), the read itself (an operation like others).

use super::{Effect, IoFailure};
use crate::extent_map::EXTENT_SECTORS;
use crate::units::{Extent, Sectors};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// Failed pieces remembered exactly; beyond it a failure is widened to its whole extent of the
/// extent map, so that a disk that fails every write cannot grow the list without end.
pub const RECAPTURES_MAX: usize = 1024;

/// Extents to read back, each within one extent of the extent map, with the number of failed attempts.
#[derive(Debug, Default)]
pub(super) struct Recaptures(BTreeMap<Extent, u32>);

impl Recaptures {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Extent> {
        self.0.keys().copied()
    }

    /// A write of these sectors failed and may have changed some of them.
    pub(super) fn want(&mut self, extent: Extent, end: Sectors, effects: &mut Vec<Effect>) {
        split_at_extents(extent).for_each(|piece| self.want_piece(piece, end, effects));
    }

    fn want_piece(&mut self, mut piece: Extent, end: Sectors, effects: &mut Vec<Effect>) {
        if self.0.len() >= RECAPTURES_MAX {
            let first = piece.lba.0 / EXTENT_SECTORS * EXTENT_SECTORS;
            piece = Extent::new(first, (first + EXTENT_SECTORS).min(end.0) - first);
        }
        // Known already: its read is queued behind this failure, or will be submitted again.
        if let Entry::Vacant(entry) = self.0.entry(piece) {
            entry.insert(0);
            effects.push(Effect::Recapture { extent: piece, attempt: 0 });
        }
    }

    /// New content of all these sectors is about to be stamped, whether read back or written.
    pub(super) fn on_known(&mut self, known: Extent) {
        self.0.retain(|piece, _| piece.intersection(known) != Some(*piece));
    }

    /// The read of a piece failed.
    pub(super) fn on_failed(
        &mut self,
        extent: Extent,
        failure: IoFailure,
        end: Sectors,
        effects: &mut Vec<Effect>,
    ) {
        if matches!(failure, IoFailure::OutOfRange { .. }) {
            // A resize took the sectors away; only what is left of them is to be read back.
            let is_known = self.0.remove(&extent).is_some();
            let left = end.0.saturating_sub(extent.lba.0);
            if is_known && left > 0 {
                self.want_piece(Extent::new(extent.lba.0, left), end, effects);
            }
        } else if let Some(attempt) = self.0.get_mut(&extent) {
            *attempt = attempt.saturating_add(1);
            effects.push(Effect::Recapture { extent, attempt: *attempt });
        }
    }
}

/// Cuts an extent at the boundaries of the extent map, so that each piece lies in one extent.
pub fn split_at_extents(extent: Extent) -> impl Iterator<Item = Extent> {
    let mut at = extent.lba.0;
    std::iter::from_fn(move || {
        (at < extent.end()).then(|| {
            let end = ((at / EXTENT_SECTORS + 1) * EXTENT_SECTORS).min(extent.end());
            let piece = Extent::new(at, end - at);
            at = end;
            piece
        })
    })
}
