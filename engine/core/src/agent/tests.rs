//! The whole machine over a desk that performs its effects at once, except what a test holds back.

use super::*;
use crate::change::Change;
use crate::extent_log::LogImage;
use crate::extent_map::{BLOCK_SECTORS, EXTENT_SECTORS, blocks_in};
use crate::message::{HashReply, HashRequest, MarksReply, MarksRequest, Welcome};
use crate::resync::RunRead;
use crate::sealed::SealedFlags;
use crate::splitter::{IoFailure, Op};
use bytes::Bytes;

mod marks;

const VOLUME: VolumeIndex = VolumeIndex(0);

fn sealer() -> Sealer {
    Box::new(|batch, prev| {
        let opener = batch.records.iter().find(|record| !matches!(record.change, Change::Attach { .. }));
        let opens = opener.is_some_and(|record| matches!(record.change, Change::ResyncBegin { .. }));
        let mut hasher = blake3::Hasher::new();
        hasher.update(&prev.0).update(&batch.first().0.to_le_bytes()).update(&batch.last().0.to_le_bytes());
        let meta = SealedMeta {
            machine: MachineId(1),
            generation: batch.generation,
            first: batch.first(),
            last: batch.last(),
            flags: SealedFlags(if opens { SealedFlags::STARTS_RESYNC } else { 0 }),
            prev,
            chain: Chain(*hasher.finalize().as_bytes()),
            bytes: 1000,
        };
        SealedBatch { meta, bytes: Bytes::from(vec![0; 1000]) }
    })
}

struct Desk {
    agent: AgentMachine,
    now: Instant,
    /// Resync reads that have not ended.
    reads: Vec<(IoId, Extent)>,
    asked: Vec<HashRequest>,
    asked_marks: Vec<MarksRequest>,
    /// What the vault says about marks that are asked for.
    is_disowned: bool,
    started: Vec<IoId>,
    completed: Vec<(IoId, Result<(), IoFailure>)>,
    notes: Vec<Note>,
    sent: Vec<SealedBatch>,
    holds_log: bool,
    holds_record: bool,
    logs: usize,
    records: Vec<AgentRecord>,
}

impl Desk {
    fn new(extents: u64, record: AgentRecord, resync: Option<ResyncReason>, marks: StartMarks) -> Desk {
        let start = AgentStart {
            machine: MachineId(1),
            record,
            resync,
            volumes: vec![VolumeStart {
                index: VOLUME,
                id: VolumeId(9),
                sectors: Sectors(extents * EXTENT_SECTORS),
                marks,
            }],
            spill_files: vec![],
            spilled: vec![],
            limits: SpoolLimits { memory_bytes: 1 << 20, spill_bytes: 1 << 20 },
            in_flight_bytes_max: 1 << 20,
            marker_interval: None,
            sealer: sealer(),
        };
        let mut desk = Desk {
            agent: AgentMachine::start(Instant(0), start),
            now: Instant(0),
            reads: vec![],
            asked: vec![],
            asked_marks: vec![],
            is_disowned: false,
            started: vec![],
            completed: vec![],
            notes: vec![],
            sent: vec![],
            holds_log: false,
            holds_record: false,
            logs: 0,
            records: vec![],
        };
        desk.step(AgentEvent::Tick);
        desk
    }

    fn first(extents: u64) -> Desk {
        Desk::new(
            extents,
            AgentRecord::first(MachineId(1)),
            Some(ResyncReason::Initial),
            StartMarks::CompareAll,
        )
    }

    fn step(&mut self, event: AgentEvent) {
        let mut effects = Vec::new();
        self.agent.step(self.now, event, &mut effects);
        for effect in effects {
            match effect {
                AgentEffect::Start { io, op: Op::ResyncRead { extent }, .. } => self.reads.push((io, extent)),
                AgentEffect::Start { io, .. } => self.started.push(io),
                AgentEffect::Complete { io, result } => self.completed.push((io, result)),
                AgentEffect::Persist { .. } => self.logs += 1,
                AgentEffect::WriteState => self.records.push(self.agent.record()),
                AgentEffect::AskHashes(request) => self.asked.push(request),
                AgentEffect::AskMarks(request) => self.asked_marks.push(request),
                AgentEffect::Note(note) => self.notes.push(note),
                AgentEffect::Send(batch) => self.sent.push(batch),
                _ => {}
            }
        }
        if self.logs > 0 && !self.holds_log {
            self.logs = 0;
            self.step(AgentEvent::Persisted { volume: VOLUME, ok: true });
        }
        if !self.records.is_empty() && !self.holds_record {
            self.records.clear();
            self.step(AgentEvent::StateWritten { ok: true });
        }
    }

