//! Single rules of the agent's machine: what a clean stop promises, and what a lost batch leaves behind.

use redoubt_core::agent::{AgentEffect, AgentEvent, AgentMachine, AgentStart, VolumeStart};
use redoubt_core::agent_state::AgentRecord;
use redoubt_core::extent_log::LogImage;
use redoubt_core::extent_map::{BLOCK_SECTORS, EXTENT_SECTORS, StartMarks};
use redoubt_core::splitter::{IoId, Op};
use redoubt_core::spool::{SpillWork, SpoolLimits};
use redoubt_core::{
    BatchPosition, Chain, Extent, Generation, Instant, MachineId, Marker, MarkerId, MarkerKind, SealedBatch,
    SealedFlags, SealedMeta, Sectors, VolumeId, VolumeIndex, WallTime, WriteSeq,
};
use std::time::Duration;

const MACHINE: MachineId = MachineId(1);
const VOLUME: VolumeIndex = VolumeIndex(0);
const SECTORS: u64 = 2 * EXTENT_SECTORS;
/// Of what the disk holds at a clean stop.
const DIGEST: [u8; 32] = [7; 32];

fn seal(batch: &redoubt_core::Batch, prev: Chain) -> SealedBatch {
    let chain = Chain(*blake3::hash(&[&prev.0[..], &batch.last().0.to_le_bytes()].concat()).as_bytes());
    let (generation, first, last) = (batch.generation, batch.first(), batch.last());
    let (flags, bytes) = (SealedFlags(0), 200);
    let meta = SealedMeta { machine: MACHINE, generation, first, last, flags, prev, chain, bytes };
    SealedBatch { meta, bytes: vec![0; 200].into() }
}

/// An exact machine and a shell that does at once what it is asked for, except the disk.
struct Run {
    machine: AgentMachine,
    /// The records written, in order.
    records: Vec<AgentRecord>,
    markers: Vec<MarkerId>,
    /// Whether spill syncs are answered.
    is_spill_slow: bool,
}

impl Run {
    fn exact(memory_bytes: u64, spill_bytes: u64) -> Run {
        let record = AgentRecord {
            machine: MACHINE,
            generation: Generation(1),
            issued: WriteSeq(5),
            reserved_until: WriteSeq(5),
            is_clean: true,
            is_resync_open: false,
            is_initial: false,
            must_compare_all: false,
            marks_number: 0,
            sealed: BatchPosition { seq: WriteSeq(5), ..BatchPosition::default() },
            staged: BatchPosition::default(),
            vaulted: BatchPosition::default(),
            volumes: Vec::new(),
        };
        let image = LogImage { sectors: Sectors(SECTORS), marks: vec![0], pages_damaged: 0 };
        let marks = StartMarks::Clean { image, issued: WriteSeq(5) };
        let volume = VolumeStart { index: VOLUME, id: VolumeId(9), sectors: Sectors(SECTORS), marks };
        let start = AgentStart {
            machine: MACHINE,
            record,
            resync: None,
            volumes: vec![volume],
            spill_files: Vec::new(),
            spilled: Vec::new(),
            limits: SpoolLimits { memory_bytes, spill_bytes },
            in_flight_bytes_max: 1 << 20,
            marker_interval: None,
            sealer: Box::new(seal),
        };
        let machine = AgentMachine::start(Instant(0), start);
        let mut run = Run { machine, records: Vec::new(), markers: Vec::new(), is_spill_slow: false };
        run.step(AgentEvent::Tick);
        assert!(run.machine.is_ready() && run.machine.is_exact());
        run
    }

    fn step(&mut self, event: AgentEvent) {
        let mut effects = Vec::new();
        self.machine.step(Instant(0).after(Duration::from_secs(1)), event, &mut effects);
        for effect in effects {
            match effect {
                AgentEffect::Persist { volume, .. } => self.step(AgentEvent::Persisted { volume, ok: true }),
                AgentEffect::WriteState => {
                    self.records.push(self.machine.record());
                    self.step(AgentEvent::StateWritten { ok: true });
                }
                AgentEffect::Spill(SpillWork::Sync { ticket }) if !self.is_spill_slow => {
                    self.step(AgentEvent::SpillSynced { ticket });
                }
                AgentEffect::MarkerCut { marker, .. } => self.markers.push(marker.id),
                _ => {}
            }
        }
    }

