//! The local cache of a mount: sealed parts of the vault in files of a directory, within a bound.
//!
//! Nothing here is ever synced or needed. What a killed mount left is found again by its footers; each part is
//! checked when it is read, and what does not agree is gone. What the bytes mean, and whether they are the
//! vault's, only their seals say (NR-1).
//!
//! - LC-1 The files take at most the given bytes.
//! - LC-2 A read of the vault never waits for the cache to take what it brought; only hydration does.
//! - LC-3 One mount at a time has the directory. Files with other names in it are left alone.
//!
//! What is *not* here: which part lies where (`cache_book`).

use super::cache_book::{Book, PARTS_MAX, Place, TAIL_BYTES, decode_footer, footer_bytes};
use crate::tasks::Tasks;
use async_trait::async_trait;
use bytes::Bytes;
use redoubt_ports::{File, Files, IoError, OpenMode};
use redoubt_vault::{PartId, SealedCache};
use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Bytes of a cache if nobody says: what a machine reads in a long test, and room that a recovery site has.
pub const CACHE_BYTES_DEFAULT: u64 = 8 << 30;
/// The least that is of use: some files of the smallest size.
pub const CACHE_BYTES_MIN: u64 = 16 << 20;
/// Files of a full cache: what is given up at once is a small part of it, and handles are few.
const FILES: u64 = 64;
/// Bounds of one file.
const FILE_BYTES_MIN: u64 = 1 << 20;
const FILE_BYTES_MAX: u64 = 2 << 30;
/// Bytes that wait to be written; what comes beyond is not kept.
const QUEUE_BYTES: usize = 32 << 20;
/// Bundles of parts that wait; each has some bytes.
const QUEUE_LENGTH: usize = 1024;
const PREFIX: &str = "part-";

/// What a mount's cache is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheStatus {
    /// Bytes that its files take.
    pub bytes: u64,
    /// Bytes that they may take.
    pub bytes_max: u64,
    /// Whether there is any part in it.
    pub has_parts: bool,
    /// Why it takes nothing more, if so.
    pub trouble: Option<String>,
}

struct Bundle {
    parts: Vec<(PartId, Bytes)>,
    /// Told whether all is kept, by who wants that and nothing given up for it.
    kept: Option<oneshot::Sender<bool>>,
    bytes: usize,
}

#[derive(Default)]
struct State {
    book: Book,
    open: BTreeMap<u32, Arc<dyn File>>,
    trouble: Option<String>,
}

struct Inner {
    files: Arc<dyn Files>,
    bytes_max: u64,
    file_bytes: u64,
    state: Mutex<State>,
    /// Room in the queue, in bytes.
    room: Semaphore,
}

/// An open cache.
pub struct LocalCache {
    inner: Arc<Inner>,
    queue: mpsc::Sender<Bundle>,
    tasks: Tasks,
    _lock: Box<dyn Any + Send + Sync>,
}

fn name(number: u32) -> String {
    format!("{PREFIX}{number:08x}")
}

fn number(name: &str) -> Option<u32> {
    let digits = name.strip_prefix(PREFIX)?;
    (digits.len() == 8).then(|| u32::from_str_radix(digits, 16).ok())?
}

impl LocalCache {
    /// Takes the directory, and what an earlier mount completed in it.
    pub async fn open(files: Arc<dyn Files>, bytes_max: u64) -> Result<Arc<LocalCache>, IoError> {
        let lock = files.lock().await?;
        let file_bytes = (bytes_max / FILES).clamp(FILE_BYTES_MIN, FILE_BYTES_MAX);
        let (state, room) = (Mutex::default(), Semaphore::new(QUEUE_BYTES));
        let inner = Arc::new(Inner { files, bytes_max, file_bytes, state, room });
        let next = inner.recover().await?;
        let (queue, bundles) = mpsc::channel(QUEUE_LENGTH);
        let tasks = Tasks::default();
        tasks.spawn(inner.clone().write_all(bundles, next));
        Ok(Arc::new(LocalCache { inner, queue, tasks, _lock: lock }))
    }

