//! Whether the stream is exact at the end of what is staged: the one thing of `Welcome` that only
//! opened batches tell.
//!
//! Batches are searched from the newest back to the first that decides. Nothing is opened in the usual
//! case: the vault's head is exact and no staged batch opens a resync.

use super::stage::StagedBatch;
use redoubt_core::{Change, WriteSeq};
use redoubt_wire::StreamKey;
use std::collections::VecDeque;

/// What is known about a position of the stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) seq: WriteSeq,
    pub(super) is_exact: bool,
}

/// Returns whether the stream is exact behind the last entry. `known` is a position at or before it.
/// A batch that cannot be opened makes the answer "not exact": the packer will report it.
pub(super) async fn at_end(entries: &VecDeque<StagedBatch>, key: &StreamKey, known: Known) -> Known {
    let new = || entries.iter().rev().take_while(|entry| entry.meta.last > known.seq);
    let Some(last) = new().next() else { return known };
    let seq = last.meta.last;
    if known.is_exact && !new().any(|entry| entry.meta.flags.starts_resync()) {
        // A resync that is not opened by the first record of its batch has no flag: the agent always
        // opens a batch for it (a jump needs the flag, RC-1).
        return Known { seq, is_exact: true };
    }
    for entry in new() {
        let Ok(bytes) = entry.read().await else { return Known { seq, is_exact: false } };
        let Ok(batch) = redoubt_wire::open(key, bytes) else { return Known { seq, is_exact: false } };
        let deciding = batch.records.iter().rev().find_map(|record| match record.change {
            Change::ResyncEnd => Some(true),
            Change::ResyncBegin { .. } => Some(false),
            _ => None,
        });
        if let Some(is_exact) = deciding {
            return Known { seq, is_exact };
        }
        tokio::task::yield_now().await;
    }
    Known { seq, is_exact: known.is_exact }
}
