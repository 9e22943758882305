//! The process server's process: receiver, stage files, and a vault that is simply right.

use super::disk::{Disk, Found, START};
use super::{Bounds, Image, Truth};
use redoubt_core::batch_file::STAGE_MAGIC;
use redoubt_core::message::Message;
use redoubt_core::receiver::{
    COMMITS_AT_ONCE, Receiver, ReceiverEffect, ReceiverEvent, ReceiverLimits, ReceiverState, SessionId,
    Verdict, judge,
};
use redoubt_core::{BatchPosition, Chain, Generation, Instant, SealedBatch};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

pub(crate) struct Server {
    bounds: Bounds,
    receiver: Receiver,
    disk: Disk,
    entries: Vec<Found>,
    file: Option<u64>,
    work: VecDeque<ReceiverEffect>,
    generation: Generation,
    accepted: Chain,
    vault: BatchPosition,
    in_vault: BTreeSet<Chain>,
    committing: VecDeque<BatchPosition>,
    generations: BTreeMap<SessionId, Generation>,
    restart: bool,
    pub(crate) stage_fails: bool,
    pub(crate) closed: Vec<SessionId>,
    pub(crate) outgoing: Vec<(SessionId, Message)>,
}

fn receiver(now: Instant, bounds: Bounds, found: ReceiverState) -> Receiver {
    let limits =
        ReceiverLimits { stage_bytes: bounds.stage, commit_bytes: 500, commit_after: Duration::from_secs(5) };
    Receiver::new(now, super::MACHINE, limits, found)
}

impl Server {
    pub(crate) fn new(bounds: Bounds) -> Server {
        Server {
            bounds,
            receiver: receiver(Instant(0), bounds, ReceiverState::default()),
            disk: Disk::new(STAGE_MAGIC),
            entries: Vec::new(),
            file: None,
            work: VecDeque::new(),
            generation: Generation(0),
            accepted: START.chain,
            vault: START,
            in_vault: BTreeSet::from([START.chain]),
            committing: VecDeque::new(),
            generations: BTreeMap::new(),
            restart: false,
            stage_fails: false,
            closed: Vec::new(),
            outgoing: Vec::new(),
        }
    }

    pub(crate) fn vaulted(&self) -> BatchPosition {
        self.receiver.vaulted()
    }

    pub(crate) fn restart_wanted(&mut self) -> bool {
        std::mem::take(&mut self.restart)
    }

    pub(crate) fn check(&self) {
        let waiting = self.entries.iter().filter(|entry| entry.meta.last > self.vault.seq);
        let bytes: u64 = waiting.map(|entry| u64::from(entry.meta.bytes)).sum();
        assert!(bytes <= self.bounds.stage, "O-4: {bytes} bytes staged");
    }

    pub(crate) fn step(&mut self, now: Instant, event: ReceiverEvent, truth: &mut Truth) {
        if let ReceiverEvent::Hello { session, hello, .. } = &event {
            self.generations.insert(*session, hello.generation);
        }
        let mut effects = Vec::new();
        self.receiver.step(now, event, &mut effects);
        for effect in effects {
            match effect {
                ReceiverEffect::Transmit(session, message) => self.transmit(session, message, truth),
                ReceiverEffect::Close(session) => self.closed.push(session),
                ReceiverEffect::StageAppend(batch) => {
                    self.judge(&batch, truth);
                    self.work.push_back(ReceiverEffect::StageAppend(batch));
                }
                ReceiverEffect::Commit { through } => {
                    let last = self.committing.back().map_or(self.vault.seq, |last| last.seq);
                    assert!(through.seq > last, "RC-8: a commit begins behind the one before it");
                    self.committing.push_back(through);
                    assert!(self.committing.len() <= COMMITS_AT_ONCE, "RC-8: too many commits");
                }
                ReceiverEffect::Restart => self.restart = true,
                ReceiverEffect::Hash(_) | ReceiverEffect::LookAtMarks(..) => panic!("nothing was asked"),
                ReceiverEffect::HistoryReplaced { .. } => {}
                work => self.work.push_back(work),
            }
        }
    }

    /// O-1: the batch turns the image before it into the source's image with it.
    fn judge(&mut self, batch: &SealedBatch, truth: &Truth) {
        let empty = Image::new();
        let mut image = truth.sealed.get(&self.accepted).map_or(&empty, |sealed| &sealed.image).clone();
        let sealed = truth.sealed.get(&batch.meta.chain).expect("O-1: only what was pushed is accepted");
        image.extend(sealed.content.iter().map(|(block, version)| (*block, *version)));
        assert_eq!(image, sealed.image, "O-1: {:?} does not give the source's image", batch.meta);
        self.accepted = batch.meta.chain;
    }

