//! A directory of small files: names are durable after a sync of the directory, content see [`content`].
//!
//! Every change of a name survives a power loss by itself or not at all; a rename is one change. A failed
//! sync of the directory leaves its changes pending: file systems keep names in a journal and would
//! rather stop altogether than forget one.
//!
//! A directory that hangs answers nothing: not even an error. A write that is under way when it begins, or is
//! asked for meanwhile, may be in the cache by then or not; a sync is over only when the directory answers again.

mod content;
mod paged;

use super::{Shared, lock};
use crate::oracles::secrets;
use async_trait::async_trait;
use bytes::Bytes;
use content::{Content, Covered};
use redoubt_hw_models::DiskModel;
use redoubt_ports::{File, Files, IoError, IoKind, OpenMode, pause};
use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

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
    stuck_until: Duration,
    faults_met: u64,
    is_lost: bool,
    locked: bool,
    process: u64,
    /// Effects until the power goes with one of them.
    tripwire: Option<u64>,
    /// The power goes with what was just done: nothing is answered any more.
    has_tripped: bool,
}

/// How soon a hang that was lifted early is noticed.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The state directory of a host.
#[derive(Clone)]
pub struct SimFiles {
    shared: Shared,
    host: String,
    model: Arc<DiskModel>,
    state: Arc<Mutex<State>>,
}

impl SimFiles {
    pub(super) fn new(shared: Shared, host: &str, model: &DiskModel) -> SimFiles {
        let (host, model) = (host.to_owned(), Arc::new(model.clone()));
        SimFiles { shared, host, model, state: Arc::new(Mutex::new(State::default())) }
    }

