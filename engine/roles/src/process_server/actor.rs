//! The owner of one machine: performs what its receiver decides.
//!
//! Receiving never waits for a sync, a commit or a digest: those run in tasks of their own and come back
//! as events. Appends are done in place, in the order of the stream.
//!
//! Invariants
//! - AC-1 The receiver learns of every effect's outcome; what came of an effect of an earlier receiver or
//!   session is dropped.
//! - AC-2 After a failed append or sync only what an earlier sync covered is kept (RC-2).
//! - AC-3 A fenced actor claims nothing. An agent's hello ends it, and a new one claims (RC-7), after nothing
//!   of the old one touches the files any more.
//!
//! What is *not* here: decisions (`core::receiver`), sockets (`connection`).

mod arrival;
mod effects;
mod failure;
mod proof;

pub(super) use arrival::Caller;

use proof::Proof;

use super::exactness::{self, Known};
use super::hasher::Hasher;
use super::maintainer::MaintainerTask;
use super::marks::Marks;
use super::opening::Opened;
use super::outbox::Outbox;
use super::packer::{PAUSE_FIRST, Packer, Report};
use super::settings::PsMachineStatus;
use super::shared::{Shared, stopped};
use super::stage::Stage;
use redoubt_core::message::{Message, RefusedReason};
use redoubt_core::receiver::{Receiver, ReceiverEvent, ReceiverLimits, SessionId};
use redoubt_core::{BatchPosition, Generation, Instant, MachineId, WriteSeq};
use redoubt_ports::{Alarm, IoError, IoKind};
use redoubt_vault::UnitMemory;
use redoubt_wire::StreamKey;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Messages of connections that wait for the actor; with full batches 70 MiB, behind them TCP waits.
pub(super) const MAILBOX_MESSAGES: usize = 16;
/// Least time between two ticks: an overdue deadline that only a sync can settle is no busy loop.
const TICK_LEAST: Duration = Duration::from_millis(10);
/// How long a stop waits for the commit in flight; a cut one is settled by the next claim.
const COMMIT_DRAIN: Duration = Duration::from_secs(10);

/// What connections tell the actor.
pub(super) enum ToActor {
    /// An agent that proved its key.
    Hello(Caller),
    /// A later message of a session.
    Received(SessionId, Message),
    /// The connection ended.
    Gone(SessionId),
}

/// Runs the machine until the process server stops. An agent that comes to a fenced actor makes a new one,
/// which claims the log again (RC-7).
pub(super) async fn run(
    shared: Arc<Shared>,
    machine: MachineId,
    key: StreamKey,
    mut mailbox: mpsc::Receiver<ToActor>,
) {
    let (mut caller, memory) = (None, UnitMemory::default());
    loop {
        let opened = arrival::open(&shared, machine, &key, &mut mailbox, caller.take()).await;
        let Some((opened, waiting)) = opened else { return };
        let mut actor = Actor::new(shared.clone(), machine, key.clone(), opened, memory.clone());
        if let Some(waiting) = waiting {
            actor.admit(waiting).await;
        }
        caller = actor.serve(&mut mailbox).await;
        actor.stop().await;
        if caller.is_none() {
            return;
        }
        tracing::warn!(%machine, "the agent came back; claiming the machine again");
    }
}

/// A task whose outcome is an event, while it runs.
type Running<T> = Option<(T, JoinHandle<Result<(), IoError>>)>;

/// Waits for the task's end; for ever if there is none. A task that panicked counts as failed.
async fn outcome<T: Copy>(running: &mut Running<T>) -> (T, Result<(), IoError>) {
    let Some((what, task)) = running else { return std::future::pending().await };
    let result = task
        .await
        .unwrap_or_else(|error| Err(IoError::new(IoKind::Device, "sync the stage", error.to_string())));
    let what = *what;
    *running = None;
    (what, result)
}

struct Actor {
    shared: Arc<Shared>,
    machine: MachineId,
    key: StreamKey,
    receiver: Receiver,
    stage: Stage,
    packer: Packer,
    /// Ends of the commits that the receiver wants and the packer has not taken yet.
    wanted: VecDeque<BatchPosition>,
    hasher: Hasher,
    marks: Marks,
    _maintainer: MaintainerTask,
    proof: Proof,
    /// Exactness at a position that is vaulted or was asked for.
    known: Known,
    syncing: Running<u64>,
    saving: Running<Generation>,
    outboxes: BTreeMap<SessionId, Arc<Outbox>>,
    generation: Generation,
    connected: Option<SessionId>,
    is_fenced: bool,
    /// The session for which the log is to be claimed again.
    claim_for: Option<SessionId>,
    /// Its agent, who waits for the next actor's welcome.
    successor: Option<Caller>,
    last_error: Option<String>,
    /// Agents are refused until then, because the stage failed.
    refused_until: Instant,
    stage_pause: Duration,
    alarm: Alarm,
    /// After a failure: what is kept of the stage. Set while the cut has not succeeded yet.
    cut_after: Option<WriteSeq>,
}

