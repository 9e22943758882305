//! The owner of one machine: performs what its receiver decides.
//!
//! Receiving never waits for a sync, a commit or a digest: those run in tasks of their own and come back
//! as events. Appends are done in place, in the order of the stream.
//!
//! Invariants
//! - AC-1 The receiver learns of every effect's outcome; what came of an effect of an earlier receiver or
//!   session is dropped.
//! - AC-2 After a failed append or sync only what an earlier sync covered is kept (RC-2).
//!
//! What is *not* here: decisions (`core::receiver`), sockets (`connection`).

use super::connection::refused;
use super::exactness::{self, Known};
use super::generation;
use super::hasher::Hasher;
use super::opening::{self, OpenError, Opened};
use super::outbox::Outbox;
use super::packer::{PAUSE_FIRST, PAUSE_MAX, Packer, Report};
use super::settings::PsMachineStatus;
use super::shared::{Shared, stopped};
use super::stage::Stage;
use redoubt_core::message::{Hello, Message, RefusedReason};
use redoubt_core::receiver::{
    Receiver, ReceiverEffect, ReceiverEvent, ReceiverLimits, ReceiverState, SessionId,
};
use redoubt_core::{BatchPosition, Generation, Instant, MachineId, WriteSeq};
use redoubt_ports::IoError;
use redoubt_vault::VaultError;
use redoubt_wire::StreamKey;
use std::collections::BTreeMap;
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
    Hello { session: SessionId, hello: Hello, outbox: Arc<Outbox> },
    /// A later message of a session.
    Received(SessionId, Message),
    /// The connection ended.
    Gone(SessionId),
}

/// Runs the machine until the process server stops.
pub(super) async fn run(
    shared: Arc<Shared>,
    machine: MachineId,
    key: StreamKey,
    mut mailbox: mpsc::Receiver<ToActor>,
) {
    let Some((opened, early)) = open(&shared, machine, &key, &mut mailbox).await else { return };
    let mut actor = Actor::new(shared, machine, key, opened);
    if let Some((session, (hello, outbox))) = early {
        actor.take(ToActor::Hello { session, hello, outbox }).await;
    }
    actor.serve(&mut mailbox).await;
    actor.stop().await;
}

type Early = Option<(SessionId, (Hello, Arc<Outbox>))>;

/// Opens the machine, again and again until it works. The newest agent waits for the first attempt's
/// end; between attempts agents are refused. `None` if the process server stops.
async fn open(
    shared: &Arc<Shared>,
    machine: MachineId,
    key: &StreamKey,
    mailbox: &mut mpsc::Receiver<ToActor>,
) -> Option<(Opened, Early)> {
    let mut pause = PAUSE_FIRST;
    let mut early: Early = None;
    loop {
        let mut opening = std::pin::pin!(opening::open(shared, machine, key));
        let outcome = loop {
            tokio::select! {
                biased;
                () = stopped(shared.stop.clone()) => return None,
                outcome = &mut opening => break outcome,
                Some(message) = mailbox.recv() => match message {
                    ToActor::Hello { session, hello, outbox } => {
                        if let Some((_, (_, older))) = early.replace((session, (hello, outbox))) {
                            end(&older, RefusedReason::Replaced, String::new());
                        }
                    }
                    ToActor::Gone(session) => early = early.filter(|(waiting, _)| *waiting != session),
                    ToActor::Received(..) => {}
                },
            }
        };
        let error = match outcome {
            Ok(opened) => return Some((opened, early)),
            Err(error) => error,
        };
        let is_fenced = matches!(error, OpenError::Vault(VaultError::Fenced { .. }));
        let reason = if is_fenced { RefusedReason::Fenced } else { RefusedReason::Busy };
        tracing::warn!(%machine, %error, "cannot open the machine");
        let status = PsMachineStatus {
            generation: Generation::default(),
            is_connected: false,
            staged: BatchPosition::default(),
            vaulted: BatchPosition::default(),
            stage_bytes: 0,
            is_fenced,
            last_error: Some(error.to_string()),
        };
        shared.publish(machine, status);
        if let Some((_, (_, outbox))) = early.take() {
            end(&outbox, reason, error.to_string());
        }
        let mut rest = std::pin::pin!(tokio::time::sleep(pause));
        pause = (pause * 2).min(PAUSE_MAX);
        loop {
            tokio::select! {
                biased;
                () = stopped(shared.stop.clone()) => return None,
                // A fenced machine stays refused: the other process server has it.
                () = &mut rest, if !is_fenced => break,
                Some(message) = mailbox.recv() => if let ToActor::Hello { outbox, .. } = message {
                    end(&outbox, reason, error.to_string());
                },
            }
        }
    }
}

