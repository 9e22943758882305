//! One machine at the process server: the shell around its receiver.
//!
//! Three workers perform effects: the stage worker (appends, syncs, generation), the commit worker
//! (vault) and the hash worker. Each takes work from a queue in the shared core and steps the receiver
//! with the result. The lock is held for one synchronous step.

use super::stage::{self, Stage};
use super::{PsMachineStatus, PsSettings};
use crate::tasks::Tasks;
use redoubt_core::message::{HashReply, HashRequest, Message};
use redoubt_core::receiver::{
    Receiver, ReceiverEffect, ReceiverEvent, ReceiverLimits, ReceiverState, SessionId,
};
use redoubt_core::sealed::SealedBatch;
use redoubt_core::{BatchPosition, Generation, MachineId, WriteSeq};
use redoubt_ports::{Clock, World};
use redoubt_vault::{CommitError, MachineReader, MachineWriter, Vault};
use redoubt_wire::StreamKey;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};

/// A commit or a digest that takes longer is given up and tried again: far above any healthy store.
const VAULT_DEADLINE: Duration = Duration::from_secs(120);
/// Messages waiting for one connection; an agent that reads so slowly is disconnected.
pub(super) const OUTGOING_MAX: usize = 1024;
/// How often due commits and silent sessions are looked at.
const TICK: Duration = Duration::from_millis(50);

enum StageWork {
    Append(SealedBatch),
    Sync(u64),
    Trim(WriteSeq),
    Generation(Generation),
}

struct Core {
    receiver: Receiver,
    sessions: BTreeMap<SessionId, mpsc::Sender<Option<Message>>>,
    stage_work: VecDeque<StageWork>,
    commit: Option<BatchPosition>,
    hashes: VecDeque<HashRequest>,
    generation: Generation,
    is_fenced: bool,
    is_over: bool,
    last_error: Option<String>,
}

/// A machine that is served.
pub(super) struct Machine {
    id: MachineId,
    key: StreamKey,
    clock: Arc<dyn Clock>,
    files: Arc<dyn redoubt_ports::Files>,
    stage: Stage,
    reader: MachineReader,
    commit_bytes_max: u64,
    core: Mutex<Core>,
    stage_wake: Notify,
    commit_wake: Notify,
    hash_wake: Notify,
    tasks: Tasks,
}

