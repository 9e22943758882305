//! The shared part of an agent's tasks: the machine under its lock, and the queues of its effects.
//!
//! The lock is taken for one synchronous step, never across a wait (decision 0001). Whoever steps
//! hands the effects to the queues; workers take them from there.

use super::guarded::Orphans;
use super::settings::AgentSettings;
use super::trouble::{Concern, Troubles};
use super::waiters::{Waiters, Waiting};
use crate::tasks::Tasks;
use bytes::Bytes;
use redoubt_core::agent::{AgentEffect, AgentEvent, AgentMachine, Note, Rest};
use redoubt_core::agent_state::encode_slot;
use redoubt_core::change::ResyncReason;
use redoubt_core::extent_map::Persist;
use redoubt_core::message::{HashRequest, MarksRequest};
use redoubt_core::resync::Progress;
use redoubt_core::sealed::SealedBatch;
use redoubt_core::splitter::{IoId, Op};
use redoubt_core::spool::SpillWork;
use redoubt_core::{Extent, Instant, Marker, MarkerId, MarkerKind, VolumeId, VolumeIndex, WriteSeq};
use redoubt_ports::{Disk, File, IoError, World};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// What the link task sends in the current session.
pub(super) enum Outgoing {
    Batch(SealedBatch),
    Ask(HashRequest),
    AskMarks(MarksRequest),
    Close(&'static str),
}

/// A read that the machine asked for.
pub(super) struct ReadBack {
    pub(super) volume: VolumeIndex,
    pub(super) io: IoId,
    pub(super) extent: Extent,
    pub(super) purpose: Purpose,
}

/// What a read is for.
pub(super) enum Purpose {
    /// What a failed write left.
    Recapture,
    /// A run of the resync.
    Resync { with_digests: bool },
}

/// One volume's world.
#[derive(Clone)]
pub(super) struct VolumeShell {
    pub(super) name: String,
    pub(super) disk_name: String,
    pub(super) id: VolumeId,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) log: Arc<dyn File>,
}

pub(super) struct Core {
    pub(super) machine: AgentMachine,
    pub(super) volumes: BTreeMap<VolumeIndex, VolumeShell>,
    pub(super) waiters: Waiters,
    /// Taken by each step and given back empty: a write allocates none.
    pub(super) effects: Vec<AgentEffect>,
    pub(super) outgoing: VecDeque<Outgoing>,
    pub(super) spill: VecDeque<SpillWork>,
    pub(super) persists: VecDeque<(VolumeIndex, Persist)>,
    pub(super) reads: VecDeque<ReadBack>,
    pub(super) is_state_wanted: bool,
    pub(super) state_counter: u64,
    pub(super) is_stopping: bool,
    /// No tick is needed before [`Shell::tick_wake`].
    pub(super) is_resting: bool,
    pub(super) troubles: Troubles,
    pub(super) last_marker: WriteSeq,
    pub(super) stage_losses: u64,
    pub(super) forks: u64,
}

/// Everything the tasks of an agent share.
pub(super) struct Shell {
    pub(super) settings: AgentSettings,
    pub(super) world: World,
    pub(super) state: Arc<dyn File>,
    pub(super) core: Mutex<Core>,
    pub(super) link_wake: Notify,
    pub(super) spill_wake: Notify,
    pub(super) persist_wake: Notify,
    pub(super) state_wake: Notify,
    pub(super) read_wake: Notify,
    /// The machine's rest is over.
    pub(super) tick_wake: Notify,
    pub(super) orphans: Orphans,
    /// Something a stop waits for has moved.
    pub(super) progress: Notify,
    pub(super) tasks: Tasks,
}

impl Shell {
    pub(super) fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Instant {
        self.world.clock.now()
    }

    /// Takes one step and queues its effects.
    pub(super) fn step(&self, event: AgentEvent) {
        self.step_in(&mut self.lock(), event);
    }

    /// As [`Shell::step`], for a caller that holds the lock. Returns the marker cut by this step.
    pub(super) fn step_in(&self, core: &mut Core, event: AgentEvent) -> Option<MarkerId> {
        let mut effects = std::mem::take(&mut core.effects);
        let now = self.now();
        core.machine.step(now, event, &mut effects);
        if core.is_resting && core.machine.rest(now) == Rest::None {
            core.is_resting = false;
            self.tick_wake.notify_one();
        }
        let (cut, due) = self.perform(core, effects.drain(..));
        core.effects = effects;
        // Another step: its effects come behind all of this one's.
        due.and_then(|kind| self.marker_due(core, kind)).or(cut)
    }

