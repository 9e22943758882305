//! The stage files of one machine: what was received and is not in the vault yet.
//!
//! Files are numbered and only appended to by the run that made them. A file is removed when the
//! vault holds its newest batch. What a restart finds is one gapless run above the vaulted position;
//! anything behind a hole is removed, and the agent sends it again or resyncs.
//!
//! What is *not* here: when to sync or trim ([`redoubt_core::receiver`]).

use bytes::Bytes;
use redoubt_core::batch_file::{self, ENTRY_HEADER_BYTES, FILE_HEADER_BYTES, STAGE_MAGIC};
use redoubt_core::receiver::{Verdict, judge};
use redoubt_core::sealed::SealedMeta;
use redoubt_core::{BatchPosition, Generation, MachineId, WriteSeq};
use redoubt_ports::{File, Files, IoError, IoKind, OpenMode};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

/// A stage file is closed beyond this size, so that trimming frees space soon.
const STAGE_FILE_BYTES: u64 = 64 << 20;

#[derive(Clone, Copy)]
struct Entry {
    meta: SealedMeta,
    file: u64,
    offset: u64,
}

#[derive(Default)]
struct Places {
    entries: VecDeque<Entry>,
    files: BTreeMap<u64, Arc<dyn File>>,
}

/// The stage of one machine.
pub(super) struct Stage {
    machine: MachineId,
    files: Arc<dyn Files>,
    places: Mutex<Places>,
    open: Mutex<Option<(u64, u64)>>,
    next_file: Mutex<u64>,
}

fn generation_name(machine: MachineId) -> String {
    format!("generation-{machine}")
}

/// Reads the highest generation seen; zero if none was ever written.
pub(super) async fn read_generation(files: &dyn Files, machine: MachineId) -> Result<Generation, IoError> {
    let name = generation_name(machine);
    let file = match files.open(&name, OpenMode::Existing).await {
        Ok(file) => file,
        Err(error) if error.kind == IoKind::NotFound => return Ok(Generation(0)),
        Err(error) => return Err(error),
    };
    let bytes = file.read_at(0, 40).await?;
    let number: [u8; 8] = bytes.get(..8).and_then(|b| b.try_into().ok()).unwrap_or_default();
    if bytes.len() != 40 || blake3::hash(&number).as_bytes()[..] != bytes[8..] {
        return Err(IoError::new(IoKind::Device, format!("read {name}"), "the content is damaged"));
    }
    Ok(Generation(u64::from_le_bytes(number)))
}

/// Makes the highest generation durable.
pub(super) async fn write_generation(
    files: &dyn Files,
    machine: MachineId,
    generation: Generation,
) -> Result<(), IoError> {
    let name = generation_name(machine);
    let fresh = format!("{name}.new");
    files.remove(&fresh).await?;
    let file = files.open(&fresh, OpenMode::CreateNew).await?;
    let number = generation.0.to_le_bytes();
    let sum = Bytes::copy_from_slice(blake3::hash(&number).as_bytes());
    file.write_at(0, &[Bytes::copy_from_slice(&number), sum]).await?;
    file.sync().await?;
    files.rename(&fresh, &name).await?;
    files.sync_dir().await
}

impl Stage {
    fn name(&self, number: u64) -> String {
        format!("stage-{}-{number:016x}", self.machine)
    }

    /// Scans what a restart left above the vaulted position.
    pub(super) async fn open(
        files: Arc<dyn Files>,
        machine: MachineId,
        vaulted: BatchPosition,
    ) -> Result<(Stage, Vec<SealedMeta>), IoError> {
        let stage = Stage {
            machine,
            files,
            places: Mutex::default(),
            open: Mutex::default(),
            next_file: Mutex::new(1),
        };
        let prefix = format!("stage-{machine}-");
        let names = stage.files.list().await?;
        let numbers =
            names.iter().filter_map(|name| u64::from_str_radix(name.strip_prefix(&prefix)?, 16).ok());
        let mut numbers: Vec<u64> = numbers.collect();
        numbers.sort_unstable();
        let (mut at, mut has_hole) = (vaulted, false);
        for number in numbers {
            *stage.next_file.lock().unwrap_or_else(PoisonError::into_inner) = number + 1;
            has_hole |= stage.take_file(number, &mut at, has_hole).await?;
        }
        let metas = stage.lock().entries.iter().map(|entry| entry.meta).collect();
        Ok((stage, metas))
    }