    fn submit(&mut self, op: Op) -> IoId {
        let io = self.machine.next_io();
        self.step(AgentEvent::Submit { volume: VOLUME, io, op });
        io
    }

    fn done(&mut self, io: IoId) {
        self.step(AgentEvent::Done { volume: VOLUME, io, result: Ok(()), payload: None });
    }

    fn zeroes(&mut self) {
        let io = self.submit(Op::Trim { extent: Extent::new(0, 8) });
        self.done(io);
    }

    fn flush(&mut self) {
        if let Some(token) = self.machine.flush_wanted(VOLUME) {
            self.step(AgentEvent::Flushed { volume: VOLUME, token });
        }
    }

    fn stop(&mut self) {
        for _ in 0..3 {
            self.step(AgentEvent::Stop);
            for volume in self.machine.fingerprints_wanted() {
                self.step(AgentEvent::Fingerprint { volume, digest: DIGEST });
            }
        }
    }

    fn is_recorded_clean(&self) -> bool {
        self.records.last().is_some_and(|record| record.is_clean)
    }

    fn cut_marker(&mut self) {
        let marker = Marker { id: MarkerId(3), kind: MarkerKind::Crash, wall: WallTime(0) };
        self.step(AgentEvent::CutMarker(marker));
    }
}

#[test]
fn nothing_is_stamped_behind_the_record_of_a_clean_stop() {
    let mut run = Run::exact(1 << 20, 1 << 20);
    run.zeroes();
    run.flush();
    run.stop();
    assert!(run.is_recorded_clean());
    // The beat of the policy, or a person, comes between the record and the end of the process.
    run.cut_marker();
    let issued = run.records.last().map(|record| record.issued);
    assert_eq!(issued, Some(run.machine.watermarks().issued()), "a clean start issues it again");
}

#[test]
fn a_stop_is_clean_once_it_is_known_what_the_disks_hold() {
    let mut run = Run::exact(1 << 20, 1 << 20);
    run.zeroes();
    assert!(run.machine.fingerprints_wanted().is_empty(), "guests write");
    run.step(AgentEvent::Fingerprint { volume: VOLUME, digest: [1; 32] });
    (0..3).for_each(|_| run.step(AgentEvent::Stop));
    assert!(run.machine.fingerprints_wanted().is_empty(), "the last change is not flushed");
    run.flush();
    (0..3).for_each(|_| run.step(AgentEvent::Stop));
    assert_eq!(run.machine.fingerprints_wanted(), [VOLUME]);
    assert!(!run.is_recorded_clean());
    run.stop();
    assert!(run.is_recorded_clean());
    let told = run.records.last().map(|record| record.volumes[0].fingerprint);
    assert_eq!(told, Some(Some(DIGEST)), "what came too early counts for nothing");
}

#[test]
fn a_change_that_ends_after_the_last_flush_keeps_a_stop_from_being_clean() {
    let mut run = Run::exact(1 << 20, 1 << 20);
    run.zeroes();
    let late = run.submit(Op::Trim { extent: Extent::new(8, 8) });
    run.flush();
    run.done(late);
    run.stop();
    assert!(!run.is_recorded_clean(), "the late change may be in the disk's cache only");
    run.flush();
    run.stop();
    assert!(run.is_recorded_clean());
}

#[test]
fn a_marker_that_lost_its_place_is_not_reported_as_cut() {
    let mut run = Run::exact(1, 0);
    for _ in 0..redoubt_core::change::BATCH_RECORDS_MAX {
        run.zeroes();
    }
    // The batch is full: to make room for the marker it is sealed, and that is too much for the spool.
    run.cut_marker();
    assert!(run.machine.is_bitmap());
    assert_eq!(run.markers, []);
}

#[test]
fn a_resize_that_lost_its_place_leaves_the_sectors_it_took_away_dirty() {
    let mut run = Run::exact(150, 1 << 20);
    run.is_spill_slow = true;
    run.cut_marker();
    for sectors in [SECTORS / 2, SECTORS] {
        let io = run.submit(Op::Resize { sectors: Sectors(sectors) });
        run.done(io);
    }
    // They are zeros here now, and the vault never hears of the resizes.
    run.step(AgentEvent::SpillFailed { ticket: 1 });
    assert!(run.machine.is_bitmap());
    let (_, dirty) = run.machine.marks();
    assert!(dirty >= SECTORS / 2 / BLOCK_SECTORS, "{dirty} blocks are dirty");
}