fn end(outbox: &Outbox, reason: RefusedReason, detail: String) {
    outbox.push(refused(reason, detail));
    outbox.close();
}

/// A task whose outcome is an event, while it runs.
type Running<T> = Option<(T, JoinHandle<Result<(), IoError>>)>;

/// Waits for the task's end; for ever if there is none. A task that panicked counts as failed.
async fn outcome<T: Copy>(running: &mut Running<T>) -> (T, Result<(), IoError>) {
    let Some((what, task)) = running else { return std::future::pending().await };
    let result = task.await.unwrap_or_else(|error| {
        let kind = redoubt_ports::IoKind::Device;
        Err(IoError::new(kind, "sync the stage", error.to_string()))
    });
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
    hasher: Hasher,
    /// Exactness at a position that is vaulted or was asked for.
    known: Known,
    syncing: Running<u64>,
    saving: Running<Generation>,
    outboxes: BTreeMap<SessionId, Arc<Outbox>>,
    newest_session: Option<SessionId>,
    generation: Generation,
    connected: Option<SessionId>,
    is_fenced: bool,
    last_error: Option<String>,
    /// Agents are refused until then, because the stage failed.
    refused_until: Instant,
    stage_pause: Duration,
    /// After a failure: what is kept of the stage. Set while the cut has not succeeded yet.
    cut_after: Option<WriteSeq>,
}

/// What wakes the actor.
enum Wake {
    Stop,
    Synced(u64, Result<(), IoError>),
    Saved(Generation, Result<(), IoError>),
    Packed(Report),
    Hashed(SessionId, redoubt_core::message::HashReply),
    Tick,
    Mail(ToActor),
}

impl Actor {
    fn new(shared: Arc<Shared>, machine: MachineId, key: StreamKey, opened: Opened) -> Actor {
        let Opened { stage, state, known, vault, packer } = opened;
        let now = shared.world.clock.now();
        let generation = state.generation;
        let limits = limits(&shared, stage.bytes());
        let actor = Actor {
            receiver: Receiver::new(now, machine, limits, state),
            hasher: Hasher::start(vault, machine),
            shared,
            machine,
            key,
            stage,
            packer,
            known,
            syncing: None,
            saving: None,
            outboxes: BTreeMap::new(),
            newest_session: None,
            generation,
            connected: None,
            is_fenced: false,
            last_error: None,
            refused_until: now,
            stage_pause: PAUSE_FIRST,
            cut_after: None,
        };
        actor.publish();
        actor
    }

    fn now(&self) -> Instant {
        self.shared.world.clock.now()
    }