    /// As [`Shell::step_in`], for a guest that must know when `io` is started or completed.
    pub(super) fn ask(&self, core: &mut Core, io: IoId, event: AgentEvent) -> Waiting {
        core.waiters.ask(io);
        self.step_in(core, event);
        core.waiters.asked(io)
    }

    /// Queues effects. Returns the marker that was cut and the one that is due.
    fn perform(
        &self,
        core: &mut Core,
        effects: impl Iterator<Item = AgentEffect>,
    ) -> (Option<MarkerId>, Option<MarkerKind>) {
        let (mut cut, mut due) = (None, None);
        for effect in effects {
            match effect {
                AgentEffect::Start { volume, io, op } => self.start_op(core, volume, io, op),
                AgentEffect::Complete { io, result } => core.waiters.answer(io, result),
                AgentEffect::Persist { volume, persist } => {
                    core.persists.push_back((volume, persist));
                    self.persist_wake.notify_one();
                }
                AgentEffect::WriteState => {
                    core.is_state_wanted = true;
                    self.state_wake.notify_one();
                }
                AgentEffect::Spill(work) => {
                    core.spill.push_back(work);
                    self.spill_wake.notify_one();
                }
                AgentEffect::Send(batch) => self.out(core, Outgoing::Batch(batch)),
                AgentEffect::AskHashes(request) => self.out(core, Outgoing::Ask(request)),
                AgentEffect::AskMarks(request) => self.out(core, Outgoing::AskMarks(request)),
                AgentEffect::CloseSession(why) => self.out(core, Outgoing::Close(why)),
                AgentEffect::MarkerDue(kind) => due = Some(kind),
                AgentEffect::MarkerCut { marker, seq } => {
                    core.last_marker = seq;
                    cut = Some(marker.id);
                }
                AgentEffect::Note(note) => self.note(core, note),
            }
        }
        (cut, due)
    }

    fn start_op(&self, core: &mut Core, volume: VolumeIndex, io: IoId, op: Op) {
        match op {
            Op::ResyncRead { extent } => {
                let with_digests = core.machine.wants_digests(volume, extent);
                self.read(core, ReadBack { volume, io, extent, purpose: Purpose::Resync { with_digests } });
            }
            Op::Recapture { extent } => {
                self.read(core, ReadBack { volume, io, extent, purpose: Purpose::Recapture });
            }
            _ => core.waiters.answer(io, Ok(())),
        }
    }

    fn read(&self, core: &mut Core, read: ReadBack) {
        core.reads.push_back(read);
        self.read_wake.notify_one();
    }

    fn out(&self, core: &mut Core, message: Outgoing) {
        core.outgoing.push_back(message);
        self.link_wake.notify_one();
    }

    fn marker_due(&self, core: &mut Core, kind: MarkerKind) -> Option<MarkerId> {
        let is_quiet = core.machine.watermarks().issued() <= core.last_marker;
        if is_quiet && !self.settings.markers.when_quiet {
            return None;
        }
        let marker = self.new_marker(kind);
        self.step_in(core, AgentEvent::CutMarker(marker))
    }

    /// Makes an identity whose upper bits are the wall time.
    pub(super) fn new_marker(&self, kind: MarkerKind) -> Marker {
        let wall = self.world.clock.wall();
        let random = self.world.entropy.id() & ((1 << 80) - 1);
        let id = MarkerId((u128::from(wall.0) & ((1 << 48) - 1)) << 80 | random);
        Marker { id, kind, wall }
    }

    fn note(&self, core: &mut Core, note: Note) {
        let machine = core.machine.machine();
        match note {
            Note::ResyncBegan { reason, blocks } => {
                tracing::info!(role = "agent", %machine, ?reason, blocks, "{}", why_resync(reason));
            }
            Note::ResyncEnded(progress) => {
                let Progress { total, compared, sent, skipped } = progress;
                tracing::info!(
                    role = "agent", %machine, total, compared, sent, skipped,
                    "the resync is complete; the stream is exact"
                );
            }
            Note::LogWhole => {
                core.troubles.end(Concern::Log);
                tracing::info!(role = "agent", %machine, "the activity log holds every mark again");
            }
            Note::Seeded => {
                tracing::info!(role = "agent", %machine, "the vault holds a seed; only what differs is sent");
            }
            Note::MarksDisowned => {
                tracing::warn!(role = "agent", %machine, "the vault knows that marks are missing");
            }
            Note::MarksVoid => tracing::warn!(
                role = "agent", %machine,
                "the last run's state directory did not answer to its end: everything is compared"
            ),
            Note::VaultWentBack { from, to } => {
                let what = format!(
                    "the vault had confirmed everything up to {from} and now ends at {to}: it was restored from an old copy or lost objects; everything is compared, points made in between are gone"
                );
                tracing::error!(role = "agent", %machine, "{what}");
                core.troubles.begin(Concern::Order, what);
            }
            Note::OrderLost
            | Note::Fork
            | Note::StageLost
            | Note::SpillLost
            | Note::LogGivenUp { .. }
            | Note::LogFailing(_) => {
                core.forks += u64::from(note == Note::Fork);
                core.stage_losses += u64::from(note == Note::StageLost);
                let (concern, what) = trouble_of(note);
                tracing::warn!(role = "agent", %machine, "{what}");
                core.troubles.begin(concern, what);
            }
        }
    }