    /// Tells what it holds.
    pub fn status(&self) -> CacheStatus {
        let state = self.inner.state();
        let (bytes, bytes_max) = (state.book.bytes(), self.inner.bytes_max);
        CacheStatus { bytes, bytes_max, has_parts: state.book.parts() > 0, trouble: state.trouble.clone() }
    }

    /// Ends it and removes its files.
    pub async fn remove(&self) -> Result<(), IoError> {
        self.tasks.abort();
        *self.inner.state() = State { trouble: Some("it is removed".to_owned()), ..State::default() };
        for name in self.inner.files.list().await? {
            if number(&name).is_some() {
                self.inner.files.remove(&name).await?;
            }
        }
        Ok(())
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what earlier mounts completed, removes the rest; returns the number of the next file.
    async fn recover(&self) -> Result<u32, IoError> {
        let mut next = 0;
        for name in self.files.list().await? {
            let Some(number) = number(&name) else { continue };
            next = next.max(number.saturating_add(1));
            match self.adopt(&name, number).await {
                Ok(true) => {}
                Ok(false) => self.files.remove(&name).await?,
                Err(error) => return Err(error),
            }
        }
        // Room for a file to be written, also if the bound is smaller than it was.
        self.begin(next).await?;
        self.make_room(0).await?;
        Ok(next)
    }

    async fn adopt(&self, name: &str, number: u32) -> Result<bool, IoError> {
        let file = self.files.open(name, OpenMode::Existing).await?;
        let length = file.len().await?;
        let Some(at) = length.checked_sub(TAIL_BYTES) else { return Ok(false) };
        let tail = file.read_at(at, TAIL_BYTES as usize).await?;
        let Some(footer) = footer_bytes(&tail, length) else { return Ok(false) };
        let bytes = file.read_at(length - footer, footer as usize).await?;
        let Some(parts) = decode_footer(&bytes, number, length - footer) else { return Ok(false) };
        let mut state = self.state();
        let has_room = state.book.parts() + parts.len() <= PARTS_MAX;
        if has_room {
            state.book.adopt(number, parts);
            state.open.insert(number, file);
        }
        Ok(has_room)
    }

    async fn begin(&self, number: u32) -> Result<(), IoError> {
        let file = self.files.open(&name(number), OpenMode::CreateNew).await?;
        let mut state = self.state();
        state.book.begin(number);
        state.open.insert(number, file);
        Ok(())
    }

    /// Writes bundles until the queue is dropped.
    async fn write_all(self: Arc<Inner>, mut bundles: mpsc::Receiver<Bundle>, mut number: u32) {
        while let Some(Bundle { parts, kept, bytes }) = bundles.recv().await {
            let is_open = self.state().trouble.is_none();
            let written = match is_open {
                true => self.write(parts, kept.is_none(), &mut number).await,
                false => Ok(false),
            };
            if let Err(error) = &written {
                // What failed to be written is not there, and a full disk is not filled again.
                self.state().trouble = Some(error.to_string());
            }
            self.room.add_permits(bytes);
            if let Some(kept) = kept {
                let _ = kept.send(written.unwrap_or(false));
            }
        }
    }

    /// Writes what is not there yet; false if there is no room for it.
    async fn write(
        &self,
        mut parts: Vec<(PartId, Bytes)>,
        may_give_up: bool,
        number: &mut u32,
    ) -> Result<bool, IoError> {
        parts.retain(|(id, _)| self.state().book.find(*id).is_none());
        if parts.is_empty() {
            return Ok(true);
        }
        let cost = Book::cost(&parts);
        if cost + TAIL_BYTES > self.bytes_max {
            return Ok(false);
        }
        if !self.has_room(cost + TAIL_BYTES, parts.len()) {
            if !may_give_up {
                return Ok(false);
            }
            self.make_room(cost + TAIL_BYTES).await?;
        }
        let at = self.state().book.end().map_or(0, |(_, bytes)| bytes);
        if at > 0 && at + cost > self.file_bytes {
            self.complete().await?;
            *number = number.wrapping_add(1);
            self.begin(*number).await?;
        }
        self.append(parts).await?;
        Ok(true)
    }

    fn has_room(&self, cost: u64, parts: usize) -> bool {
        let state = self.state();
        state.book.bytes() + cost <= self.bytes_max && state.book.parts() + parts <= PARTS_MAX
    }

    /// Gives up the oldest files until so much more has room.
    async fn make_room(&self, cost: u64) -> Result<(), IoError> {
        while !self.has_room(cost, usize::from(cost > 0)) {
            let oldest = {
                let mut state = self.state();
                let Some(oldest) = state.book.oldest() else { return Ok(()) };
                state.book.drop_file(oldest);
                state.open.remove(&oldest);
                oldest
            };
            self.files.remove(&name(oldest)).await?;
        }
        Ok(())
    }

    /// Ends the file that is being written, so that a later mount finds it.
    async fn complete(&self) -> Result<(), IoError> {
        let Some((number, at)) = self.state().book.end() else { return Ok(()) };
        let (footer, file) = {
            let state = self.state();
            (state.book.footer(), state.open.get(&number).cloned())
        };
        match file {
            Some(file) => file.write_at(at, &[footer]).await,
            None => Ok(()),
        }
    }

    async fn append(&self, parts: Vec<(PartId, Bytes)>) -> Result<(), IoError> {
        let Some((number, at)) = self.state().book.end() else { return Ok(()) };
        let Some(file) = self.state().open.get(&number).cloned() else { return Ok(()) };
        let bytes: Vec<Bytes> = parts.iter().map(|(_, part)| part.clone()).collect();
        file.write_at(at, &bytes).await?;
        let mut state = self.state();
        for (id, part) in parts {
            state.book.add(id, part.len() as u32, crc32c::crc32c(&part));
        }
        Ok(())
    }

    async fn read(&self, place: Place) -> Option<Bytes> {
        let file = self.state().open.get(&place.file).cloned()?;
        let bytes = file.read_at(place.at, place.length as usize).await.ok()?;
        (bytes.len() == place.length as usize && crc32c::crc32c(&bytes) == place.crc).then_some(bytes)
    }
}

#[async_trait]
impl SealedCache for LocalCache {
    fn has(&self, id: PartId) -> bool {
        self.inner.state().book.find(id).is_some()
    }