    fn transmit(&mut self, session: SessionId, message: Message, truth: &mut Truth) {
        let claimed = match &message {
            Message::Ack { staged, vaulted, .. } => Some((*staged, *vaulted)),
            Message::Welcome(welcome) => Some((welcome.staged, welcome.vaulted)),
            _ => None,
        };
        if let Some((staged, vaulted)) = claimed {
            let is_vaulted = |position: BatchPosition| self.in_vault.contains(&position.chain);
            assert!(is_vaulted(vaulted), "O-2: {vaulted:?} is not in the vault");
            let durable = is_vaulted(staged) || self.disk.durable().contains(&staged.chain);
            assert!(durable, "O-2: {staged:?} was acknowledged and is not durable");
        }
        if matches!(message, Message::Welcome(_)) {
            let generation = self.generations[&session];
            assert!(generation >= truth.welcomed, "O-5: {generation} after {}", truth.welcomed);
            assert!(self.generation >= generation, "O-5: {generation} is not durable");
            truth.welcomed = generation;
        }
        self.outgoing.push((session, message));
    }

    /// Performs one piece of work on the stage's disk.
    pub(crate) fn stage_work(&mut self, now: Instant, truth: &mut Truth) {
        let Some(work) = self.work.pop_front() else { return };
        if std::mem::take(&mut self.stage_fails) {
            self.work.clear();
            return self.step(now, ReceiverEvent::StageFailed, truth);
        }
        match work {
            ReceiverEffect::StageAppend(batch) => {
                let file = *self.file.get_or_insert_with(|| {
                    let next = self.disk.next_file();
                    self.disk.create(next);
                    next
                });
                let offset = self.disk.len(file);
                self.disk.append(file, offset, &batch);
                self.entries.push(Found { meta: batch.meta, file, offset });
            }
            ReceiverEffect::StageSync { ticket } => {
                self.disk.sync();
                truth.ever_durable.extend(self.entries.iter().map(|entry| entry.meta.chain));
                self.step(now, ReceiverEvent::StageSynced { ticket }, truth);
            }
            ReceiverEffect::StageTrim { through } => {
                self.entries.retain(|entry| entry.meta.last > through);
                let first = self.entries.first().map(|entry| entry.file).or(self.file);
                if let Some(first) = first {
                    self.disk.remove_below(first);
                }
            }
            ReceiverEffect::PersistGeneration(generation) => {
                self.generation = generation;
                self.step(now, ReceiverEvent::GenerationPersisted(generation), truth);
            }
            other => panic!("no work: {other:?}"),
        }
    }

    fn commit(&mut self) -> Option<BatchPosition> {
        let through = self.committing.pop_front()?;
        let durable = self.disk.durable();
        assert!(durable.contains(&through.chain), "only what is durable is committed");
        let batches = self.entries.iter().filter(|entry| entry.meta.last <= through.seq);
        self.in_vault.extend(batches.map(|entry| entry.meta.chain));
        self.vault = through;
        Some(through)
    }

    pub(crate) fn commit_ends(&mut self, now: Instant, ok: bool, truth: &mut Truth) {
        if self.committing.is_empty() {
            return;
        }
        let event = match ok.then(|| self.commit()).flatten() {
            Some(vaulted) => ReceiverEvent::CommitDone { vaulted },
            None => {
                self.committing.clear();
                ReceiverEvent::CommitFailed
            }
        };
        self.step(now, event, truth);
    }

    /// The process dies; with `torn`, the host loses power and that many unsynced bytes of each file remain.
    pub(crate) fn crash(&mut self, now: Instant, torn: Option<usize>, committed: bool, truth: &mut Truth) {
        if committed {
            self.commit();
        }
        if let Some(torn) = torn {
            self.disk.lose_power(torn);
        }
        self.committing.clear();
        self.work.clear();
        self.file = None;
        self.restart = false;
        let (_, found) = self.disk.recover();
        let mut end = self.vault;
        self.entries.clear();
        for entry in found {
            match judge(&entry.meta, end) {
                Verdict::Duplicate => {}
                Verdict::Accept => {
                    end = entry.meta.position();
                    self.entries.push(entry);
                }
                Verdict::Gap | Verdict::Fork => break,
            }
        }
        let staged: Vec<_> = self.entries.iter().map(|entry| entry.meta).collect();
        truth.ever_durable.extend(staged.iter().map(|meta| meta.chain));
        self.accepted = end.chain;
        let found = ReceiverState { generation: self.generation, vaulted: self.vault, staged, exact: false };
        self.receiver = receiver(now, self.bounds, found);
    }

    /// The last staged batch is damaged and the server restarts: acknowledged data may be gone.
    pub(crate) fn rot(&mut self, now: Instant, truth: &mut Truth) {
        self.disk.rot_last();
        self.crash(now, None, false, truth);
    }
}
