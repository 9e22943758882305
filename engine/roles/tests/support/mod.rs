//! A small world in memory for tests of roles: files with a size limit and power loss, sockets, time.
//!
//! ```text
//! let host = MemHost::new(7);                 // seed of its entropy
//! let server = ProcessServer::start(settings, host.world(), store, keys).await?;
//! host.files.set_room(Some(0));               // every growth fails with NoSpace
//! host.files.cut_power();                     // what was not synced is gone
//! ```
//!
//! What is *not* here: the lab's models of devices, delays and faults (`sim`).

#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod agent;

use async_trait::async_trait;
use bytes::Bytes;
use redoubt_core::{Instant, WallTime};
use redoubt_ports::{
    ByteStream, Clock, Disk, Disks, Endpoint, Entropy, File, Files, InPlace, IoError, IoKind, Listener, Net,
    NetError, Never, OpenMode, World,
};
use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;

/// Bytes that may be under way in one direction of a connection.
const SOCKET_BYTES: usize = 1 << 20;
/// Connections that wait for an accept.
const BACKLOG: usize = 16;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One host: its directory, its sockets, its time.
#[derive(Clone)]
pub(crate) struct MemHost {
    /// The role's state directory.
    pub(crate) files: MemFiles,
    /// Sockets; clones of the host share them, and other hosts may be given a clone.
    pub(crate) net: MemNet,
    entropy: Arc<MemEntropy>,
    clock: Arc<MemClock>,
}

impl MemHost {
    /// Makes a host whose random bytes come from the seed. Needs a tokio runtime.
    pub(crate) fn new(seed: u64) -> MemHost {
        MemHost {
            files: MemFiles::default(),
            net: MemNet::default(),
            entropy: Arc::new(MemEntropy(Mutex::new(seed))),
            clock: Arc::new(MemClock(tokio::time::Instant::now())),
        }
    }

    /// Returns the ports of this host. It has no disks.
    pub(crate) fn world(&self) -> World {
        World {
            clock: self.clock.clone(),
            entropy: self.entropy.clone(),
            net: Arc::new(self.net.clone()),
            files: Arc::new(self.files.clone()),
            disks: Arc::new(NoDisks),
            workers: Arc::new(InPlace),
            chance: Arc::new(Never),
        }
    }
}

/// Tokio's time, paused or not.
struct MemClock(tokio::time::Instant);

impl Clock for MemClock {
    fn now(&self) -> Instant {
        Instant(self.0.elapsed().as_nanos() as u64)
    }

    fn wall(&self) -> WallTime {
        WallTime(1_700_000_000_000 + self.0.elapsed().as_millis() as u64)
    }
}

/// SplitMix64: repeatable, and different for every call.
struct MemEntropy(Mutex<u64>);

impl Entropy for MemEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        let mut state = lock(&self.0);
        for part in buffer.chunks_mut(8) {
            *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut word = *state;
            word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            part.copy_from_slice(&(word ^ (word >> 31)).to_le_bytes()[..part.len()]);
        }
    }
}

struct NoDisks;

#[async_trait]
impl Disks for NoDisks {
    async fn open(&self, name: &str, _read_only: bool) -> Result<Arc<dyn Disk>, IoError> {
        Err(IoError::new(IoKind::NotFound, format!("open disk {name}"), "this host has no disks"))
    }
}

#[derive(Default)]
struct Content {
    now: Vec<u8>,
    synced: Vec<u8>,
}

type Inode = Arc<Mutex<Content>>;

#[derive(Default)]
struct Directory {
    now: BTreeMap<String, Inode>,
    synced: BTreeMap<String, Inode>,
    /// Bytes that all files may still grow by; `None` for no limit.
    room: Option<u64>,
}

/// One directory in memory, by the model of `ports::files`.
#[derive(Clone, Default)]
pub(crate) struct MemFiles {
    directory: Arc<Mutex<Directory>>,
    locked: Arc<Mutex<bool>>,
}

impl MemFiles {
    /// Sets the bytes that files may still grow by; `None` for no limit.
    pub(crate) fn set_room(&self, room: Option<u64>) {
        lock(&self.directory).room = room;
    }

    /// Loses every name and every byte that was not synced.
    pub(crate) fn cut_power(&self) {
        let mut directory = lock(&self.directory);
        directory.now = directory.synced.clone();
        for inode in directory.now.values() {
            let mut content = lock(inode);
            content.now = content.synced.clone();
        }
    }

    /// Removes every file, durably: the loss of the device.
    pub(crate) fn lose_everything(&self) {
        let mut directory = lock(&self.directory);
        directory.now.clear();
        directory.synced.clear();
    }

    /// Returns the names present, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        lock(&self.directory).now.keys().cloned().collect()
    }

    /// Changes a file's content behind the role's back, durably: damage for tests.
    pub(crate) fn tamper(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        if let Some(inode) = lock(&self.directory).now.get(name) {
            let mut content = lock(inode);
            change(&mut content.now);
            content.synced = content.now.clone();
        }
    }
}

struct MemLock(Arc<Mutex<bool>>);

impl Drop for MemLock {
    fn drop(&mut self) {
        *lock(&self.0) = false;
    }
}