/// What wakes the actor.
enum Wake {
    Stop,
    Synced(u64, Result<(), IoError>),
    Saved(Generation, Result<(), IoError>),
    Packed(Report),
    Proved(Caller, Option<u64>),
    Hashed(SessionId, redoubt_core::message::HashReply),
    Marks(SessionId, Option<redoubt_core::message::MarksReply>),
    Tick,
    Mail(ToActor),
}

impl Actor {
    fn new(
        shared: Arc<Shared>,
        machine: MachineId,
        key: StreamKey,
        opened: Opened,
        memory: UnitMemory,
    ) -> Actor {
        let Opened { stage, state, known, vault, packer, maintainer, claim } = opened;
        let now = shared.world.clock.now();
        let generation = state.generation;
        let limits = limits(&shared, stage.bytes());
        let actor = Actor {
            receiver: Receiver::new(now, machine, limits, state),
            hasher: Hasher::start(vault.clone(), machine, memory),
            marks: Marks::new(vault, machine),
            _maintainer: maintainer,
            proof: Proof::new(claim),
            shared,
            machine,
            key,
            stage,
            packer,
            wanted: VecDeque::new(),
            known,
            syncing: None,
            saving: None,
            outboxes: BTreeMap::new(),
            generation,
            connected: None,
            is_fenced: false,
            claim_for: None,
            successor: None,
            last_error: None,
            refused_until: now,
            stage_pause: PAUSE_FIRST,
            alarm: Alarm::default(),
            cut_after: None,
        };
        actor.publish();
        actor
    }

    fn now(&self) -> Instant {
        self.shared.world.clock.now()
    }

    /// Serves until the stop, or until an agent comes that needs the log to be claimed again.
    async fn serve(&mut self, mailbox: &mut mpsc::Receiver<ToActor>) -> Option<Caller> {
        while self.successor.is_none() {
            match self.wake(mailbox).await {
                Wake::Stop => return None,
                Wake::Synced(ticket, Ok(())) => {
                    self.stage_pause = PAUSE_FIRST;
                    self.step(ReceiverEvent::StageSynced { ticket }).await;
                }
                Wake::Saved(generation, Ok(())) => {
                    self.step(ReceiverEvent::GenerationPersisted(generation)).await;
                }
                Wake::Synced(_, Err(error)) | Wake::Saved(_, Err(error)) => {
                    self.stage_failed(&error, self.receiver.staged().seq).await;
                }
                Wake::Packed(report) => self.packed(report).await,
                Wake::Proved(caller, newer) => {
                    if let Some(epoch) = newer {
                        self.fenced(format!("claim {epoch} of the machine's log is another writer's")).await;
                    }
                    self.admit(caller).await;
                }
                Wake::Hashed(session, reply) if Some(session) == self.connected => {
                    self.step(ReceiverEvent::Hashed(reply)).await;
                }
                Wake::Hashed(..) | Wake::Marks(_, None) => {}
                Wake::Marks(session, Some(reply)) => {
                    self.step(ReceiverEvent::MarksTold(session, reply)).await;
                }
                Wake::Tick => self.tick().await,
                Wake::Mail(message) => self.take(message).await,
            }
            self.publish();
        }
        self.successor.take()
    }