    fn welcome(&mut self, at: BatchPosition) {
        self.step(AgentEvent::Welcome(Welcome {
            staged: at,
            vaulted: at,
            permits_total: 1 << 30,
            exact: true,
        }));
    }

    /// The process server stages and, if wanted, commits all that was sent.
    fn ack(&mut self, with_vault: bool) {
        let Some(last) = self.sent.last() else { return };
        let (staged, permits_total) = (last.meta.position(), 1 << 30);
        let vaulted = if with_vault { staged } else { BatchPosition::default() };
        self.step(AgentEvent::Ack { staged, vaulted, permits_total });
    }

    fn answer(&mut self) {
        for MarksRequest { number, disown } in std::mem::take(&mut self.asked_marks) {
            let is_disowned = disown || self.is_disowned;
            self.step(AgentEvent::Marks(MarksReply { number, is_disowned }));
        }
        for HashRequest { id, extent, after, .. } in std::mem::take(&mut self.asked) {
            let blocks = vec![None; blocks_in(extent).count()];
            self.step(AgentEvent::Hashes(HashReply { id, as_of: after, blocks }));
        }
    }

    fn end_read(&mut self) -> bool {
        let Some((io, extent)) = self.reads.pop() else { return false };
        let result = Ok(RunRead::hole(extent));
        self.step(AgentEvent::ResyncRead { volume: VOLUME, io, result });
        true
    }

    fn submit(&mut self, op: Op) -> IoId {
        let io = self.agent.next_io();
        self.step(AgentEvent::Submit { volume: VOLUME, io, op });
        io
    }

    fn end(&mut self, io: IoId, payload: Option<Bytes>) {
        self.step(AgentEvent::Done { volume: VOLUME, io, result: Ok(()), payload });
    }

    fn is_completed(&self, io: IoId) -> bool {
        self.completed.contains(&(io, Ok(())))
    }

    fn settle(&mut self) {
        for _ in 0..100 {
            self.now = self.now.after(Duration::from_millis(1));
            self.answer();
            while self.end_read() {}
            self.step(AgentEvent::Tick);
            self.ack(true);
        }
    }
}

#[test]
fn a_shrinking_resize_during_a_resync_does_not_keep_it_open() {
    let mut desk = Desk::first(32);
    desk.welcome(BatchPosition::default());
    desk.answer();
    let sectors = Sectors(EXTENT_SECTORS + BLOCK_SECTORS + 3);
    let resize = desk.submit(Op::Resize { sectors });
    // Each read that ends makes room for one that queues behind the resize, most of them beyond its end.
    while desk.end_read() {
        desk.answer();
    }
    assert_eq!(desk.started, [resize]);
    desk.end(resize, None);
    desk.settle();
    assert!(desk.is_completed(resize) && desk.agent.is_promised(), "{:?}", desk.agent.resync_progress());
}

#[test]
fn a_resize_is_completed_when_log_and_record_know_it() {
    for grows in [true, false] {
        let mut desk = Desk::first(4);
        desk.welcome(BatchPosition::default());
        desk.settle();
        assert!(desk.agent.is_promised());
        (desk.holds_log, desk.holds_record) = (true, true);
        let sectors = Sectors(if grows { 6 } else { 2 } * EXTENT_SECTORS);
        let resize = desk.submit(Op::Resize { sectors });
        desk.end(resize, None);
        assert!(!desk.is_completed(resize));
        let old = desk.records.pop().expect("a record is written, whatever the log does");
        assert_eq!(old.volumes[0].sectors, Sectors(4 * EXTENT_SECTORS), "the log does not know the size yet");
        desk.step(AgentEvent::StateWritten { ok: true });
        assert!(!desk.is_completed(resize));
        desk.step(AgentEvent::Persisted { volume: VOLUME, ok: true });
        assert!(!desk.is_completed(resize), "the record does not know the size yet");
        assert_eq!(desk.records.pop().map(|record| record.volumes[0].sectors), Some(sectors));
        desk.step(AgentEvent::StateWritten { ok: true });
        assert!(desk.is_completed(resize));
    }
}