    async fn serve(&mut self, mailbox: &mut mpsc::Receiver<ToActor>) {
        loop {
            match self.wake(mailbox).await {
                Wake::Stop => return,
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
                Wake::Hashed(session, reply) if Some(session) == self.newest_session => {
                    self.step(ReceiverEvent::Hashed(reply)).await;
                }
                Wake::Hashed(..) => {}
                Wake::Tick => self.tick().await,
                Wake::Mail(message) => self.take(message).await,
            }
            self.publish();
        }
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
                Some(delay) => tokio::time::sleep(delay).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = stopped(self.shared.stop.clone()) => Wake::Stop,
            (ticket, result) = outcome(&mut self.syncing) => Wake::Synced(ticket, result),
            (generation, result) = outcome(&mut self.saving) => Wake::Saved(generation, result),
            report = self.packer.report() => Wake::Packed(report),
            (session, reply) = self.hasher.answer() => Wake::Hashed(session, reply),
            () = tick => Wake::Tick,
            Some(message) = mailbox.recv() => Wake::Mail(message),
        }
    }

    async fn take(&mut self, message: ToActor) {
        match message {
            ToActor::Hello { session, hello, outbox } => {
                if self.cut_after.is_some() || self.now() < self.refused_until {
                    let detail = self.last_error.clone().unwrap_or_default();
                    end(&outbox, RefusedReason::StageFailed, detail);
                    return;
                }
                self.outboxes.insert(session, outbox);
                self.newest_session = Some(session);
                self.known = exactness::at_end(self.stage.entries(), &self.key, self.known).await;
                self.step(ReceiverEvent::Exact(self.known.is_exact)).await;
                let generation = hello.generation;
                self.step(ReceiverEvent::Hello { session, hello, proven: true }).await;
                if self.outboxes.contains_key(&session) {
                    self.generation = self.generation.max(generation);
                }
            }
            ToActor::Received(session, message) if self.outboxes.contains_key(&session) => {
                self.step(ReceiverEvent::Received(session, message)).await;
            }
            ToActor::Received(..) => {}
            ToActor::Gone(session) => {
                self.step(ReceiverEvent::Gone(session)).await;
                self.forget(session);
            }
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

    async fn perform(&mut self, effect: ReceiverEffect) -> Result<(), IoError> {
        match effect {
            ReceiverEffect::Transmit(session, message) => {
                if matches!(message, Message::Welcome(_)) {
                    self.connected = Some(session);
                }
                if let Some(outbox) = self.outboxes.get(&session) {
                    outbox.push(message);
                }
            }
            ReceiverEffect::Close(session) => self.forget(session),
            ReceiverEffect::PersistGeneration(generation) => {
                let (files, machine) = (self.shared.world.files.clone(), self.machine);
                let before = self.saving.take();
                let save = async move {
                    // One writer of the record at a time.
                    if let Some((_, task)) = before {
                        let _ = task.await;
                    }
                    generation::save(&*files, machine, generation).await
                };
                self.saving = Some((generation, tokio::spawn(save)));
            }
            ReceiverEffect::StageAppend(batch) => self.stage.append(batch).await?,
            ReceiverEffect::StageSync { ticket } => {
                let job = self.stage.sync_job();
                self.syncing = Some((ticket, tokio::spawn(job.run())));
            }
            ReceiverEffect::StageTrim { through } => self.stage.trim(through).await,
            ReceiverEffect::Commit { through } => self.commit(through),
            ReceiverEffect::Hash(request) => {
                if let Some(session) = self.newest_session {
                    self.hasher.ask(session, request);
                }
            }
            ReceiverEffect::HistoryReplaced { at, by } => {
                let (machine, at, by) = (self.machine, at.seq, by.first);
                tracing::warn!(%machine, %at, %by, "a resync replaced a lost history");
            }
            // Performed by `stage_failed`, the only one who reports a failure.
            ReceiverEffect::Restart => {}
        }
        Ok(())
    }

    /// Begins to commit the oldest batches, as many as one commit may hold. One in flight already is
    /// left alone: its end makes the receiver ask again.
    fn commit(&mut self, through: BatchPosition) {
        if self.packer.is_busy() {
            return;
        }
        let mut bytes = 0;
        let staged = self.stage.entries().iter().take_while(|entry| entry.meta.last <= through.seq);
        let job = staged.take_while(|entry| {
            let is_first = bytes == 0;
            bytes += u64::from(entry.meta.bytes);
            is_first || bytes <= self.shared.settings.commit_bytes_max
        });
        let job = job.cloned().collect();
        if !self.packer.begin(job) {
            tracing::error!(machine = %self.machine, "the packer takes no job");
        }
    }

    async fn packed(&mut self, report: Report) {
        match report {
            Report::Done { position, is_exact } => {
                self.last_error = None;
                if position.seq > self.known.seq {
                    self.known = Known { seq: position.seq, is_exact };
                }
                if position.seq <= self.receiver.staged().seq {
                    self.step(ReceiverEvent::CommitDone { vaulted: position }).await;
                } else {
                    self.last_error = Some("the vault is ahead of the stage".to_owned());
                    self.step(ReceiverEvent::CommitFailed).await;
                }
            }
            Report::Trouble(why) => {
                tracing::warn!(machine = %self.machine, why, "the commit is tried again");
                self.last_error = Some(why);
            }
            Report::Fenced(why) => {
                tracing::error!(machine = %self.machine, why, "this process server lost the machine");
                self.is_fenced = true;
                self.last_error = Some(why);
                self.step(ReceiverEvent::Fenced).await;
            }
            Report::Unusable { from, why } => {
                let what = format!("commit the staged batch at sequence {from}");
                let error = IoError::new(redoubt_ports::IoKind::Device, what, why);
                let before = WriteSeq(from.0.saturating_sub(1)).min(self.receiver.staged().seq);
                self.stage_failed(&error, before).await;
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

    /// Ends the session, keeps what is durable up to the sequence, and goes on with a new receiver (AC-2).
    async fn stage_failed(&mut self, error: &IoError, keep: WriteSeq) {
        tracing::error!(machine = %self.machine, %error, "the stage failed; its durable part is kept");
        self.last_error = Some(error.to_string());
        let mut effects = Vec::new();
        self.receiver.step(self.now(), ReceiverEvent::StageFailed, &mut effects);
        for effect in effects {
            if let ReceiverEffect::Transmit(session, message) = effect
                && let Some(outbox) = self.outboxes.get(&session)
            {
                outbox.push(message);
            }
        }
        std::mem::take(&mut self.outboxes).values().for_each(|outbox| outbox.close());
        self.connected = None;
        self.newest_session = None;
        let syncing = self.syncing.take().map(|(_, task)| task);
        for task in syncing.into_iter().chain(self.saving.take().map(|(_, task)| task)) {
            // Not cancelled: it must not touch the files after the cut.
            let _ = task.await;
        }
        self.cut_after = Some(keep);
        self.rebuild().await;
    }

    /// Cuts the stage and makes a receiver of what is left. After a failure it is tried again later.
    async fn rebuild(&mut self) {
        let Some(keep) = self.cut_after else { return };
        self.refused_until = self.now().after(self.stage_pause);
        self.stage_pause = (self.stage_pause * 2).min(PAUSE_MAX);
        let kept = self.stage.entries().iter().take_while(|entry| entry.meta.last <= keep).count();
        if let Err(error) = self.stage.cut(kept).await {
            tracing::error!(machine = %self.machine, %error, "cannot cut the stage; trying again later");
            self.last_error = Some(error.to_string());
            return;
        }
        let vaulted = self.receiver.vaulted();
        let end = self.stage.entries().back().map_or(vaulted.seq, |entry| entry.meta.last);
        if self.known.seq > end {
            // It spoke of what was cut. Inexact is the safe answer until a commit tells.
            self.known = Known { seq: vaulted.seq, is_exact: false };
        }
        let staged = self.stage.entries().iter().map(|entry| entry.meta).collect();
        let (generation, exact) = (self.generation, self.known.is_exact);
        let state = ReceiverState { generation, vaulted, staged, exact };
        let limits = limits(&self.shared, self.stage.bytes());
        self.receiver = Receiver::new(self.now(), self.machine, limits, state);
        self.cut_after = None;
        if self.is_fenced {
            // No session exists yet, hence no effects.
            self.receiver.step(self.now(), ReceiverEvent::Fenced, &mut Vec::new());
        }
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

    async fn stop(mut self) {
        if let Some((ticket, result)) = self.last_sync().await
            && result.is_ok()
        {
            self.step(ReceiverEvent::StageSynced { ticket }).await;
        }
        self.outboxes.values().for_each(|outbox| outbox.close());
        self.packer.drain(COMMIT_DRAIN).await;
    }

    async fn last_sync(&mut self) -> Option<(u64, Result<(), IoError>)> {
        self.syncing.as_ref()?;
        Some(outcome(&mut self.syncing).await)
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
