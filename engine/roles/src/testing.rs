//! Small ports in memory, for tests of whole pipelines in one process.
//!
//! A crash of a process is the drop of its handles: files and disks keep what calls returned for.
//! Power loss, torn writes and slow devices are the lab's business.

use async_trait::async_trait;
use bytes::Bytes;
use redoubt_core::{Extent, Instant, SECTOR_BYTES, Sectors, WallTime};
use redoubt_ports::{
    ByteStream, Clock, Disk, DiskInfo, Disks, Endpoint, Entropy, File, Files, InPlace, IoError, IoKind,
    Listener, Net, NetError, Never, OpenMode, World,
};
use std::any::Any;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes in flight on one connection.
const PIPE_BYTES: usize = 1 << 20;
/// Connections waiting to be accepted.
const BACKLOG: usize = 64;

/// The clock of tokio, so that paused time moves it.
pub struct TokioClock(tokio::time::Instant);

impl TokioClock {
    /// Starts at zero.
    pub fn new() -> TokioClock {
        TokioClock(tokio::time::Instant::now())
    }
}

impl Default for TokioClock {
    fn default() -> TokioClock {
        TokioClock::new()
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Instant {
        Instant(self.0.elapsed().as_nanos() as u64)
    }

    fn wall(&self) -> WallTime {
        WallTime(1_700_000_000_000 + self.0.elapsed().as_millis() as u64)
    }
}

/// Bytes from a counter: unique, and equal in every run.
#[derive(Default)]
pub struct CountingEntropy(AtomicU64);

impl Entropy for CountingEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        for part in buffer.chunks_mut(32) {
            let count = self.0.fetch_add(1, Ordering::Relaxed);
            part.copy_from_slice(&blake3::hash(&count.to_le_bytes()).as_bytes()[..part.len()]);
        }
    }
}

type Backlog = mpsc::Sender<Box<dyn ByteStream>>;

/// Sockets within the process, which can be cut.
#[derive(Default)]
pub struct MemNet {
    listeners: Mutex<BTreeMap<Endpoint, Backlog>>,
    cuts: Mutex<Vec<tokio::task::JoinHandle<()>>>,
    is_down: AtomicBool,
}

impl MemNet {
    /// Breaks every connection and refuses new ones until [`MemNet::heal`].
    pub fn cut(&self) {
        self.is_down.store(true, Ordering::Relaxed);
        lock(&self.cuts).drain(..).for_each(|task| task.abort());
    }

    /// Lets connections succeed again.
    pub fn heal(&self) {
        self.is_down.store(false, Ordering::Relaxed);
    }
}

/// One host's view of a [`MemNet`].
pub struct MemNetPort(pub Arc<MemNet>);

struct MemListener {
    endpoint: Endpoint,
    incoming: tokio::sync::Mutex<mpsc::Receiver<Box<dyn ByteStream>>>,
}

#[async_trait]
impl Listener for MemListener {
    async fn accept(&self) -> Result<(Box<dyn ByteStream>, String), NetError> {
        let stream = self.incoming.lock().await.recv().await;
        let closed = || NetError::Failed(self.endpoint.clone(), "closed".to_owned());
        Ok((stream.ok_or_else(closed)?, "memory".to_owned()))
    }

    fn endpoint(&self) -> Endpoint {
        self.endpoint.clone()
    }
}

#[async_trait]
impl Net for MemNetPort {
    async fn connect(&self, to: &Endpoint) -> Result<Box<dyn ByteStream>, NetError> {
        let refused = || NetError::Refused(to.clone());
        if self.0.is_down.load(Ordering::Relaxed) {
            return Err(refused());
        }
        let listener = lock(&self.0.listeners).get(to).cloned().ok_or_else(refused)?;
        let (ours, mut near) = tokio::io::duplex(PIPE_BYTES);
        let (mut far, theirs) = tokio::io::duplex(PIPE_BYTES);
        // The relay is what a cut ends.
        let relay = tokio::spawn(async move {
            let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
        });
        lock(&self.0.cuts).push(relay);
        listener.send(Box::new(theirs)).await.map_err(|_| refused())?;
        Ok(Box::new(ours))
    }

    async fn listen(&self, at: &Endpoint) -> Result<Box<dyn Listener>, NetError> {
        let mut listeners = lock(&self.0.listeners);
        if listeners.get(at).is_some_and(|old| !old.is_closed()) {
            return Err(NetError::InUse(at.clone()));
        }
        let (send, incoming) = mpsc::channel(BACKLOG);
        listeners.insert(at.clone(), send);
        Ok(Box::new(MemListener { endpoint: at.clone(), incoming: tokio::sync::Mutex::new(incoming) }))
    }
}

