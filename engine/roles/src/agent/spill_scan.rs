//! What a start finds of the spill: intact batches, and files that are of no use.
//!
//! - SS-1 A scan changes nothing. Useless files are removed only once the start is decided: a directory that
//!   is refused (another machine's, a lost record) keeps all it has for the person who must act.
//!
//! | file | what is done |
//! |---|---|
//! | shorter than its header | of no use: it never held anything durable |
//! | of a newer format, or of another machine | the start is refused |
//! | another magic, damaged header, not the number in its name | damage: order has a hole, it and later ones are of no use |
//! | damaged in the middle, or not continuing the one before | used up to there; later ones are of no use |
//! | sealed under another vault key (decision 0025) | likewise: the process server could not open it |
//!
//! What is *not* here: the decision ([`redoubt_core::agent_state`]), the run that is used
//! ([`redoubt_core::spool::Spool::recover`]).

use super::settings::AgentSettings;
use super::spill::spill_name;
use super::status::AgentError;
use redoubt_core::agent_state::Spill;
use redoubt_core::batch_file::{self, ENTRY_HEADER_BYTES, FileError, SPILL_MAGIC, Scan, Tail};
use redoubt_core::planted::{self, Bug};
use redoubt_core::sealed::SealedMeta;
use redoubt_core::spool::SpillPlace;
use redoubt_ports::{File, IoError, OpenMode, World};
use redoubt_wire::StreamKeyId;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Intact batches found in spill files, and what to clear away.
#[derive(Default)]
pub(super) struct FoundSpill {
    pub(super) files: BTreeMap<u64, Arc<dyn File>>,
    /// Each usable file with its length in bytes, oldest first.
    pub(super) lengths: Vec<(u64, u64)>,
    pub(super) batches: Vec<(SealedMeta, SpillPlace)>,
    is_damaged: bool,
    useless: Vec<u64>,
}

impl FoundSpill {
    /// Reads all spill files of the directory.
    pub(super) async fn scan(
        world: &World,
        settings: &AgentSettings,
        ours: StreamKeyId,
    ) -> Result<FoundSpill, AgentError> {
        let mut found = FoundSpill::default();
        let names = world.files.list().await?;
        let number = |name: &String| {
            let digits = name.strip_prefix("spill-")?.strip_suffix(".hrl")?;
            u64::from_str_radix(digits, 16).ok()
        };
        let mut numbers: Vec<u64> = names.iter().filter_map(number).collect();
        numbers.sort_unstable();
        for number in numbers {
            let file = world.files.open(&spill_name(number), OpenMode::Existing).await?;
            let length = file.len().await?;
            let bytes = file.read_at(0, length as usize).await?;
            let scan = batch_file::scan(&bytes, SPILL_MAGIC, settings.machine);
            match found.usable(number, scan)? {
                Some(scan) => {
                    // A crashed run's writes may be in the page cache only, and the system may believe them
                    // clean (a sync that failed). Written again and synced they are durable (decision 0006).
                    file.write_at(0, std::slice::from_ref(&bytes)).await?;
                    file.sync().await?;
                    found.take(number, &scan, ours);
                    found.lengths.push((number, length));
                    found.files.insert(number, file);
                }
                None => found.useless.push(number),
            }
        }
        Ok(found)
    }

    /// Follows the first three rows of the table.
    fn usable(&mut self, number: u64, scan: Result<Scan, FileError>) -> Result<Option<Scan>, AgentError> {
        match scan {
            Ok(scan) if scan.number == number && !self.is_damaged => Ok(Some(scan)),
            Err(FileError::Short) => Ok(None),
            Err(error @ (FileError::Version(_) | FileError::OtherMachine(_))) => {
                let detail = format!("{error}; move it away, or start where it belongs");
                Err(AgentError::State { file: spill_name(number), detail })
            }
            Ok(_) | Err(_) => {
                self.is_damaged = true;
                Ok(None)
            }
        }
    }

    fn take(&mut self, number: u64, scan: &Scan, ours: StreamKeyId) {
        self.is_damaged |= matches!(scan.tail, Tail::Damaged(_));
        if let Tail::Torn(at) = scan.tail {
            tracing::warn!(role = "agent", number, at, "cutting an append that never finished");
        }
        for entry in &scan.entries {
            let meta = redoubt_wire::peek(&entry.bytes).ok();
            let follows = |meta: &SealedMeta| {
                self.batches.last().is_none_or(|(last, _)| {
                    last.last.next() == meta.first || (meta.first > last.last && meta.flags.starts_resync())
                })
            };
            let Some(meta) = meta.filter(follows) else {
                self.is_damaged = true;
                return;
            };
            if redoubt_wire::key_of(&entry.bytes) != Some(ours) && !planted::active(Bug::KeepSpillOfOtherKey)
            {
                tracing::warn!(
                    role = "agent",
                    number,
                    first = meta.first.0,
                    "spilled batches are sealed under another vault key and given up; what they held is compared"
                );
                self.is_damaged = true;
                return;
            }
            let offset = entry.offset - ENTRY_HEADER_BYTES as u64;
            self.batches.push((meta, SpillPlace { file: number, offset, bytes: meta.bytes }));
        }
    }

    /// Returns what the decision about the start must know.
    pub(super) fn kind(&self) -> Spill {
        match (self.is_damaged, self.batches.is_empty()) {
            (true, _) => Spill::Damaged,
            (false, true) => Spill::Empty,
            (false, false) => Spill::Held,
        }
    }

    /// The start is decided: removes what is of no use (SS-1).
    pub(super) async fn clear(&mut self, world: &World) -> Result<(), IoError> {
        for number in std::mem::take(&mut self.useless) {
            tracing::warn!(role = "agent", file = spill_name(number), "a spill file without use is removed");
            world.files.remove(&spill_name(number)).await?;
        }
        Ok(())
    }
}