#[async_trait]
impl Files for MemFiles {
    async fn open(&self, name: &str, mode: OpenMode) -> Result<Arc<dyn File>, IoError> {
        let mut directory = lock(&self.directory);
        let kind = match (directory.now.contains_key(name), mode) {
            (false, OpenMode::Existing) => Some(IoKind::NotFound),
            (true, OpenMode::CreateNew) => Some(IoKind::Exists),
            _ => None,
        };
        if let Some(kind) = kind {
            return Err(IoError::new(kind, format!("open {name}"), "as the mode says"));
        }
        let inode = directory.now.entry(name.to_owned()).or_default().clone();
        Ok(Arc::new(MemFile { name: name.to_owned(), inode, directory: self.directory.clone() }))
    }

    async fn list(&self) -> Result<Vec<String>, IoError> {
        Ok(self.names())
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), IoError> {
        let mut directory = lock(&self.directory);
        let inode = directory.now.remove(from);
        let inode =
            inode.ok_or_else(|| IoError::new(IoKind::NotFound, format!("rename {from}"), "no file"))?;
        directory.now.insert(to.to_owned(), inode);
        Ok(())
    }

    async fn remove(&self, name: &str) -> Result<(), IoError> {
        lock(&self.directory).now.remove(name);
        Ok(())
    }

    async fn sync_dir(&self) -> Result<(), IoError> {
        let mut directory = lock(&self.directory);
        directory.synced = directory.now.clone();
        Ok(())
    }

    async fn free_bytes(&self) -> Result<Option<u64>, IoError> {
        Ok(lock(&self.directory).room)
    }

    async fn lock(&self) -> Result<Box<dyn Any + Send + Sync>, IoError> {
        if std::mem::replace(&mut *lock(&self.locked), true) {
            return Err(IoError::new(IoKind::Busy, "lock the directory", "it is taken"));
        }
        Ok(Box::new(MemLock(self.locked.clone())))
    }
}

struct MemFile {
    name: String,
    inode: Inode,
    directory: Arc<Mutex<Directory>>,
}

impl MemFile {
    fn resize(&self, content: &mut Content, length: usize) -> Result<(), IoError> {
        let growth = length.saturating_sub(content.now.len()) as u64;
        let mut directory = lock(&self.directory);
        if let Some(room) = &mut directory.room {
            if growth > *room {
                let what = format!("grow {} to {length}", self.name);
                return Err(IoError::new(IoKind::NoSpace, what, "no space left"));
            }
            *room -= growth;
        }
        content.now.resize(length, 0);
        Ok(())
    }
}

#[async_trait]
impl File for MemFile {
    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes, IoError> {
        let content = lock(&self.inode);
        let from = (offset as usize).min(content.now.len());
        let to = from.saturating_add(length).min(content.now.len());
        Ok(Bytes::copy_from_slice(&content.now[from..to]))
    }

    async fn write_at(&self, offset: u64, parts: &[Bytes]) -> Result<(), IoError> {
        let mut content = lock(&self.inode);
        let mut at = offset as usize;
        let end = at + parts.iter().map(Bytes::len).sum::<usize>();
        if end > content.now.len() {
            self.resize(&mut content, end)?;
        }
        for part in parts {
            content.now[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        Ok(())
    }

    async fn len(&self) -> Result<u64, IoError> {
        Ok(lock(&self.inode).now.len() as u64)
    }

    async fn set_len(&self, length: u64) -> Result<(), IoError> {
        let mut content = lock(&self.inode);
        self.resize(&mut content, length as usize)
    }

    async fn sync(&self) -> Result<(), IoError> {
        let mut content = lock(&self.inode);
        content.synced = content.now.clone();
        Ok(())
    }
}

type Accepted = Box<dyn ByteStream>;

/// Sockets in memory: clones see each other's listeners.
#[derive(Clone, Default)]
pub(crate) struct MemNet {
    listeners: Arc<Mutex<BTreeMap<Endpoint, mpsc::Sender<Accepted>>>>,
}

#[async_trait]
impl Net for MemNet {
    async fn connect(&self, to: &Endpoint) -> Result<Box<dyn ByteStream>, NetError> {
        let listener = lock(&self.listeners).get(to).cloned();
        let listener = listener.ok_or_else(|| NetError::Refused(to.clone()))?;
        let (ours, theirs) = tokio::io::duplex(SOCKET_BYTES);
        listener.send(Box::new(theirs)).await.map_err(|_| NetError::Refused(to.clone()))?;
        Ok(Box::new(ours))
    }

    async fn listen(&self, at: &Endpoint) -> Result<Box<dyn Listener>, NetError> {
        let mut listeners = lock(&self.listeners);
        let endpoint = match at {
            Endpoint::Tcp(host, 0) => {
                let port =
                    (49152..).find(|port| !listeners.contains_key(&Endpoint::Tcp(host.clone(), *port)));
                Endpoint::Tcp(host.clone(), port.unwrap_or(u16::MAX))
            }
            given => given.clone(),
        };
        if listeners.get(&endpoint).is_some_and(|listener| !listener.is_closed()) {
            return Err(NetError::InUse(endpoint));
        }
        let (sender, queue) = mpsc::channel(BACKLOG);
        listeners.insert(endpoint.clone(), sender);
        Ok(Box::new(MemListener { endpoint, queue: tokio::sync::Mutex::new(queue) }))
    }
}

struct MemListener {
    endpoint: Endpoint,
    queue: tokio::sync::Mutex<mpsc::Receiver<Accepted>>,
}

#[async_trait]
impl Listener for MemListener {
    async fn accept(&self) -> Result<(Box<dyn ByteStream>, String), NetError> {
        match self.queue.lock().await.recv().await {
            Some(stream) => Ok((stream, "memory".to_owned())),
            None => std::future::pending().await,
        }
    }

    fn endpoint(&self) -> Endpoint {
        self.endpoint.clone()
    }
}