    /// Takes over the usable batches of one file; returns whether the run ends in it.
    async fn take_file(&self, number: u64, at: &mut BatchPosition, has_hole: bool) -> Result<bool, IoError> {
        let name = self.name(number);
        let file = self.files.open(&name, OpenMode::Existing).await?;
        let length = file.len().await?;
        let bytes = file.read_at(0, length as usize).await?;
        let scan = batch_file::scan(&bytes, STAGE_MAGIC, self.machine);
        let (mut used, mut ends) = (0, has_hole);
        if let (Ok(scan), false) = (&scan, has_hole) {
            for entry in &scan.entries {
                let Ok(meta) = redoubt_wire::peek(&entry.bytes) else {
                    ends = true;
                    break;
                };
                match judge(&meta, *at) {
                    Verdict::Duplicate => continue,
                    Verdict::Accept => {
                        *at = meta.position();
                        used += 1;
                        let place = Entry { meta, file: number, offset: entry.offset };
                        self.lock().entries.push_back(place);
                    }
                    Verdict::Gap | Verdict::Fork => {
                        ends = true;
                        break;
                    }
                }
            }
            ends |= matches!(scan.tail, batch_file::Tail::Damaged(_));
        }
        if used == 0 {
            self.files.remove(&name).await?;
        } else {
            // A crashed run's writes may be in the page cache only; from here on they count as durable.
            file.sync().await?;
            self.lock().files.insert(number, file);
        }
        Ok(ends)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the bytes of batches that are staged and not forgotten.
    pub(super) fn bytes(&self) -> u64 {
        self.lock().entries.iter().map(|entry| u64::from(entry.meta.bytes)).sum()
    }

    /// Appends a batch; durable after [`Stage::sync`]. Called by one task only.
    pub(super) async fn append(&self, meta: SealedMeta, bytes: Bytes) -> Result<(), IoError> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (number, offset) = match open.filter(|(_, length)| *length < STAGE_FILE_BYTES) {
            Some(open) => open,
            None => self.create().await?,
        };
        let file = self.lock().files.get(&number).cloned();
        let Some(file) = file else {
            return Err(IoError::new(
                IoKind::NotFound,
                format!("append to {}", self.name(number)),
                "removed",
            ));
        };
        let parts = batch_file::entry(&bytes);
        file.write_at(offset, &parts).await?;
        let place = offset + ENTRY_HEADER_BYTES as u64;
        self.lock().entries.push_back(Entry { meta, file: number, offset: place });
        let end = place + bytes.len() as u64;
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = Some((number, end));
        Ok(())
    }

    async fn create(&self) -> Result<(u64, u64), IoError> {
        let number = {
            let mut next = self.next_file.lock().unwrap_or_else(PoisonError::into_inner);
            *next += 1;
            *next - 1
        };
        let file = self.files.open(&self.name(number), OpenMode::CreateNew).await?;
        let header = batch_file::file_header(STAGE_MAGIC, self.machine, number);
        file.write_at(0, &[header]).await?;
        let older: Vec<Arc<dyn File>> = self.lock().files.values().cloned().collect();
        for old in older.into_iter().rev().take(1) {
            // The file before is never appended to again: what it holds must not wait for a sync.
            old.sync().await?;
        }
        self.lock().files.insert(number, file);
        self.files.sync_dir().await?;
        Ok((number, FILE_HEADER_BYTES as u64))
    }

    /// Makes everything appended durable.
    pub(super) async fn sync(&self) -> Result<(), IoError> {
        let newest = self.lock().files.values().next_back().cloned();
        match newest {
            Some(file) => file.sync().await,
            None => Ok(()),
        }
    }

    /// Forgets batches that are in the vault and removes files that hold nothing else.
    pub(super) async fn trim(&self, through: WriteSeq) -> Result<(), IoError> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner).map(|(number, _)| number);
        let unneeded: Vec<u64> = {
            let mut places = self.lock();
            while places.entries.front().is_some_and(|entry| entry.meta.last <= through) {
                places.entries.pop_front();
            }
            let first = places.entries.front().map(|entry| entry.file);
            let keep = |number: &u64| Some(*number) == open || first.is_some_and(|first| *number >= first);
            let unneeded: Vec<u64> = places.files.keys().copied().filter(|number| !keep(number)).collect();
            unneeded.iter().for_each(|number| drop(places.files.remove(number)));
            unneeded
        };
        for number in unneeded {
            self.files.remove(&self.name(number)).await?;
        }
        Ok(())
    }

    /// Reads batches above `after` and not above `through`, in order and of one generation, until
    /// `bytes_max` is reached.
    pub(super) async fn read(
        &self,
        after: WriteSeq,
        through: WriteSeq,
        bytes_max: u64,
    ) -> Result<Vec<(SealedMeta, Bytes)>, IoError> {
        let wanted: Vec<(Entry, Option<Arc<dyn File>>)> = {
            let places = self.lock();
            let mut total = 0;
            let mut generation = None;
            let above = places.entries.iter().filter(|entry| entry.meta.last > after);
            let run = above.take_while(|entry| {
                let fits = entry.meta.last <= through && total < bytes_max;
                total += u64::from(entry.meta.bytes);
                fits && *generation.get_or_insert(entry.meta.generation) == entry.meta.generation
            });
            run.map(|entry| (*entry, places.files.get(&entry.file).cloned())).collect()
        };
        let mut batches = Vec::with_capacity(wanted.len());
        for (entry, file) in wanted {
            let what = || format!("read {} at {}", self.name(entry.file), entry.offset);
            let file = file.ok_or_else(|| IoError::new(IoKind::NotFound, what(), "removed"))?;
            let bytes = file.read_at(entry.offset, entry.meta.bytes as usize).await?;
            let found = redoubt_wire::peek(&bytes);
            if found.is_err() || found.is_ok_and(|found| found.chain != entry.meta.chain) {
                return Err(IoError::new(IoKind::Device, what(), "the staged batch is damaged"));
            }
            batches.push((entry.meta, bytes));
        }
        Ok(batches)
    }
}
