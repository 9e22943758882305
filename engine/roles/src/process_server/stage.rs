//! The stage of one machine: sealed batches in numbered files, and where each one lies.
//!
//! Files `stage-<machine>-<n>.log` in the format of `core::batch_file`. A start never appends to a file
//! it found: appends go to a new file, so that a torn tail stays the end of its file.
//!
//! Invariants
//! - SE-1 Entries in memory are in stream order, and each lies whole in its file.
//! - SE-2 What is cut from the end vanishes newest file first, each removal durable before the next: a
//!   crash in between leaves a prefix. What is trimmed from the front vanishes oldest first.
//! - SE-3 What [`Stage::settle`] leaves is durable: it was written again and synced. A sync alone would
//!   prove nothing: an earlier process may have died of a sync that failed, after which the system
//!   counts the bytes as clean without having written them. Files whose batches the vault holds are
//!   removed instead: a server of many machines would write tens of gigabytes at its start for nothing.
//! - SE-4 What memory keeps is what was appended, and is handed over once; the file has it as well.
//!
//! What is *not* here: what continues the stream (`core::receiver::judge`), when to sync.

use bytes::Bytes;
use redoubt_core::batch_file::{self, ENTRY_HEADER_BYTES, FILE_HEADER_BYTES, FileError, STAGE_MAGIC, Tail};
use redoubt_core::planted::{self, Bug};
use redoubt_core::receiver::{Verdict, judge_found};
use redoubt_core::{BatchPosition, MachineId, SealedBatch, SealedMeta, WriteSeq};
use redoubt_ports::{File, Files, IoError, IoKind, OpenMode};
use redoubt_wire::StreamKeyId;
use std::collections::VecDeque;
use std::sync::Arc;

/// A stage file is closed at this size: bounds what a scan holds, and the space a vaulted file keeps.
pub(super) const STAGE_FILE_BYTES: u64 = 64 << 20;

/// Sealed bytes kept in memory for the packer at most, as much as one commit takes; later ones are read back
/// from the file.
pub(super) const KEPT_BYTES_MAX: u64 = 32 << 20;

/// Where one staged batch lies. Readable even after its name is gone.
#[derive(Clone)]
pub(super) struct StagedBatch {
    pub(super) meta: SealedMeta,
    /// The stream key that sealed it.
    pub(super) key: Option<StreamKeyId>,
    pub(super) offset: u64,
    file: Arc<dyn File>,
    number: u64,
    /// As received: it holds no other memory (FR-3 of the wire's frames).
    kept: Option<Bytes>,
}

impl StagedBatch {
    /// Returns the sealed bytes from memory the first time, if they are there, and else from the file.
    pub(super) async fn take(&mut self) -> Result<Bytes, IoError> {
        match self.kept.take() {
            Some(bytes) => Ok(bytes),
            None => self.read().await,
        }
    }

    /// Reads the sealed bytes back from the file.
    pub(super) async fn read(&self) -> Result<Bytes, IoError> {
        let bytes = self.file.read_at(self.offset, self.meta.bytes as usize).await?;
        if bytes.len() != self.meta.bytes as usize {
            let what = format!("read stage file {} at {}", self.number, self.offset);
            return Err(IoError::new(IoKind::Device, what, "the file is shorter than what was written"));
        }
        Ok(bytes)
    }
}

struct StageFile {
    number: u64,
    file: Arc<dyn File>,
    length: u64,
    last: WriteSeq,
}

/// What a sync has to cover. Runs apart from the stage, so that appends go on meanwhile.
pub(super) struct SyncJob {
    files: Vec<Arc<dyn File>>,
    directory: Option<Arc<dyn Files>>,
}

impl SyncJob {
    /// Makes everything appended before the job was made durable.
    pub(super) async fn run(self) -> Result<(), IoError> {
        for file in &self.files {
            file.sync().await?;
        }
        match self.directory {
            Some(directory) => directory.sync_dir().await,
            None => Ok(()),
        }
    }
}

/// The stage of one machine.
pub(super) struct Stage {
    directory: Arc<dyn Files>,
    machine: MachineId,
    files: VecDeque<StageFile>,
    entries: VecDeque<StagedBatch>,
    /// Whether the last file was made by this process and takes appends.
    is_open: bool,
    next_number: u64,
    dirty: Vec<Arc<dyn File>>,
    directory_dirty: bool,
    bytes: u64,
    kept_bytes: u64,
}

