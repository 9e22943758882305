//! The task that does the spool's work on its spill files, one piece after the other.
//!
//! - SW-1 Each sync is answered once: by `SpillFailed` if it or any write since the sync before failed.
//! - SW-2 What is handed back by a read is the batch that was asked for, or nothing.
//!
//! What is *not* here: which file, when to sync, what a failure means ([`redoubt_core::spool`]).

use super::shell::Shell;
use super::trouble::Concern;
use bytes::Bytes;
use redoubt_core::WriteSeq;
use redoubt_core::agent::AgentEvent;
use redoubt_core::batch_file::{self, ENTRY_HEADER_BYTES, SPILL_MAGIC};
use redoubt_core::spool::{SpillPlace, SpillWork};
use redoubt_ports::{File, IoError, IoKind, OpenMode};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Returns the name of a spill file.
pub(super) fn spill_name(number: u64) -> String {
    format!("spill-{number:016x}.hrl")
}

/// The files of the spill and what of them is not durable.
struct SpillFiles {
    files: BTreeMap<u64, Arc<dyn File>>,
    unsynced: BTreeSet<u64>,
    has_new_name: bool,
    /// A write since the last sync failed.
    has_failed: bool,
}

/// Does the work for ever; begins with the files that a start found.
pub(super) async fn run(shell: Arc<Shell>, files: BTreeMap<u64, Arc<dyn File>>) {
    let mut spill = SpillFiles { files, unsynced: BTreeSet::new(), has_new_name: false, has_failed: false };
    loop {
        let work = shell.lock().spill.pop_front();
        let Some(work) = work else {
            shell.spill_wake.notified().await;
            continue;
        };
        if let Some(event) = spill.perform(&shell, work).await {
            shell.step(event);
            shell.progress.notify_one();
        }
    }
}

impl SpillFiles {
    async fn perform(&mut self, shell: &Shell, work: SpillWork) -> Option<AgentEvent> {
        let done = match work {
            SpillWork::Read { place, first } => {
                let read = self.read(place, first).await;
                if let Err(error) = &read {
                    shell.trouble(Concern::Spill, error);
                }
                return Some(AgentEvent::SpillRead { first, bytes: read.ok() });
            }
            SpillWork::Sync { ticket } => return Some(self.answer(shell, ticket).await),
            SpillWork::Remove { file } => {
                // Only space is lost: a start that finds the file again sees that it is staged.
                if let Err(error) = self.remove(shell, file).await {
                    shell.trouble(Concern::Spill, error);
                }
                return None;
            }
            SpillWork::Create { .. } | SpillWork::Append { .. } if self.has_failed => return None,
            SpillWork::Create { file } => self.create(shell, file).await,
            SpillWork::Append { place, bytes } => self.append(place, &bytes).await,
        };
        if let Err(error) = done {
            shell.trouble(Concern::Spill, error);
            self.has_failed = true;
        }
        None
    }

    /// SW-1.
    async fn answer(&mut self, shell: &Shell, ticket: u64) -> AgentEvent {
        if !std::mem::take(&mut self.has_failed) {
            match self.sync(shell).await {
                Ok(()) => {
                    shell.works(Concern::Spill);
                    return AgentEvent::SpillSynced { ticket };
                }
                Err(error) => shell.trouble(Concern::Spill, error),
            }
        }
        AgentEvent::SpillFailed { ticket }
    }

    fn get(&self, number: u64) -> Result<&Arc<dyn File>, IoError> {
        let missing = || IoError::new(IoKind::NotFound, format!("open {}", spill_name(number)), "not open");
        self.files.get(&number).ok_or_else(missing)
    }

    async fn create(&mut self, shell: &Shell, number: u64) -> Result<(), IoError> {
        let (files, name) = (&shell.world.files, spill_name(number));
        files.remove(&name).await?;
        let file = files.open(&name, OpenMode::CreateNew).await?;
        self.has_new_name = true;
        let header = batch_file::file_header(SPILL_MAGIC, shell.settings.machine, number);
        self.files.insert(number, Arc::clone(&file));
        self.unsynced.insert(number);
        file.write_at(0, &[header]).await
    }

    async fn append(&mut self, place: SpillPlace, bytes: &Bytes) -> Result<(), IoError> {
        self.unsynced.insert(place.file);
        self.get(place.file)?.write_at(place.offset, &batch_file::entry(bytes)).await
    }

    async fn remove(&mut self, shell: &Shell, number: u64) -> Result<(), IoError> {
        self.files.remove(&number);
        self.unsynced.remove(&number);
        shell.world.files.remove(&spill_name(number)).await
    }

    async fn sync(&mut self, shell: &Shell) -> Result<(), IoError> {
        for number in std::mem::take(&mut self.unsynced) {
            if let Some(file) = self.files.get(&number) {
                file.sync().await?;
            }
        }
        if std::mem::take(&mut self.has_new_name) {
            shell.world.files.sync_dir().await?;
        }
        Ok(())
    }

    /// SW-2: the checksum tells damage, the header a sound entry of another batch.
    async fn read(&self, place: SpillPlace, first: WriteSeq) -> Result<Bytes, IoError> {
        let length = ENTRY_HEADER_BYTES + place.bytes as usize;
        let mut entry = self.get(place.file)?.read_at(place.offset, length).await?;
        let is_whole = entry.len() == length;
        let head = entry.split_to(ENTRY_HEADER_BYTES.min(entry.len()));
        let is_sound = is_whole && batch_file::entry(&entry)[0] == head;
        if is_sound && redoubt_wire::peek(&entry).is_ok_and(|meta| meta.first == first) {
            return Ok(entry);
        }
        let what = format!("read {} at {}", spill_name(place.file), place.offset);
        Err(IoError::new(IoKind::Device, what, "the spilled batch is damaged or another one"))
    }
}