#[test]
fn a_resize_does_not_wait_for_a_log_that_cannot_be_written() {
    let mut desk = Desk::first(4);
    desk.welcome(BatchPosition::default());
    desk.settle();
    (desk.holds_log, desk.holds_record) = (true, true);
    let resize = desk.submit(Op::Resize { sectors: Sectors(2 * EXTENT_SECTORS) });
    desk.end(resize, None);
    desk.step(AgentEvent::StateWritten { ok: true });
    desk.step(AgentEvent::Persisted { volume: VOLUME, ok: false });
    assert!(desk.records.last().is_some_and(|record| record.must_compare_all));
    desk.step(AgentEvent::StateWritten { ok: true });
    assert!(desk.is_completed(resize));
}

#[test]
fn sizes_that_change_while_the_link_is_down_are_part_of_the_stream() {
    let mut desk = Desk::first(4);
    desk.welcome(BatchPosition::default());
    desk.settle();
    desk.step(AgentEvent::SessionDown);
    let held = desk.sent.last().map(|batch| batch.meta.position()).expect("batches were sent");
    for extents in [2, 6, 3] {
        let resize = desk.submit(Op::Resize { sectors: Sectors(extents * EXTENT_SECTORS) });
        desk.end(resize, None);
        assert!(desk.is_completed(resize), "no link is needed");
        assert_eq!(desk.agent.sectors(VOLUME), Some(Sectors(extents * EXTENT_SECTORS)));
    }
    assert!(desk.agent.is_promised(), "nothing lost its order");
    desk.welcome(held);
    desk.settle();
    assert_eq!(desk.agent.watermarks().vaulted(), desk.agent.watermarks().issued());
}

#[test]
fn nothing_is_promised_before_the_end_of_a_resync_is_in_the_vault() {
    let mut desk = Desk::first(4);
    assert!(desk.agent.is_initial() && !desk.agent.is_promised());
    desk.welcome(BatchPosition::default());
    desk.answer();
    while desk.end_read() {}
    desk.step(AgentEvent::Tick);
    assert!(desk.agent.is_exact(), "everything is in the stream");
    desk.ack(false);
    assert!(!desk.agent.is_promised() && desk.agent.record().is_initial);
    desk.ack(true);
    assert!(desk.agent.is_promised() && !desk.agent.record().is_initial);
}

#[test]
fn after_an_unclean_stop_the_notes_say_so_and_nothing_else() {
    let at = BatchPosition { generation: Generation(1), seq: WriteSeq(50), chain: Chain([5; 32]) };
    let known = AgentRecord {
        generation: Generation(2),
        is_clean: false,
        is_initial: false,
        ..AgentRecord::first(MachineId(1))
    };
    let known = AgentRecord { reserved_until: WriteSeq(1000), vaulted: at, staged: at, ..known };
    let image = LogImage { sectors: Sectors(4 * EXTENT_SECTORS), marks: vec![0b10], pages_damaged: 0 };
    let marks = StartMarks::CompareMarked(image);
    let mut desk = Desk::new(4, known, Some(ResyncReason::UncleanStop), marks);
    desk.welcome(at);
    desk.settle();
    let began = Note::ResyncBegan { reason: ResyncReason::UncleanStop, blocks: 16 };
    let is_end = matches!(desk.notes[..], [first, Note::ResyncEnded(p)] if first == began && p.skipped == 16);
    assert!(is_end, "{:?}", desk.notes);
}

#[test]
fn a_vault_that_went_back_is_told_and_everything_is_compared() {
    let mut desk = Desk::first(4);
    desk.welcome(BatchPosition::default());
    desk.settle();
    let confirmed = desk.agent.watermarks().vaulted();
    let old = BatchPosition { generation: Generation(1), seq: WriteSeq(1), chain: Chain([5; 32]) };
    assert!(confirmed > old.seq);
    desk.notes.clear();
    desk.welcome(old);
    let told = Note::VaultWentBack { from: confirmed, to: old.seq };
    let began = Note::ResyncBegan { reason: ResyncReason::StageLost, blocks: 64 };
    assert_eq!(desk.notes, [told, began]);
    desk.settle();
    assert!(desk.agent.is_promised());
}