/// Returns the machine of a stage file's name.
pub(super) fn machine_of(name: &str) -> Option<MachineId> {
    let (machine, _) = name.strip_prefix("stage-")?.strip_suffix(".log")?.split_once('-')?;
    (machine.len() == 32).then(|| u128::from_str_radix(machine, 16).ok().map(MachineId))?
}

impl Stage {
    /// Scans the machine's files: cuts a torn tail, reports damage and removes what lies behind it.
    /// Nothing is durable before it is settled. After an error open again later.
    pub(super) async fn open(directory: Arc<dyn Files>, machine: MachineId) -> Result<Stage, IoError> {
        let (files, entries) = (VecDeque::new(), VecDeque::new());
        let (is_open, next_number, bytes, kept_bytes) = (false, 0, 0, 0);
        let (dirty, directory_dirty) = (Vec::new(), false);
        let mut stage = Stage {
            directory,
            machine,
            files,
            entries,
            is_open,
            next_number,
            dirty,
            directory_dirty,
            bytes,
            kept_bytes,
        };
        let prefix = format!("stage-{machine}-");
        let mut numbers: Vec<u64> = Vec::new();
        for name in stage.directory.list().await? {
            let number = name.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(".log"));
            numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
        }
        numbers.sort_unstable();
        stage.next_number = numbers.last().map_or(0, |last| last + 1);
        for (index, number) in numbers.iter().enumerate() {
            let follows = index == 0 || numbers[index - 1] + 1 == *number;
            if !follows {
                tracing::error!(%machine, number, "a stage file is missing before this one; not used");
            }
            if !follows || !stage.scan(*number).await? {
                let from = index + usize::from(follows);
                stage.remove_newest_first(&numbers[from.min(numbers.len())..]).await?;
                break;
            }
        }
        // Only now (SE-2): what lies behind a broken end of this file is gone.
        if let Some(newest) = stage.files.back() {
            stage.next_number = newest.number + 1;
            if newest.file.len().await? > newest.length {
                newest.file.set_len(newest.length).await?;
            }
        }
        Ok(stage)
    }

    /// Takes one file in. False if nothing behind it may be used.
    async fn scan(&mut self, number: u64) -> Result<bool, IoError> {
        let (machine, name) = (self.machine, self.name(number));
        let file = self.directory.open(&name, OpenMode::Existing).await?;
        let length = usize::try_from(file.len().await?).unwrap_or(usize::MAX);
        let content = file.read_at(0, length).await?;
        let scan = match batch_file::scan(&content, STAGE_MAGIC, machine) {
            Ok(scan) => scan,
            Err(FileError::Short) => {
                tracing::warn!(%machine, name, "a stage file ends inside its header: it held nothing durable");
                self.directory.remove(&name).await?;
                return Ok(false);
            }
            Err(error @ FileError::Version(_)) => {
                return Err(IoError::new(IoKind::Unsupported, format!("scan {name}"), error.to_string()));
            }
            Err(error) => {
                tracing::error!(%machine, name, %error, "a stage file is unusable; it is kept under another name");
                self.directory.rename(&name, &format!("unusable-{name}")).await?;
                return Ok(false);
            }
        };
        let mut end = FILE_HEADER_BYTES as u64;
        let mut last = WriteSeq(0);
        let mut whole = true;
        for entry in &scan.entries {
            let Ok(meta) = redoubt_wire::peek(&entry.bytes) else {
                tracing::error!(%machine, name, offset = entry.offset, "a staged entry is no sealed batch");
                whole = false;
                break;
            };
            last = meta.last;
            end = entry.offset + u64::from(meta.bytes);
            self.bytes += u64::from(meta.bytes);
            let (offset, file) = (entry.offset, file.clone());
            let key = redoubt_wire::key_of(&entry.bytes);
            self.entries.push_back(StagedBatch { meta, key, offset, file, number, kept: None });
        }
        match scan.tail {
            Tail::Clean => {}
            Tail::Torn(at) => tracing::warn!(%machine, name, at, "cutting an append that never finished"),
            Tail::Damaged(at) => {
                tracing::error!(%machine, name, at, "staged data is damaged; the agent must send it again");
            }
        }
        self.files.push_back(StageFile { number, file, length: end, last });
        Ok(whole && scan.tail == Tail::Clean)
    }

    /// Drops what the vault holds and what does not continue it; what is staged then is durable. After an error open
    /// again later.
    pub(super) async fn settle(&mut self, vaulted: BatchPosition) -> Result<(), IoError> {
        let mut at = vaulted;
        let mut vaulted_entries = 0;
        let mut broken = None;
        for (index, entry) in self.entries.iter().enumerate() {
            match judge_found(&entry.meta, at) {
                Verdict::Duplicate if at == vaulted => vaulted_entries = index + 1,
                Verdict::Accept => at = entry.meta.position(),
                verdict => {
                    broken = Some((index, verdict));
                    break;
                }
            }
        }
        if let Some((index, verdict)) = broken {
            let machine = self.machine;
            let first = self.entries[index].meta.first;
            // Another server went on with the stream, or the vault is an older one: the agent holds or compares
            // what is given up here.
            tracing::warn!(%machine, %first, ?verdict, "what is staged from here on does not continue the vault");
            self.cut(index).await?;
        }
        for _ in 0..vaulted_entries {
            let oldest = self.entries.pop_front();
            self.forget(oldest);
        }
        self.trim_files(vaulted.seq).await;
        self.harden().await
    }

    /// Writes each file again (SE-3): the same bytes at the same place, so that a power loss in the middle changes
    /// nothing.
    async fn harden(&self) -> Result<(), IoError> {
        for StageFile { number, file, length, .. } in &self.files {
            let content = file.read_at(0, *length as usize).await?;
            if content.len() as u64 != *length {
                let what = format!("read stage file {number} again");
                return Err(IoError::new(IoKind::Device, what, "the file is shorter than it was"));
            }
            if !planted::active(Bug::TrustFoundStage) {
                file.write_at(0, &[content]).await?;
            }
            file.sync().await?;
        }
        self.directory.sync_dir().await
    }

    /// Returns the place of the oldest entry that another stream key sealed: nothing from there on can be opened.
    pub(super) fn foreign_from(&self, ours: StreamKeyId) -> Option<usize> {
        self.entries.iter().position(|entry| entry.key != Some(ours))
    }

    /// Returns what is staged, oldest first.
    pub(super) fn entries(&self) -> &VecDeque<StagedBatch> {
        &self.entries
    }

    /// Returns the bytes of batches staged and not vaulted.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Appends a batch; durable after the next sync job. After an error the end is unknown: `cut`.
    pub(super) async fn append(&mut self, batch: SealedBatch) -> Result<(), IoError> {
        let whole = (ENTRY_HEADER_BYTES + batch.bytes.len()) as u64;
        let full = self.files.back().is_none_or(|file| file.length + whole > STAGE_FILE_BYTES);
        if !self.is_open || full {
            self.roll().await?;
        }
        let Some(current) = self.files.back_mut() else { return Ok(()) };
        current.file.write_at(current.length, &batch_file::entry(&batch.bytes)).await?;
        let offset = current.length + ENTRY_HEADER_BYTES as u64;
        current.length += whole;
        current.last = batch.meta.last;
        let (file, number) = (current.file.clone(), current.number);
        if !self.dirty.last().is_some_and(|dirty| Arc::ptr_eq(dirty, &file)) {
            self.dirty.push(file.clone());
        }
        let bytes = u64::from(batch.meta.bytes);
        let key = redoubt_wire::key_of(&batch.bytes);
        let is_kept = self.kept_bytes + bytes <= KEPT_BYTES_MAX;
        let kept = is_kept.then_some(batch.bytes);
        self.bytes += bytes;
        self.kept_bytes += if is_kept { bytes } else { 0 };
        self.entries.push_back(StagedBatch { meta: batch.meta, key, offset, file, number, kept });
        Ok(())
    }

    /// Returns the batches behind `after` up to `through`. They stay staged; what memory holds of them goes along.
    pub(super) fn hand_over(&mut self, after: WriteSeq, through: WriteSeq) -> Vec<StagedBatch> {
        let later = self.entries.iter_mut().skip_while(|entry| entry.meta.last <= after);
        let mut batches = Vec::new();
        for entry in later.take_while(|entry| entry.meta.last <= through) {
            let kept = entry.kept.take();
            self.kept_bytes -= kept.as_ref().map_or(0, |kept| kept.len() as u64);
            batches.push(StagedBatch { kept, ..entry.clone() });
        }
        batches
    }

    /// Ends the accounts of an entry that was removed.
    fn forget(&mut self, entry: Option<StagedBatch>) {
        let Some(entry) = entry else { return };
        self.bytes -= u64::from(entry.meta.bytes);
        self.kept_bytes -= entry.kept.map_or(0, |kept| kept.len() as u64);
    }

    async fn roll(&mut self) -> Result<(), IoError> {
        let number = self.next_number;
        let file = self.directory.open(&self.name(number), OpenMode::CreateNew).await?;
        self.next_number += 1;
        let length = FILE_HEADER_BYTES as u64;
        // Listed before its header is written: a failure leaves a file that `cut` removes.
        self.files.push_back(StageFile { number, file: file.clone(), length, last: WriteSeq(0) });
        self.directory_dirty = true;
        self.is_open = true;
        file.write_at(0, &[batch_file::file_header(STAGE_MAGIC, self.machine, number)]).await?;
        self.dirty.push(file);
        Ok(())
    }

    /// Returns the sync that covers every append so far.
    pub(super) fn sync_job(&mut self) -> SyncJob {
        let directory = std::mem::take(&mut self.directory_dirty).then(|| self.directory.clone());
        SyncJob { files: std::mem::take(&mut self.dirty), directory }
    }

    /// Forgets batches up to the sequence and removes files that hold nothing newer.
    pub(super) async fn trim(&mut self, through: WriteSeq) {
        while self.entries.front().is_some_and(|entry| entry.meta.last <= through) {
            let oldest = self.entries.pop_front();
            self.forget(oldest);
        }
        self.trim_files(through).await;
    }

    async fn trim_files(&mut self, through: WriteSeq) {
        while let Some(oldest) = self.files.front() {
            let is_current = self.is_open && self.files.len() == 1;
            if oldest.last > through || is_current {
                return;
            }
            let name = self.name(oldest.number);
            let removed = match self.directory.remove(&name).await {
                Ok(()) => self.directory.sync_dir().await,
                Err(error) => Err(error),
            };
            if let Err(error) = removed {
                tracing::warn!(name, %error, "cannot remove a vaulted stage file; trying again later");
                return;
            }
            self.files.pop_front();
        }
    }

    /// Forgets the entry of this ordinal and everything behind it, durably. Later appends go to a new
    /// file. After an error call it again with the same ordinal before anything else.
    pub(super) async fn cut(&mut self, ordinal: usize) -> Result<(), IoError> {
        self.is_open = false;
        self.dirty.clear();
        self.directory_dirty = false;
        while self.entries.len() > ordinal {
            let newest = self.entries.pop_back();
            self.forget(newest);
        }
        let keep =
            self.entries.back().map(|entry| (entry.number, entry.offset + u64::from(entry.meta.bytes)));
        while let Some(newest) = self.files.back() {
            if keep.is_some_and(|(number, _)| newest.number <= number) {
                break;
            }
            self.directory.remove(&self.name(newest.number)).await?;
            self.directory.sync_dir().await?;
            self.files.pop_back();
        }
        if let (Some((_, end)), Some(newest)) = (keep, self.files.back_mut()) {
            newest.file.set_len(end).await?;
            newest.file.sync().await?;
            newest.length = end;
            newest.last = self.entries.back().map_or(newest.last, |entry| entry.meta.last);
        }
        // Numbers stay dense, so that a missing file is noticed by the next scan.
        self.next_number = self.files.back().map_or(self.next_number, |newest| newest.number + 1);
        Ok(())
    }

    async fn remove_newest_first(&self, numbers: &[u64]) -> Result<(), IoError> {
        for number in numbers.iter().rev() {
            self.directory.remove(&self.name(*number)).await?;
            self.directory.sync_dir().await?;
        }
        Ok(())
    }

    fn name(&self, number: u64) -> String {
        format!("stage-{}-{number}.log", self.machine)
    }
}

#[cfg(test)]
mod tests;