/// Files in memory.
#[derive(Default)]
pub struct MemFiles {
    files: Mutex<BTreeMap<String, Arc<MemFile>>>,
    /// Writes to files whose names start so fail.
    failing: Arc<Mutex<Option<String>>>,
    holder: Arc<Mutex<bool>>,
    syncs: Arc<AtomicU64>,
}

/// One file in memory.
#[derive(Default)]
pub struct MemFile {
    name: String,
    content: Mutex<Vec<u8>>,
    failing: Arc<Mutex<Option<String>>>,
    syncs: Arc<AtomicU64>,
}

struct Held(Arc<Mutex<bool>>);

impl Drop for Held {
    fn drop(&mut self) {
        *lock(&self.0) = false;
    }
}

impl MemFiles {
    /// Removes every file whose name starts so: a lost directory.
    pub fn lose(&self, prefix: &str) {
        lock(&self.files).retain(|name, _| !name.starts_with(prefix));
    }

    /// Returns how often something was made durable, content or names.
    pub fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    /// Lets writes to files whose names start so fail from now on; `None` ends it.
    pub fn fail_writes(&self, prefix: Option<&str>) {
        *lock(&self.failing) = prefix.map(str::to_owned);
    }
}

fn missing(name: &str) -> IoError {
    IoError::new(IoKind::NotFound, format!("open {name}"), "no such file")
}

#[async_trait]
impl Files for MemFiles {
    async fn open(&self, name: &str, mode: OpenMode) -> Result<Arc<dyn File>, IoError> {
        let mut files = lock(&self.files);
        match (files.get(name), mode) {
            (None, OpenMode::Existing) => Err(missing(name)),
            (Some(_), OpenMode::CreateNew) => {
                Err(IoError::new(IoKind::Exists, format!("create {name}"), "it exists"))
            }
            (Some(file), _) => Ok(Arc::clone(file) as Arc<dyn File>),
            (None, _) => {
                let (name, failing) = (name.to_owned(), Arc::clone(&self.failing));
                let syncs = Arc::clone(&self.syncs);
                let file = Arc::new(MemFile { name: name.clone(), failing, syncs, ..MemFile::default() });
                files.insert(name, Arc::clone(&file));
                Ok(file)
            }
        }
    }

