//! Reads the log for what a fold names: the segments of its records.

use super::{FoldRow, Spans};
use crate::chain::{LogMark, LogTail};
use crate::error::VaultError;
use crate::load::{Log, STRETCH_SLOTS, place};
use crate::log::LogRecord;
use bytes::Bytes;
use redoubt_wire::aead::Key;

/// Hands the segments of slot `tail.slot + 1` up to `to` to `each`, in the order of the log, and returns where it
/// came to: `to`, or the log's end. Of void records nothing counts.
pub(crate) async fn gather(
    log: &Log,
    mut tail: LogTail,
    to: u64,
    mut each: impl FnMut(FoldRow) + Send,
) -> Result<LogTail, VaultError> {
    while tail.slot < to {
        let limit = (to - tail.slot).min(STRETCH_SLOTS as u64) as usize;
        let record = |record: LogRecord, _: &Key, _: &Bytes, _: LogMark| {
            record.body.segments.iter().for_each(|row| {
                let (place, spans) = (place(&record, row), Spans::Of(record.header.slot));
                let (length, tail, units) = (row.length, row.tail, row.units);
                let (root, digest) = (row.root, row.digest);
                each(FoldRow { place, length, tail, units, root, digest, spans });
            });
        };
        let is_all = tail.load(log, limit, record).await?;
        if is_all {
            break;
        }
    }
    Ok(tail)
}
