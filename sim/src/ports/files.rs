//! A directory of small files: content is durable after a sync, names after a sync of the directory.

use super::{Shared, lock};
use crate::oracles::secrets;
use async_trait::async_trait;
use bytes::Bytes;
use redoubt_ports::{File, Files, IoError, IoKind, OpenMode};
use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

/// Unit in which unsynced content survives a power loss.
const BLOCK: usize = 512;

#[derive(Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    dirty: BTreeSet<usize>,
}

impl Content {
    fn block(&self, block: usize) -> Vec<u8> {
        let from = (block * BLOCK).min(self.now.len());
        let to = (from + BLOCK).min(self.now.len());
        self.now[from..to].to_vec()
    }

    fn touch(&mut self, from: usize, to: usize) {
        self.dirty.extend(from / BLOCK..to.div_ceil(BLOCK));
    }
}

type Node = Arc<Mutex<Content>>;

enum NameChange {
    Set(String, Node),
    Move(String, String, Node),
    Remove(String),
}

fn apply(names: &mut BTreeMap<String, Node>, change: NameChange) {
    match change {
        NameChange::Set(name, node) => drop(names.insert(name, node)),
        NameChange::Move(from, to, node) => {
            names.remove(&from);
            names.insert(to, node);
        }
        NameChange::Remove(name) => drop(names.remove(&name)),
    }
}

#[derive(Default)]
struct State {
    names: BTreeMap<String, Node>,
    durable: BTreeMap<String, Node>,
    pending: Vec<NameChange>,
    full: bool,
    sync_errors: u32,
    faults_met: u64,
    locked: bool,
    process: u64,
}

/// The state directory of a host.
#[derive(Clone)]
pub struct SimFiles {
    shared: Shared,
    host: String,
    state: Arc<Mutex<State>>,
}

impl SimFiles {
    pub(super) fn new(shared: Shared, host: &str) -> SimFiles {
        SimFiles { shared, host: host.to_owned(), state: Arc::new(Mutex::new(State::default())) }
    }

    /// Takes over the files of another directory, as they are now; all of it is durable here.
    pub(super) fn copy_from(&self, other: &SimFiles) {
        let copy = |node: &Node| {
            let now = lock(node).now.clone();
            Arc::new(Mutex::new(Content { durable: now.clone(), now, dirty: BTreeSet::new() }))
        };
        let names: BTreeMap<String, Node> =
            lock(&other.state).names.iter().map(|(name, node)| (name.clone(), copy(node))).collect();
        let mut state = lock(&self.state);
        state.durable = names.clone();
        state.names = names;
    }

    /// The directory has no space left, or has again.
    pub fn set_full(&self, full: bool) {
        lock(&self.state).full = full;
    }

    /// Sets the chance that a sync fails, in parts per million.
    pub fn set_sync_errors(&self, ppm: u32) {
        lock(&self.state).sync_errors = ppm;
    }

    /// Returns how many injected faults callers met.
    pub fn faults_met(&self) -> u64 {
        lock(&self.state).faults_met
    }

    /// Returns the sizes of all files.
    pub fn sizes(&self) -> BTreeMap<String, u64> {
        let state = lock(&self.state);
        state.names.iter().map(|(name, node)| (name.clone(), lock(node).now.len() as u64)).collect()
    }

    /// A new process starts: locks of the older one are gone.
    pub(super) fn next_process(&self) {
        let mut state = lock(&self.state);
        state.locked = false;
        state.process += 1;
    }

    pub(super) fn power_loss(&self) {
        let mut state = lock(&self.state);
        let mut names = std::mem::take(&mut state.durable);
        for change in std::mem::take(&mut state.pending) {
            if self.shared.below(2) == 0 {
                apply(&mut names, change);
            }
        }
        for node in names.values_mut() {
            let mut old = lock(node);
            let length = match self.shared.below(3) {
                0 => old.durable.len(),
                1 => old.now.len(),
                _ => {
                    old.durable.len().min(old.now.len())
                        + self.shared.below(old.now.len().abs_diff(old.durable.len()) as u64 + 1) as usize
                }
            };
            let mut content = old.durable.clone();
            content.resize(length, 0);
            for block in std::mem::take(&mut old.dirty) {
                let from = block * BLOCK;
                let to = (from + BLOCK).min(old.now.len()).min(length);
                if from < to && self.shared.below(2) == 0 {
                    content[from..to].copy_from_slice(&old.now[from..to]);
                }
            }
            let fresh = Content { durable: content.clone(), now: content, dirty: BTreeSet::new() };
            drop(old);
            *node = Arc::new(Mutex::new(fresh));
        }
        state.durable = names.clone();
        state.names = names;
    }

    fn error(&self, kind: IoKind, what: &str, detail: &str) -> IoError {
        IoError::new(kind, format!("{what} on {}", self.host), detail)
    }

    fn check_name(&self, name: &str) -> Result<(), IoError> {
        if name.is_empty() || name == "." || name == ".." || name.contains('/') {
            return Err(self.error(IoKind::Unsupported, &format!("file {name:?}"), "not a plain file name"));
        }
        Ok(())
    }

    async fn delay(&self, low: u64, high: u64) {
        tokio::time::sleep(self.shared.micros(low, high)).await;
    }
}

struct Open {
    files: SimFiles,
    name: String,
    node: Node,
}

struct Lock {
    state: Arc<Mutex<State>>,
    process: u64,
}

impl Drop for Lock {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        if state.process == self.process {
            state.locked = false;
        }
    }
}