    /// Takes over the files of another directory, as they are now; all of it is durable here.
    pub(super) fn copy_from(&self, other: &SimFiles) {
        let copy = |node: &Node| Arc::new(Mutex::new(lock(node).copy()));
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

    /// Lets nothing end before this time of the run.
    pub fn hang_until(&self, until: Duration) {
        lock(&self.state).stuck_until = until;
    }

    /// Lets the host lose power with its effect number `count` from now on: it never hears of it, and
    /// [`SimFiles::has_tripped`] says so.
    pub fn trip(&self, count: u64) {
        lock(&self.state).tripwire = Some(count.max(1));
    }

    /// Nothing trips any more.
    pub fn untrip(&self) {
        lock(&self.state).tripwire = None;
    }

    /// Tells whether the host is to lose its power now.
    pub fn has_tripped(&self) -> bool {
        lock(&self.state).has_tripped
    }

    /// Something was done. If the power goes with it, nobody hears the answer.
    async fn effect(&self, what: &str, name: &str) {
        let has_tripped = {
            let mut state = lock(&self.state);
            state.tripwire = state.tripwire.map(|left| left - 1);
            if state.tripwire == Some(0) {
                (state.tripwire, state.has_tripped) = (None, true);
                self.shared
                    .trace
                    .line(self.shared.now(), || format!("{} ends with a {what} of {name}", self.host));
                self.shared.trip();
            }
            state.has_tripped
        };
        if has_tripped {
            std::future::pending::<()>().await;
        }
    }

    /// Waits while the directory hangs. Its end may be moved meanwhile, both ways.
    async fn answer(&self) {
        loop {
            let (now, until) = (self.shared.now(), lock(&self.state).stuck_until);
            if until <= now {
                return;
            }
            self.shared.trace.bite("files.hang");
            self.shared.trace.mark("files-hung");
            tokio::time::sleep((until - now).min(LOOK_EVERY)).await;
        }
    }

    /// Returns how many injected faults callers met.
    pub fn faults_met(&self) -> u64 {
        lock(&self.state).faults_met
    }

    /// Tells whether everything was lost once.
    pub fn has_lost(&self) -> bool {
        lock(&self.state).is_lost
    }

    /// Returns the sizes of all files.
    pub fn sizes(&self) -> BTreeMap<String, u64> {
        let state = lock(&self.state);
        state.names.iter().map(|(name, node)| (name.clone(), lock(node).len() as u64)).collect()
    }

    /// Returns the size of all files together.
    pub fn bytes(&self) -> u64 {
        lock(&self.state).names.values().map(|node| lock(node).len() as u64).sum()
    }

    /// A new process starts: locks of the older one are gone.
    pub(super) fn next_process(&self) {
        let mut state = lock(&self.state);
        state.locked = false;
        state.has_tripped = false;
        state.process += 1;
        for node in state.names.values() {
            lock(node).evict(&mut |bound| self.shared.below(bound));
        }
    }

    pub(super) fn power_loss(&self) {
        let mut state = lock(&self.state);
        state.has_tripped = false;
        let mut names = std::mem::take(&mut state.durable);
        for change in std::mem::take(&mut state.pending) {
            if self.shared.below(2) == 0 {
                apply(&mut names, change);
            }
        }
        for node in names.values_mut() {
            let found = lock(node).after_power_loss(&mut |bound| self.shared.below(bound));
            *node = Arc::new(Mutex::new(found));
        }
        state.durable = names.clone();
        state.names = names;
    }

    /// No space for this file.
    fn no_space(&self, state: &mut State, what: &str, name: &str) -> IoError {
        state.faults_met += 1;
        self.shared.trace.bite("files.full");
        if name.starts_with("spill-") {
            self.shared.trace.mark("spill-met-full-disk");
        } else if name.starts_with("stage-") {
            self.shared.trace.mark("stage-met-full-disk");
        }
        self.error(IoKind::NoSpace, &format!("{what} {name}"), "no space left")
    }

    /// Everything is gone, as with a new disk.
    pub fn wipe(&self) {
        let mut state = lock(&self.state);
        (state.names, state.durable, state.pending) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        state.faults_met += 1;
        state.is_lost = true;
    }

    /// Finds the file, or makes it; tells which.
    fn node(&self, name: &str, mode: OpenMode) -> Result<(Node, bool), IoError> {
        let mut state = lock(&self.state);
        match (state.names.get(name).cloned(), mode) {
            (Some(_), OpenMode::CreateNew) => {
                Err(self.error(IoKind::Exists, &format!("create {name}"), "exists"))
            }
            (None, OpenMode::Existing) => {
                Err(self.error(IoKind::NotFound, &format!("open {name}"), "no such file"))
            }
            (Some(node), _) => Ok((node, false)),
            (None, _) if state.full => Err(self.no_space(&mut state, "create", name)),
            (None, _) => {
                let node = Node::default();
                state.names.insert(name.to_owned(), Arc::clone(&node));
                state.pending.push(NameChange::Set(name.to_owned(), Arc::clone(&node)));
                Ok((node, true))
            }
        }
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

    /// A sync writes what is dirty and flushes the disk below.
    async fn sync_time(&self, dirty: u64) {
        let transfer = Duration::from_nanos(dirty * 1_000_000_000 / self.model.write_bytes_per_second.max(1));
        pause(self.shared.draw(&self.model.flush_us) + transfer).await;
    }
}

struct Open {
    files: SimFiles,
    name: String,
    node: Node,
}

/// A sync that was asked for. The system goes on with it when whoever asked has died: it may fail, and nobody hears of it.
struct SyncUnderWay<'a> {
    open: &'a Open,
    covered: Covered,
    is_heard: bool,
}

impl SyncUnderWay<'_> {
    /// Tells whether it fails: then what it covered is no longer dirty and not on the disk.
    fn fails(&self) -> bool {
        let files = &self.open.files;
        let mut state = lock(&files.state);
        let fails = files.shared.bites("files.sync-errors", state.sync_errors);
        if fails {
            state.faults_met += 1;
            files.shared.trace.mark("sync-failed");
            lock(&self.open.node).forsake(&self.covered, &mut |bound| files.shared.below(bound));
        }
        fails
    }
}