    /// Remembers trouble for the status.
    pub(super) fn trouble(&self, concern: Concern, error: impl std::fmt::Display) {
        tracing::warn!(role = "agent", machine = %self.settings.machine, "{error}");
        self.lock().troubles.begin(concern, error.to_string());
    }

    /// What was in trouble works.
    pub(super) fn works(&self, concern: Concern) {
        self.lock().troubles.end(concern);
    }

    /// Writes the agent's record if it is wanted; returns whether it was.
    pub(super) async fn write_state(&self) -> bool {
        let (counter, slot) = {
            let mut core = self.lock();
            if !std::mem::take(&mut core.is_state_wanted) {
                return false;
            }
            core.state_counter += 1;
            (core.state_counter, encode_slot(core.state_counter, &core.machine.record()))
        };
        let result = write_slot(&*self.state, counter, slot).await;
        if let Err(error) = &result {
            // The next attempt goes to the same slot: the other one holds the record that is good.
            self.lock().state_counter = counter - 1;
            self.trouble(Concern::Record, error);
        } else {
            self.works(Concern::Record);
        }
        self.step(AgentEvent::StateWritten { ok: result.is_ok() });
        self.progress.notify_one();
        true
    }

    /// Writes the next wanted activity log pages; returns whether there were any.
    pub(super) async fn write_log(&self) -> bool {
        let (volume, persist, log) = {
            let mut core = self.lock();
            let Some((volume, persist)) = core.persists.pop_front() else { return false };
            let Some(shell) = core.volumes.get(&volume) else { return true };
            (volume, persist, Arc::clone(&shell.log))
        };
        let result = write_pages(&*log, &persist).await;
        if let Err(error) = &result {
            self.trouble(Concern::Log, error);
        }
        self.step(AgentEvent::Persisted { volume, ok: result.is_ok() });
        self.progress.notify_one();
        true
    }
}

/// Says what is wrong, and what follows.
fn trouble_of(note: Note) -> (Concern, String) {
    let order = match note {
        Note::Fork => "the vault holds another history; everything is compared",
        Note::StageLost => "the process server lost its stage; what it held is copied again",
        Note::SpillLost => "a spill file cannot be read; what it held is copied again",
        Note::LogGivenUp { is_told } => {
            let follows = if is_told {
                "the vault knows; after a crash everything would be compared"
            } else {
                "nobody could be told: a crash now could go unnoticed by the next start"
            };
            return (
                Concern::Log,
                format!("the activity log does not answer, guests go on without it; {follows}"),
            );
        }
        Note::LogFailing(count) => {
            let what =
                format!("the activity log failed {count} times; after a crash everything would be compared");
            return (Concern::Log, what);
        }
        _ => {
            "the spool is full, order is lost: only the places that differ are known, and a resync will follow"
        }
    };
    (Concern::Order, order.to_owned())
}

/// Says what really happened before a resync.
fn why_resync(reason: ResyncReason) -> &'static str {
    match reason {
        ResyncReason::Initial => "the first copy begins",
        ResyncReason::UncleanStop => "the last run ended without a clean stop: hot extents are compared",
        ResyncReason::Overflow => "the spool has drained: what was written without order is copied",
        ResyncReason::StageLost => "what the process server lost is copied again",
        ResyncReason::Fork => "the histories differ: everything is compared",
        ResyncReason::Untracked => "disks changed while they were not tracked: they are compared as a whole",
        ResyncReason::Requested => "a resync was asked for",
    }
}

/// Writes one slot of the record durably.
pub(super) async fn write_slot(file: &dyn File, counter: u64, slot: Vec<u8>) -> Result<(), IoError> {
    let offset = counter % 2 * redoubt_core::agent_state::SLOT_BYTES as u64;
    file.write_at(offset, &[Bytes::from(slot)]).await?;
    file.sync().await
}

async fn write_pages(file: &dyn File, persist: &Persist) -> Result<(), IoError> {
    for (offset, page) in &persist.writes {
        file.write_at(*offset, std::slice::from_ref(page)).await?;
    }
    file.sync().await
}