#[async_trait]
impl Files for SimFiles {
    async fn open(&self, name: &str, mode: OpenMode) -> Result<Arc<dyn File>, IoError> {
        self.check_name(name)?;
        let mut state = lock(&self.state);
        let node = match (state.names.get(name).cloned(), mode) {
            (Some(_), OpenMode::CreateNew) => {
                return Err(self.error(IoKind::Exists, &format!("create {name}"), "exists"));
            }
            (None, OpenMode::Existing) => {
                return Err(self.error(IoKind::NotFound, &format!("open {name}"), "no such file"));
            }
            (Some(node), _) => node,
            (None, _) if state.full => {
                state.faults_met += 1;
                return Err(self.error(IoKind::NoSpace, &format!("create {name}"), "no space left"));
            }
            (None, _) => {
                let node = Node::default();
                state.names.insert(name.to_owned(), Arc::clone(&node));
                state.pending.push(NameChange::Set(name.to_owned(), Arc::clone(&node)));
                node
            }
        };
        Ok(Arc::new(Open { files: self.clone(), name: name.to_owned(), node }))
    }

    async fn list(&self) -> Result<Vec<String>, IoError> {
        Ok(lock(&self.state).names.keys().cloned().collect())
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), IoError> {
        self.check_name(from)?;
        self.check_name(to)?;
        let mut state = lock(&self.state);
        let Some(node) = state.names.remove(from) else {
            return Err(self.error(IoKind::NotFound, &format!("rename {from}"), "no such file"));
        };
        state.names.insert(to.to_owned(), Arc::clone(&node));
        state.pending.push(NameChange::Move(from.to_owned(), to.to_owned(), node));
        Ok(())
    }

    async fn remove(&self, name: &str) -> Result<(), IoError> {
        self.check_name(name)?;
        let mut state = lock(&self.state);
        if state.names.remove(name).is_some() {
            state.pending.push(NameChange::Remove(name.to_owned()));
        }
        Ok(())
    }

    async fn sync_dir(&self) -> Result<(), IoError> {
        self.delay(200, 1_500).await;
        let mut state = lock(&self.state);
        if self.shared.chance(state.sync_errors) {
            state.faults_met += 1;
            return Err(self.error(IoKind::Device, "sync directory", "injected"));
        }
        for change in std::mem::take(&mut state.pending) {
            apply(&mut state.durable, change);
        }
        Ok(())
    }

    async fn free_bytes(&self) -> Result<Option<u64>, IoError> {
        Ok(if lock(&self.state).full { Some(0) } else { None })
    }

    async fn lock(&self) -> Result<Box<dyn Any + Send + Sync>, IoError> {
        let mut state = lock(&self.state);
        if state.locked {
            return Err(self.error(IoKind::Busy, "lock directory", "another process holds it"));
        }
        state.locked = true;
        Ok(Box::new(Lock { state: Arc::clone(&self.state), process: state.process }))
    }
}

#[async_trait]
impl File for Open {
    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes, IoError> {
        let content = lock(&self.node);
        let from = (offset as usize).min(content.now.len());
        let to = from.saturating_add(length).min(content.now.len());
        Ok(Bytes::copy_from_slice(&content.now[from..to]))
    }

    async fn write_at(&self, offset: u64, parts: &[Bytes]) -> Result<(), IoError> {
        let total: usize = parts.iter().map(Bytes::len).sum();
        if total == 0 {
            return Ok(());
        }
        let to = offset as usize + total;
        {
            let mut state = lock(&self.files.state);
            if state.full && to > lock(&self.node).now.len() {
                state.faults_met += 1;
                let what = format!("write {} at {offset}", self.name);
                return Err(self.files.error(IoKind::NoSpace, &what, "no space left"));
            }
        }
        let mut content = lock(&self.node);
        if content.now.len() < to {
            content.now.resize(to, 0);
        }
        content.touch(offset as usize, to);
        let mut at = offset as usize;
        for part in parts {
            content.now[at..at + part.len()].copy_from_slice(part);
            at += part.len();
            if let Some(finding) = secrets::judge(&format!("{} of {}", self.name, self.files.host), part) {
                self.files.shared.trace.finding(finding);
            }
        }
        Ok(())
    }

    async fn len(&self) -> Result<u64, IoError> {
        Ok(lock(&self.node).now.len() as u64)
    }

    async fn set_len(&self, length: u64) -> Result<(), IoError> {
        let mut state = lock(&self.files.state);
        let mut content = lock(&self.node);
        let old = content.now.len();
        if state.full && length as usize > old {
            state.faults_met += 1;
            return Err(self.files.error(IoKind::NoSpace, &format!("grow {}", self.name), "no space left"));
        }
        content.now.resize(length as usize, 0);
        if old < length as usize {
            content.touch(old, length as usize);
        }
        Ok(())
    }

    async fn sync(&self) -> Result<(), IoError> {
        // What this sync covers is fixed when it is asked for; later writes stay volatile.
        let (length, covered) = {
            let content = lock(&self.node);
            (
                content.now.len(),
                content.dirty.iter().map(|block| (*block, content.block(*block))).collect::<Vec<_>>(),
            )
        };
        self.files.delay(500, 3_000).await;
        {
            let mut state = lock(&self.files.state);
            if self.files.shared.chance(state.sync_errors) {
                state.faults_met += 1;
                return Err(self.files.error(IoKind::Device, &format!("sync {}", self.name), "injected"));
            }
        }
        let mut content = lock(&self.node);
        content.durable.resize(length, 0);
        for (block, bytes) in covered {
            let from = block * BLOCK;
            if let Some(place) = content.durable.get_mut(from..from + bytes.len()) {
                place.copy_from_slice(&bytes);
            }
            if content.block(block) == bytes {
                content.dirty.remove(&block);
            }
        }
        Ok(())
    }
}