    async fn list(&self) -> Result<Vec<String>, IoError> {
        Ok(lock(&self.files).keys().cloned().collect())
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), IoError> {
        let mut files = lock(&self.files);
        let file = files.remove(from).ok_or_else(|| missing(from))?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    async fn remove(&self, name: &str) -> Result<(), IoError> {
        lock(&self.files).remove(name);
        Ok(())
    }

    async fn sync_dir(&self) -> Result<(), IoError> {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn free_bytes(&self) -> Result<Option<u64>, IoError> {
        Ok(None)
    }

    async fn lock(&self) -> Result<Box<dyn Any + Send + Sync>, IoError> {
        if std::mem::replace(&mut *lock(&self.holder), true) {
            return Err(IoError::new(IoKind::Busy, "lock the directory", "it is held"));
        }
        Ok(Box::new(Held(Arc::clone(&self.holder))))
    }
}

#[async_trait]
impl File for MemFile {
    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes, IoError> {
        let content = lock(&self.content);
        let first = content.len().min(offset as usize);
        let end = content.len().min(first + length);
        Ok(Bytes::copy_from_slice(&content[first..end]))
    }

    async fn write_at(&self, offset: u64, parts: &[Bytes]) -> Result<(), IoError> {
        if lock(&self.failing).as_ref().is_some_and(|prefix| self.name.starts_with(prefix)) {
            return Err(IoError::new(IoKind::NoSpace, format!("write {}", self.name), "a planned failure"));
        }
        let mut content = lock(&self.content);
        let mut at = offset as usize;
        for part in parts {
            let end = at + part.len();
            if content.len() < end {
                content.resize(end, 0);
            }
            content[at..end].copy_from_slice(part);
            at = end;
        }
        Ok(())
    }

    async fn len(&self) -> Result<u64, IoError> {
        Ok(lock(&self.content).len() as u64)
    }

    async fn set_len(&self, length: u64) -> Result<(), IoError> {
        lock(&self.content).resize(length as usize, 0);
        Ok(())
    }

    async fn sync(&self) -> Result<(), IoError> {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// A disk in memory.
pub struct MemDisk {
    content: Mutex<Vec<u8>>,
    failing_writes: AtomicU64,
    failing_flushes: AtomicU64,
    reads: AtomicU64,
}

impl MemDisk {
    /// Makes a disk of zeros.
    pub fn new(sectors: u64) -> Arc<MemDisk> {
        let content = Mutex::new(vec![0; (sectors * SECTOR_BYTES) as usize]);
        let (failing_writes, failing_flushes) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(MemDisk { content, failing_writes, failing_flushes, reads: AtomicU64::new(0) })
    }

    /// Returns a copy of the content.
    pub fn content(&self) -> Vec<u8> {
        lock(&self.content).clone()
    }

    /// Returns how many bytes were read so far.
    pub fn bytes_read(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// Changes bytes behind everybody's back.
    pub fn poke(&self, offset: usize, bytes: &[u8]) {
        lock(&self.content)[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    /// Lets the next writes fail after they changed the first half of their sectors.
    pub fn fail_writes(&self, count: u64) {
        self.failing_writes.store(count, Ordering::Relaxed);
    }

    /// Lets the next flushes fail.
    pub fn fail_flushes(&self, count: u64) {
        self.failing_flushes.store(count, Ordering::Relaxed);
    }

    /// Returns how many flushes are still to fail.
    pub fn flushes_to_fail(&self) -> u64 {
        self.failing_flushes.load(Ordering::Relaxed)
    }

    fn range(&self, extent: Extent, length: usize) -> Result<std::ops::Range<usize>, IoError> {
        let range = extent.lba.bytes() as usize..(extent.end() * SECTOR_BYTES) as usize;
        let beyond = || IoError::new(IoKind::OutOfRange, format!("access {extent}"), "beyond the end");
        if range.end <= length { Ok(range) } else { Err(beyond()) }
    }
}

#[async_trait]
impl Disk for MemDisk {
    fn info(&self) -> DiskInfo {
        let sectors = Sectors(lock(&self.content).len() as u64 / SECTOR_BYTES);
        DiskInfo { sectors, physical_sector_bytes: 512, can_trim: true }
    }

    async fn read(&self, extent: Extent) -> Result<Bytes, IoError> {
        self.reads.fetch_add(extent.bytes(), Ordering::Relaxed);
        let content = lock(&self.content);
        Ok(Bytes::copy_from_slice(&content[self.range(extent, content.len())?]))
    }

    async fn write(&self, extent: Extent, payload: Bytes, _durable: bool) -> Result<(), IoError> {
        let mut content = lock(&self.content);
        let range = self.range(extent, content.len())?;
        let left = self.failing_writes.load(Ordering::Relaxed);
        if left > 0 {
            self.failing_writes.store(left - 1, Ordering::Relaxed);
            let half = payload.len() / 2;
            content[range.start..range.start + half].copy_from_slice(&payload[..half]);
            return Err(IoError::new(IoKind::Device, format!("write {extent}"), "a planned failure"));
        }
        content[range].copy_from_slice(&payload);
        Ok(())
    }

    async fn write_zeroes(&self, extent: Extent, _unmap: bool, _durable: bool) -> Result<(), IoError> {
        let mut content = lock(&self.content);
        let range = self.range(extent, content.len())?;
        content[range].fill(0);
        Ok(())
    }

    async fn flush(&self) -> Result<(), IoError> {
        let left = self.flushes_to_fail();
        if left > 0 {
            self.fail_flushes(left - 1);
            return Err(IoError::new(IoKind::Device, "flush", "a planned failure"));
        }
        Ok(())
    }

    async fn resize(&self, sectors: Sectors) -> Result<(), IoError> {
        lock(&self.content).resize(sectors.bytes() as usize, 0);
        Ok(())
    }
}

/// Disks by name.
#[derive(Default)]
pub struct MemDisks(Mutex<BTreeMap<String, Arc<MemDisk>>>);

impl MemDisks {
    /// Adds a disk.
    pub fn add(&self, name: &str, disk: Arc<MemDisk>) {
        lock(&self.0).insert(name.to_owned(), disk);
    }
}

#[async_trait]
impl Disks for MemDisks {
    async fn open(&self, name: &str, _read_only: bool) -> Result<Arc<dyn Disk>, IoError> {
        let disk = lock(&self.0).get(name).cloned();
        disk.map(|disk| disk as Arc<dyn Disk>).ok_or_else(|| missing(name))
    }
}

/// One host in memory.
pub struct MemHost {
    /// Its files.
    pub files: Arc<MemFiles>,
    /// Its disks.
    pub disks: Arc<MemDisks>,
    /// Its world.
    pub world: World,
}

impl MemHost {
    /// Makes a host on a net.
    pub fn new(net: &Arc<MemNet>, entropy: &Arc<CountingEntropy>) -> MemHost {
        let (files, disks) = (Arc::new(MemFiles::default()), Arc::new(MemDisks::default()));
        let world = World {
            clock: Arc::new(TokioClock::new()),
            entropy: Arc::clone(entropy) as Arc<dyn Entropy>,
            net: Arc::new(MemNetPort(Arc::clone(net))),
            files: Arc::clone(&files) as Arc<dyn Files>,
            disks: Arc::clone(&disks) as Arc<dyn Disks>,
            workers: Arc::new(InPlace),
            chance: Arc::new(Never),
        };
        MemHost { files, disks, world }
    }
}