impl Machine {
    /// Claims the machine's log, scans the stage and starts the workers.
    pub(super) async fn open(
        id: MachineId,
        key: StreamKey,
        world: &World,
        vault: &Vault,
        settings: &PsSettings,
    ) -> Result<Arc<Machine>, String> {
        let writer = MachineWriter::claim(vault, id, Arc::clone(&world.entropy)).await;
        let writer = writer.map_err(|error| error.to_string())?;
        let reader = MachineReader::open(vault, id).await.map_err(|error| error.to_string())?;
        let head = writer.head().clone();
        let io = |error: redoubt_ports::IoError| error.to_string();
        let generation = stage::read_generation(&*world.files, id).await.map_err(io)?;
        let generation = generation.max(head.position.generation);
        let (stage, staged) = Stage::open(Arc::clone(&world.files), id, head.position).await.map_err(io)?;
        let limits = ReceiverLimits {
            stage_bytes: settings.stage_bytes_max / settings.machines.len().max(1) as u64,
            commit_bytes: settings.commit_bytes_max,
            commit_after: settings.commit_delay,
        };
        let exact = head.exact && staged.is_empty();
        let found = ReceiverState { generation, vaulted: head.position, staged, exact };
        let core = Core {
            receiver: Receiver::new(world.clock.now(), id, limits, found),
            sessions: BTreeMap::new(),
            stage_work: VecDeque::new(),
            commit: None,
            hashes: VecDeque::new(),
            generation,
            is_fenced: false,
            is_over: false,
            last_error: None,
        };
        let machine = Arc::new(Machine {
            id,
            key,
            clock: Arc::clone(&world.clock),
            files: Arc::clone(&world.files),
            stage,
            reader,
            commit_bytes_max: settings.commit_bytes_max,
            core: Mutex::new(core),
            stage_wake: Notify::new(),
            commit_wake: Notify::new(),
            hash_wake: Notify::new(),
            tasks: Tasks::default(),
        });
        // The workers keep the machine alive; [`Machine::close`] ends them.
        machine.tasks.spawn(Arc::clone(&machine).stage_loop());
        machine.tasks.spawn(Arc::clone(&machine).commit_loop(writer));
        machine.tasks.spawn(Arc::clone(&machine).hash_loop());
        machine.tasks.spawn(Arc::clone(&machine).tick_loop());
        Ok(machine)
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the workers; what is staged stays.
    pub(super) fn close(&self) {
        let mut core = self.lock();
        core.is_over = true;
        core.sessions.clear();
        drop(core);
        self.tasks.abort();
    }

    /// Tells whether the machine must be opened again before it can serve.
    pub(super) fn is_over(&self) -> bool {
        self.lock().is_over
    }

    /// Registers a connection.
    pub(super) fn connect(&self, session: SessionId, outgoing: mpsc::Sender<Option<Message>>) {
        self.lock().sessions.insert(session, outgoing);
    }

    /// Forgets a connection.
    pub(super) fn disconnect(&self, session: SessionId) {
        self.step(ReceiverEvent::Gone(session));
        self.lock().sessions.remove(&session);
    }

    /// Returns what there is to tell.
    pub(super) fn status(&self) -> PsMachineStatus {
        let core = self.lock();
        PsMachineStatus {
            generation: core.generation,
            is_connected: !core.sessions.is_empty(),
            staged: core.receiver.staged(),
            vaulted: core.receiver.vaulted(),
            stage_bytes: self.stage.bytes(),
            is_fenced: core.is_fenced,
            last_error: core.last_error.clone(),
        }
    }

    /// Takes one event and hands its effects to the workers.
    pub(super) fn step(&self, event: ReceiverEvent) {
        let now = self.clock.now();
        let mut core = self.lock();
        let mut effects = Vec::new();
        core.receiver.step(now, event, &mut effects);
        for effect in effects {
            self.perform(&mut core, effect);
        }
    }

    fn perform(&self, core: &mut Core, effect: ReceiverEffect) {
        match effect {
            ReceiverEffect::Transmit(session, message) => {
                if let Some(outgoing) = core.sessions.get(&session)
                    && outgoing.try_send(Some(message)).is_err()
                {
                    core.sessions.remove(&session);
                }
            }
            ReceiverEffect::Close(session) => {
                if let Some(outgoing) = core.sessions.remove(&session) {
                    let _ = outgoing.try_send(None);
                }
            }
            ReceiverEffect::PersistGeneration(generation) => {
                core.generation = generation;
                self.stage_work(core, StageWork::Generation(generation));
            }
            ReceiverEffect::StageAppend(batch) => self.stage_work(core, StageWork::Append(batch)),
            ReceiverEffect::StageSync { ticket } => self.stage_work(core, StageWork::Sync(ticket)),
            ReceiverEffect::StageTrim { through } => self.stage_work(core, StageWork::Trim(through)),
            ReceiverEffect::Commit { through } => {
                core.commit = Some(through);
                self.commit_wake.notify_one();
            }
            ReceiverEffect::Hash(request) => {
                core.hashes.push_back(request);
                self.hash_wake.notify_one();
            }
            ReceiverEffect::HistoryReplaced { at, by } => {
                let (machine, at, by) = (self.id, at.seq, by.first);
                tracing::warn!(role = "process-server", %machine, %at, %by, "a resync replaced a lost history");
            }
            ReceiverEffect::Restart => {
                core.is_over = true;
                core.sessions.clear();
            }
        }
    }

    fn stage_work(&self, core: &mut Core, work: StageWork) {
        core.stage_work.push_back(work);
        self.stage_wake.notify_one();
    }

    fn report(&self, error: String) {
        tracing::warn!(role = "process-server", machine = %self.id, "{error}");
        self.lock().last_error = Some(error);
    }

    async fn stage_loop(self: Arc<Machine>) {
        loop {
            let work = self.lock().stage_work.pop_front();
            let Some(work) = work else {
                self.stage_wake.notified().await;
                continue;
            };
            let done = match work {
                StageWork::Append(batch) => self.stage.append(batch.meta, batch.bytes).await.map(|()| None),
                StageWork::Sync(ticket) => {
                    self.stage.sync().await.map(|()| Some(ReceiverEvent::StageSynced { ticket }))
                }
                StageWork::Trim(through) => self.stage.trim(through).await.map(|()| None),
                StageWork::Generation(generation) => {
                    let written = stage::write_generation(&*self.files, self.id, generation).await;
                    written.map(|()| Some(ReceiverEvent::GenerationPersisted(generation)))
                }
            };
            match done {
                Ok(Some(event)) => self.step(event),
                Ok(None) => {}
                Err(error) => {
                    self.report(error.to_string());
                    self.step(ReceiverEvent::StageFailed);
                    return;
                }
            }
        }
    }

    async fn commit_loop(self: Arc<Machine>, mut writer: MachineWriter) {
        loop {
            let wanted = self.lock().commit.take();
            let Some(through) = wanted else {
                self.commit_wake.notified().await;
                continue;
            };
            let result = tokio::time::timeout(VAULT_DEADLINE, self.commit(&mut writer, through)).await;
            match result {
                Ok(Ok(vaulted)) => {
                    self.lock().last_error = None;
                    self.step(ReceiverEvent::CommitDone { vaulted });
                }
                Ok(Err(Some(CommitError::Fenced { by }))) => {
                    self.report(format!("a newer writer (epoch {by}) claimed the vault"));
                    self.lock().is_fenced = true;
                    self.step(ReceiverEvent::Fenced);
                    // The next session claims anew: a machine that came back here is served again.
                    self.lock().is_over = true;
                    return;
                }
                Ok(Err(error)) => {
                    if let Some(error) = error {
                        self.report(error.to_string());
                    }
                    self.step(ReceiverEvent::CommitFailed);
                }
                Err(_) => {
                    self.report("the vault did not answer in time".to_owned());
                    self.step(ReceiverEvent::CommitFailed);
                }
            }
        }
    }

    /// Commits staged batches, at most `commit_bytes_max` of them; the receiver asks again for the rest.
    async fn commit(
        &self,
        writer: &mut MachineWriter,
        through: BatchPosition,
    ) -> Result<BatchPosition, Option<CommitError>> {
        let at = writer.head().position;
        let batches = self.stage.read(at.seq, through.seq, self.commit_bytes_max).await;
        let batches = batches.map_err(|error| {
            self.report(error.to_string());
            None
        })?;
        let Some((last, _)) = batches.last() else {
            return Ok(at);
        };
        let to = last.position();
        let mut records = Vec::new();
        for (meta, bytes) in batches {
            let batch = redoubt_wire::open(&self.key, bytes).map_err(|error| {
                self.report(format!("batch {}..={}: {error}", meta.first, meta.last));
                None
            })?;
            records.extend(batch.records);
        }
        let done = writer.commit(records, to).await.map_err(Some)?;
        let exact = writer.head().exact;
        self.step(ReceiverEvent::Exact(exact));
        Ok(done.position)
    }

    async fn hash_loop(self: Arc<Machine>) {
        loop {
            let request = self.lock().hashes.pop_front();
            let Some(request) = request else {
                self.hash_wake.notified().await;
                continue;
            };
            match tokio::time::timeout(VAULT_DEADLINE, self.hash(request)).await {
                Ok(Ok(reply)) => self.step(ReceiverEvent::Hashed(reply)),
                Ok(Err(error)) => {
                    self.report(error);
                    // An empty answer proves nothing: the agent sends the blocks.
                    let reply = HashReply { id: request.id, as_of: request.after, blocks: Vec::new() };
                    self.step(ReceiverEvent::Hashed(reply));
                }
                Err(_) => {
                    self.report("the vault did not answer in time".to_owned());
                    let reply = HashReply { id: request.id, as_of: request.after, blocks: Vec::new() };
                    self.step(ReceiverEvent::Hashed(reply));
                }
            }
        }
    }

    async fn hash(&self, request: HashRequest) -> Result<HashReply, String> {
        self.reader.refresh().await.map_err(|error| error.to_string())?;
        let as_of = self.reader.head().position.seq;
        if as_of < request.after || !request.is_valid() {
            return Ok(HashReply { id: request.id, as_of, blocks: Vec::new() });
        }
        let view = self.reader.head_view();
        let first = request.extent.lba.0 / redoubt_core::message::HASH_BLOCK_SECTORS;
        let blocks = view.hash_blocks(request.volume, first, request.blocks()).await;
        let blocks = blocks.map_err(|error| error.to_string())?;
        Ok(HashReply { id: request.id, as_of, blocks })
    }

    async fn tick_loop(self: Arc<Machine>) {
        loop {
            tokio::time::sleep(TICK).await;
            self.step(ReceiverEvent::Tick);
        }
    }
}