    async fn wake(&mut self, mailbox: &mut mpsc::Receiver<ToActor>) -> Wake {
        let now = self.now();
        let next = match self.cut_after {
            Some(_) => Some(self.refused_until),
            None => self.receiver.deadline(),
        };
        let delay = next.map(|deadline| deadline.since(now).max(TICK_LEAST));
        let tick = async {
            match delay {
                Some(delay) => self.alarm.ring_after(delay).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = stopped(self.shared.stop.clone()) => Wake::Stop,
            (ticket, result) = outcome(&mut self.syncing) => Wake::Synced(ticket, result),
            (generation, result) = outcome(&mut self.saving) => Wake::Saved(generation, result),
            report = self.packer.report() => Wake::Packed(report),
            (caller, newer) = self.proof.outcome() => Wake::Proved(caller, newer),
            (session, reply) = self.hasher.answer() => Wake::Hashed(session, reply),
            (session, reply) = self.marks.outcome() => Wake::Marks(session, reply),
            () = tick => Wake::Tick,
            Some(message) = mailbox.recv() => Wake::Mail(message),
        }
    }

    async fn take(&mut self, message: ToActor) {
        match message {
            ToActor::Hello(caller) => {
                if let Some(older) = self.proof.begin(caller) {
                    older.refuse(RefusedReason::Replaced, String::new());
                }
            }
            ToActor::Received(session, message) if self.outboxes.contains_key(&session) => {
                self.step(ReceiverEvent::Received(session, message)).await;
            }
            ToActor::Received(..) => {}
            ToActor::Gone(session) => {
                self.proof.forget(session);
                self.step(ReceiverEvent::Gone(session)).await;
                self.forget(session);
            }
        }
    }

    async fn admit(&mut self, caller: Caller) {
        if self.cut_after.is_some() || self.now() < self.refused_until {
            let detail = self.last_error.clone().unwrap_or_default();
            return caller.refuse(RefusedReason::StageFailed, detail);
        }
        let Caller { session, hello, outbox } = caller;
        self.outboxes.insert(session, outbox);
        self.known = exactness::at_end(self.stage.entries(), &self.key, self.known).await;
        self.step(ReceiverEvent::Exact(self.known.is_exact)).await;
        self.step(ReceiverEvent::Hello { session, hello: hello.clone(), proven: true }).await;
        if self.claim_for == Some(session) {
            // The next actor's session: this one must not close its outbox.
            let outbox = self.outboxes.remove(&session);
            self.successor = outbox.map(|outbox| Caller { session, hello, outbox });
        } else if self.outboxes.contains_key(&session) {
            self.generation = self.generation.max(hello.generation);
            self.packer.name(hello.names);
        }
    }

    fn forget(&mut self, session: SessionId) {
        if let Some(outbox) = self.outboxes.remove(&session) {
            outbox.close();
        }
        self.connected = self.connected.filter(|connected| *connected != session);
    }

    /// Steps the receiver and performs its effects. An append that fails ends the rest of them.
    async fn step(&mut self, event: ReceiverEvent) {
        if self.cut_after.is_some() {
            return;
        }
        let mut effects = Vec::new();
        self.receiver.step(self.now(), event, &mut effects);
        for effect in effects {
            if let Err(error) = self.perform(effect).await {
                self.stage_failed(&error, self.receiver.staged().seq).await;
                return;
            }
        }
    }

    async fn tick(&mut self) {
        if self.cut_after.is_some() {
            if self.now() >= self.refused_until {
                self.rebuild().await;
            }
            return;
        }
        self.step(ReceiverEvent::Tick).await;
    }

    fn publish(&self) {
        let status = PsMachineStatus {
            generation: self.generation,
            is_connected: self.connected.is_some(),
            staged: self.receiver.staged(),
            vaulted: self.receiver.vaulted(),
            stage_bytes: self.stage.bytes(),
            is_fenced: self.is_fenced,
            last_error: self.last_error.clone(),
        };
        self.shared.publish(self.machine, status);
    }

    /// Ends every session and everything under way: on return nothing of this actor touches the files.
    async fn stop(mut self) {
        if self.syncing.is_some()
            && let (ticket, Ok(())) = outcome(&mut self.syncing).await
        {
            self.step(ReceiverEvent::StageSynced { ticket }).await;
        }
        self.settle_files().await;
        self.outboxes.values().for_each(|outbox| outbox.close());
        self.packer.drain(COMMIT_DRAIN).await;
    }

    /// Waits for the tasks that touch the files. They are not cancelled: a cut one might go on behind the
    /// back of whoever touches the files next.
    async fn settle_files(&mut self) {
        let syncing = self.syncing.take().map(|(_, task)| task);
        for task in syncing.into_iter().chain(self.saving.take().map(|(_, task)| task)) {
            let _ = task.await;
        }
    }
}

impl Drop for Actor {
    /// Ends what runs for the actor, so that nobody touches the files behind a dropped server's back.
    fn drop(&mut self) {
        self.outboxes.values().for_each(|outbox| outbox.close());
        let syncing = self.syncing.take().map(|(_, task)| task);
        syncing.into_iter().chain(self.saving.take().map(|(_, task)| task)).for_each(|task| task.abort());
    }
}

fn limits(shared: &Shared, staged_bytes: u64) -> ReceiverLimits {
    ReceiverLimits {
        // What is staged already is never above the limit: the share may be smaller than last time.
        stage_bytes: shared.stage_share().max(staged_bytes),
        commit_bytes: shared.settings.commit_bytes_max,
        commit_after: shared.settings.commit_delay,
    }
}