impl Drop for SyncUnderWay<'_> {
    fn drop(&mut self) {
        if !self.is_heard && self.fails() {
            self.open.files.shared.trace.mark("sync-failed-unheard");
        }
    }
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
        self.answer().await;
        let (node, is_new) = self.node(name, mode)?;
        if is_new {
            self.effect("creation", name).await;
        }
        Ok(Arc::new(Open { files: self.clone(), name: name.to_owned(), node }))
    }

    async fn list(&self) -> Result<Vec<String>, IoError> {
        self.answer().await;
        Ok(lock(&self.state).names.keys().cloned().collect())
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), IoError> {
        self.check_name(from)?;
        self.check_name(to)?;
        self.answer().await;
        {
            let mut state = lock(&self.state);
            let Some(node) = state.names.remove(from) else {
                return Err(self.error(IoKind::NotFound, &format!("rename {from}"), "no such file"));
            };
            state.names.insert(to.to_owned(), Arc::clone(&node));
            state.pending.push(NameChange::Move(from.to_owned(), to.to_owned(), node));
        }
        self.effect("renaming", from).await;
        Ok(())
    }

    async fn remove(&self, name: &str) -> Result<(), IoError> {
        self.check_name(name)?;
        self.answer().await;
        {
            let mut state = lock(&self.state);
            if state.names.remove(name).is_none() {
                return Ok(());
            }
            state.pending.push(NameChange::Remove(name.to_owned()));
        }
        self.effect("removal", name).await;
        Ok(())
    }

    async fn sync_dir(&self) -> Result<(), IoError> {
        self.sync_time(0).await;
        self.answer().await;
        {
            let mut state = lock(&self.state);
            if self.shared.bites("files.sync-errors", state.sync_errors) {
                state.faults_met += 1;
                return Err(self.error(IoKind::Device, "sync directory", "injected"));
            }
            for change in std::mem::take(&mut state.pending) {
                apply(&mut state.durable, change);
            }
        }
        self.effect("sync", "the directory").await;
        Ok(())
    }

    async fn free_bytes(&self) -> Result<Option<u64>, IoError> {
        self.answer().await;
        Ok(if lock(&self.state).full { Some(0) } else { None })
    }

    async fn lock(&self) -> Result<Box<dyn Any + Send + Sync>, IoError> {
        self.answer().await;
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
        self.files.answer().await;
        Ok(lock(&self.node).read(offset as usize, length))
    }

    async fn write_at(&self, offset: u64, parts: &[Bytes]) -> Result<(), IoError> {
        let total: usize = parts.iter().map(Bytes::len).sum();
        if total == 0 {
            return Ok(());
        }
        let to = offset as usize + total;
        // It reaches the cache before the hang or after it.
        let is_cached_first = self.files.shared.below(2) == 0;
        if !is_cached_first {
            self.files.answer().await;
        }
        {
            let mut state = lock(&self.files.state);
            if state.full && to > lock(&self.node).len() {
                return Err(self.files.no_space(&mut state, "write", &self.name));
            }
        }
        let mut at = offset as usize;
        for part in parts {
            lock(&self.node).write(at, part, &mut |bound| self.files.shared.below(bound));
            at += part.len();
            let place = || format!("{} of {}", self.name, self.files.host);
            if let Some(finding) = secrets::judge(place, part) {
                self.files.shared.trace.finding(finding);
            }
        }
        self.files.effect("write", &self.name).await;
        if is_cached_first {
            self.files.answer().await;
        }
        Ok(())
    }

    async fn len(&self) -> Result<u64, IoError> {
        self.files.answer().await;
        Ok(lock(&self.node).len() as u64)
    }

    async fn set_len(&self, length: u64) -> Result<(), IoError> {
        self.files.answer().await;
        {
            let mut state = lock(&self.files.state);
            let mut content = lock(&self.node);
            if state.full && length as usize > content.len() {
                return Err(self.files.no_space(&mut state, "grow", &self.name));
            }
            content.set_len(length as usize);
        }
        self.files.effect("new length", &self.name).await;
        Ok(())
    }

    async fn sync(&self) -> Result<(), IoError> {
        // What this sync covers is fixed when it is asked for; later writes stay volatile.
        let covered = lock(&self.node).covered();
        let bytes = covered.bytes();
        let mut sync = SyncUnderWay { open: self, covered, is_heard: false };
        self.files.sync_time(bytes).await;
        self.files.answer().await;
        sync.is_heard = true;
        if sync.fails() {
            return Err(self.files.error(IoKind::Device, &format!("sync {}", self.name), "injected"));
        }
        lock(&self.node).harden(&sync.covered);
        self.files.effect("sync", &self.name).await;
        Ok(())
    }
}