    async fn get(&self, id: PartId) -> Option<Bytes> {
        let place = self.inner.state().book.find(id)?;
        let bytes = self.inner.read(place).await;
        if bytes.is_none() {
            self.forget(id);
        }
        bytes
    }

    fn forget(&self, id: PartId) {
        self.inner.state().book.forget(id);
    }

    fn offer(&self, parts: Vec<(PartId, Bytes)>) {
        let bytes = parts.iter().map(|(_, part)| part.len()).sum::<usize>().min(QUEUE_BYTES);
        let Ok(room) = self.inner.room.try_acquire_many(bytes as u32) else { return };
        if self.queue.try_send(Bundle { parts, kept: None, bytes }).is_ok() {
            // Given back when it is written.
            room.forget();
        }
    }

    async fn keep(&self, parts: Vec<(PartId, Bytes)>) -> bool {
        let bytes = parts.iter().map(|(_, part)| part.len()).sum::<usize>().min(QUEUE_BYTES);
        let Ok(room) = self.inner.room.acquire_many(bytes as u32).await else { return false };
        let (kept, answer) = oneshot::channel();
        if self.queue.send(Bundle { parts, kept: Some(kept), bytes }).await.is_err() {
            return false;
        }
        room.forget();
        answer.await.unwrap_or(false)
    }
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
