//! What a restart takes over from the spill files of an earlier run.
//!
//! What is *not* here: reading files ([`crate::batch_file`]), whether the stop was clean and what to do if it
//! was not ([`crate::agent_state`]).

use super::Spool;
use super::events::{SpillPlace, SpoolLimits};
use super::files::SpillFiles;
use super::held::Queue;
use crate::sealed::SealedMeta;

/// Tells whether a batch is the next one sealed after `before` (CH-2).
fn follows(batch: &SealedMeta, before: &SealedMeta) -> bool {
    let jumps = batch.flags.starts_resync() && batch.first > before.last;
    batch.prev == before.chain && (jumps || batch.first == before.last.next())
}

impl Spool {
    /// Takes over what a scan found after a restart: files with their usable length, oldest first, and the
    /// batches in them. Later batches go to new files. The shell syncs the files it scanned first: what a
    /// crashed process wrote may be in the page cache only, and all of this counts as durable (SP-3).
    ///
    /// Only the first run of batches that continue each other is used; a power loss may keep a newer file
    /// and not the end of the one before. Files behind the run are removed in the next step. The caller
    /// compares the end of the run with the record of a clean stop.
    pub fn recover(
        limits: SpoolLimits,
        files: Vec<(u64, u64)>,
        mut batches: Vec<(SealedMeta, SpillPlace)>,
    ) -> Spool {
        let first_break = batches.windows(2).position(|pair| !follows(&pair[1].0, &pair[0].0));
        let last_used = match first_break {
            Some(index) => {
                batches.truncate(index + 1);
                batches[index].1.file
            }
            None => u64::MAX,
        };
        let files = SpillFiles::found(limits.spill_bytes, files, last_used);
        let mut spool = Spool { files, held: Queue::on_disk(batches), ..Spool::new(limits, 0) };
        spool.check();
        spool
    }
}