#[test]
fn a_seed_is_continued_by_the_first_copy_and_is_no_fork() {
    let seed = BatchPosition { generation: Generation::SEED, seq: WriteSeq(50), chain: Chain([5; 32]) };
    for (at, note, reason) in [
        (seed, Note::Seeded, ResyncReason::Initial),
        // What another agent wrote is no seed, whoever is new here.
        (BatchPosition { generation: Generation(1), ..seed }, Note::Fork, ResyncReason::Fork),
    ] {
        let mut desk = Desk::first(4);
        desk.notes.clear();
        desk.welcome(at);
        assert_eq!(desk.notes, [note, Note::ResyncBegan { reason, blocks: 64 }]);
        assert!(desk.sent.is_empty(), "nothing is sent over it in this session");
        desk.step(AgentEvent::SessionDown);
        desk.welcome(at);
        let first = desk.sent[0].meta;
        assert!(first.flags.starts_resync() && first.prev == at.chain && first.first > at.seq);
        assert!(first.generation > at.generation);
        assert!(desk.agent.is_initial());
        desk.settle();
        assert!(desk.agent.is_promised() && !desk.agent.is_initial());
        assert_eq!(desk.agent.resync_progress().skipped, 64, "all of it was compared");
    }
    // Behind something of this agent's in the vault a seed is another history.
    let mut desk = Desk::first(4);
    desk.welcome(BatchPosition::default());
    desk.settle();
    desk.notes.clear();
    desk.welcome(BatchPosition { seq: WriteSeq(5000), ..seed });
    assert_eq!(desk.notes[0], Note::Fork);
}

#[test]
fn a_pass_of_cooling_ends_also_while_nothing_may_cool() {
    let image = LogImage { sectors: Sectors(4 * EXTENT_SECTORS), marks: vec![0b10], pages_damaged: 0 };
    let issued = WriteSeq(50);
    let known =
        AgentRecord { issued, reserved_until: issued, is_initial: false, ..AgentRecord::first(MachineId(1)) };
    let mut desk = Desk::new(4, known, None, StartMarks::Clean { image, issued });
    desk.step(AgentEvent::Cool { volume: VOLUME });
    assert!(!desk.agent.is_cooling(VOLUME), "what was issued before the stop is not in the vault");
    assert_eq!(desk.agent.marks().0, 1);
}

#[test]
fn extents_cool_when_the_guest_rests() {
    let mut desk = Desk::first(4);
    desk.welcome(BatchPosition::default());
    desk.settle();
    let extent = Extent::new(EXTENT_SECTORS, 8);
    let write = desk.submit(Op::Write { extent, fua: false });
    desk.end(write, Some(Bytes::from(vec![1; 4096])));
    desk.settle();
    let token = desk.agent.flush_wanted(VOLUME).expect("a write is not flushed");
    desk.step(AgentEvent::Flushed { volume: VOLUME, token });
    desk.step(AgentEvent::Cool { volume: VOLUME });
    assert_eq!(desk.agent.marks().0, 4, "a working set stays hot");
    desk.now = desk.now.after(crate::extent_map::COOL_AFTER);
    assert_eq!(desk.agent.flush_wanted(VOLUME), None, "nothing is left to flush");
    desk.step(AgentEvent::Cool { volume: VOLUME });
    assert_eq!(desk.agent.marks().0, 0);
}

#[test]
fn a_machine_with_nothing_to_do_rests_until_something_happens() {
    let mut desk = Desk::first(4);
    assert_eq!(desk.agent.rest(desk.now), Rest::None, "the first copy is open");
    desk.welcome(BatchPosition::default());
    desk.settle();
    assert_eq!(desk.agent.rest(desk.now), Rest::Until(None));
    let write = desk.submit(Op::Write { extent: Extent::new(0, 8), fua: false });
    desk.end(write, Some(Bytes::from(vec![1; 4096])));
    assert_eq!(desk.agent.rest(desk.now), Rest::None, "the open batch waits for a tick");
    desk.step(AgentEvent::Tick);
    assert_eq!(desk.agent.rest(desk.now), Rest::Until(None), "it is sent; an answer comes by itself");
    desk.step(AgentEvent::SessionDown);
    assert_eq!(desk.agent.rest(desk.now), Rest::Until(None), "the link has a clock of its own");
    desk.agent.resync(&[(VOLUME, Extent::new(0, 8))]);
    assert_eq!(desk.agent.rest(desk.now), Rest::None);
}

#[test]
fn a_machine_that_cuts_markers_rests_until_the_next_one() {
    let mut desk = Desk::first(4);
    desk.agent.cutter = Some(crate::markers::MarkerCutter::new(desk.now, Duration::from_secs(5)));
    desk.welcome(BatchPosition::default());
    desk.settle();
    let due = Instant(0).after(Duration::from_secs(5));
    assert_eq!(desk.agent.rest(desk.now), Rest::Until(Some(due)));
    assert_eq!(desk.agent.rest(due), Rest::None);
}
