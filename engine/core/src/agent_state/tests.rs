//! The agent's start from raw pairs of slots: torn, rotten, empty, old and new.

use super::*;
use crate::extent_map::EXTENT_SECTORS;
use crate::sequencer::Sequencer;
use proptest::prelude::*;

const ALONE: Beside = Beside { spill: Spill::Empty, has_extent_log: false };

fn record(is_clean: bool) -> AgentRecord {
    let at =
        |seq| BatchPosition { generation: Generation(2), seq: WriteSeq(seq), chain: Chain([seq as u8; 32]) };
    let volume = |n: u16| VolumeRecord {
        index: VolumeIndex(n),
        id: VolumeId(u128::from(n) + 10),
        sectors: Sectors(999),
        fingerprint: (n == 1).then_some([7; 32]),
    };
    AgentRecord {
        machine: MachineId(5),
        generation: Generation(3),
        issued: WriteSeq(40),
        reserved_until: WriteSeq(1 << 20),
        is_clean,
        is_resync_open: true,
        is_initial: true,
        must_compare_all: false,
        marks_number: 3,
        sealed: at(40),
        staged: at(30),
        vaulted: at(20),
        volumes: vec![volume(0), volume(1)],
    }
}

fn disks(sectors: u64) -> Vec<DiskFact> {
    let fact = |id| DiskFact { id: VolumeId(id), sectors: Sectors(sectors), fingerprint: Some([7; 32]) };
    vec![fact(10), fact(11)]
}

#[test]
fn a_slot_reads_back_as_written_and_any_flipped_byte_is_damage() {
    let bytes = encode_slot(9, &record(true));
    assert_eq!(bytes.len(), SLOT_BYTES);
    assert_eq!(decode_slot(&bytes), Slot::Valid(9, record(true)));
    for at in (0..SLOT_BYTES).step_by(97) {
        let mut torn = bytes.clone();
        torn[at] ^= 1;
        assert_eq!(decode_slot(&torn), Slot::Damaged);
        assert_eq!(decode_slot(&bytes[..at.max(1)]), Slot::Damaged);
    }
    assert_eq!(decode_slot(&[0; SLOT_BYTES]), Slot::Empty);
    const { assert!(FIXED + VOLUMES_MAX * PER_VOLUME <= SUM_AT) };
}

#[test]
fn exactly_one_row_matches_every_combination() {
    for record in [Record::None, Record::Lost, Record::Foreign, Record::Clean, Record::Unclean] {
        for spill in [Spill::Empty, Spill::Held, Spill::Damaged] {
            for flags in 0..4 {
                let (disks_same, has_extent_log) = (flags & 1 == 1, flags & 2 == 2);
                let facts = Facts { record, spill, has_extent_log, disks_same };
                assert_eq!(ROWS.iter().filter(|(applies, _)| applies(facts)).count(), 1, "{facts:?}");
            }
        }
    }
}

#[test]
fn each_start_is_decided_by_what_is_found() {
    let me = MachineId(5);
    let valid = |n, clean| Slot::Valid(n, record(clean));
    let go =
        |a, b, spill, sectors| recover(a, b, Beside { spill, has_extent_log: false }, me, &disks(sectors));
    assert_eq!(go(Slot::Empty, Slot::Empty, Spill::Empty, 999), Decision::FirstStart);
    assert_eq!(go(Slot::Damaged, Slot::Empty, Spill::Empty, 999), Decision::FirstStart);
    let lost = Decision::Refuse(StartRefused::RecordLost);
    assert_eq!(go(Slot::Damaged, Slot::Damaged, Spill::Empty, 999), lost);
    let clean = go(valid(1, false), valid(2, true), Spill::Held, 999);
    assert_eq!(clean, Decision::CleanResume(record(true)));
    let Decision::UncleanStop(next) = go(valid(3, false), valid(2, true), Spill::Held, 999) else { panic!() };
    assert_eq!(next.generation, Generation(4));
    let Decision::Untracked(_, changed) = go(Slot::Damaged, valid(2, true), Spill::Empty, 1000) else {
        panic!()
    };
    assert_eq!(changed, vec![VolumeId(10), VolumeId(11)]);
    let foreign = recover(valid(1, true), Slot::Empty, ALONE, MachineId(6), &disks(999));
    assert_eq!(foreign, Decision::Refuse(StartRefused::OtherMachine(me)));
}

/// A state directory and the life of its machine, on raw bytes.
struct Life {
    slots: [Vec<u8>; 2],
    sequencer: Sequencer,
    record: AgentRecord,
    highest_issued: u64,
    highest_generation: u64,
}

impl Life {
    fn new() -> Life {
        let mut first = record(false);
        (first.generation, first.issued, first.reserved_until) = (Generation(1), WriteSeq(0), WriteSeq(0));
        let slots = [encode_slot(0, &first), encode_slot(1, &first)];
        let sequencer = Sequencer::resume(WriteSeq(0), WriteSeq(0), true);
        Life { slots, sequencer, record: first, highest_issued: 0, highest_generation: 1 }
    }

    fn read(&self) -> (Slot, Slot) {
        (decode_slot(&self.slots[0]), decode_slot(&self.slots[1]))
    }

    /// Writes the next slot; with `torn` only the first bytes arrive.
    fn write(&mut self, torn: Option<u16>) {
        let (a, b) = self.read();
        let counter = next_counter(&a, &b);
        let bytes = encode_slot(counter, &self.record);
        let length = torn.map_or(SLOT_BYTES, |at| usize::from(at) % SLOT_BYTES);
        self.slots[(counter % 2) as usize][..length].copy_from_slice(&bytes[..length]);
    }

    fn reserve(&mut self, torn: Option<u16>) {
        let Some(through) = self.sequencer.take_reservation() else { return };
        self.record.is_clean = false;
        (self.record.issued, self.record.reserved_until) = (self.sequencer.issued(), through);
        self.write(torn);
        if torn.is_none() {
            self.sequencer.on_reserved(through);
        }
    }

    fn stamp(&mut self, count: u64) {
        let count = count.min(self.sequencer.remaining());
        if let Some(range) = (count > 0).then(|| self.sequencer.stamp(count)).flatten() {
            assert!(range.first.0 > self.highest_issued, "ID-1: {range:?} after {}", self.highest_issued);
            self.highest_issued = range.last.0;
        }
    }

    fn rot(&mut self, which: usize, at: u16) {
        self.slots[which][usize::from(at) % SLOT_BYTES] ^= 0x20;
    }

    /// Starts; the write of the new record is torn as many times as `tears` says.
    fn start(&mut self, tears: &[u16]) {
        let (a, b) = self.read();
        match recover(a, b, Beside { spill: Spill::Held, has_extent_log: true }, MachineId(5), &disks(999)) {
            Decision::CleanResume(record) => self.record = record,
            Decision::UncleanStop(record) => {
                assert!(record.generation.0 > self.highest_generation, "ID-2: {}", record.generation);
                self.record = record;
                for torn in [0, 1] {
                    self.write(tears.get(torn).copied());
                    if !tears.is_empty() {
                        return self.start(&tears[1..]);
                    }
                }
            }
            other => panic!("one good slot is enough: {other:?}"),
        }
        self.highest_generation = self.record.generation.0;
        let AgentRecord { issued, reserved_until, is_clean, .. } = self.record;
        self.sequencer = Sequencer::resume(issued, reserved_until, is_clean);
        assert!(self.sequencer.issued().0 >= self.highest_issued, "ID-1");
        assert_eq!(self.sequencer.remaining(), 0, "SQ-1");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn neither_a_torn_write_nor_a_rotten_slot_makes_a_number_be_used_twice(
        steps in prop::collection::vec((0u8..12, any::<u16>(), any::<u16>()), 1..60),
    ) {
        let mut life = Life::new();
        life.start(&[]);
        for (kind, a, b) in steps {
            let newest = 1 - (next_counter(&life.read().0, &life.read().1) % 2) as usize;
            match kind {
                0..=3 => life.stamp(u64::from(a) * 16),
                4 | 5 => life.reserve(None),
                6 => { life.reserve(Some(a)); life.start(&[]); }
                7 => life.start(&[]),
                8 => {
                    (life.record.is_clean, life.record.issued) = (true, life.sequencer.issued());
                    life.record.reserved_until = life.sequencer.reserved_until();
                    life.write(None);
                    if b.is_multiple_of(4) {
                        life.rot(usize::from(b / 4 % 2), a);
                    }
                    life.start(&[]);
                }
                9 => { life.rot(newest, a); life.start(&[]); }
                10 => { life.rot(1 - newest, a); life.start(&[]); }
                _ => { life.rot(newest, a); life.start(&[a, b]); }
            }
        }
        life.rot(0, 77);
        life.rot(1, 78);
        let (a, b) = life.read();
        let lost = recover(a, b, ALONE, MachineId(5), &disks(999));
        prop_assert_eq!(lost, Decision::Refuse(StartRefused::RecordLost));
    }
}

#[test]
fn a_start_from_the_older_slot_skips_a_generation_and_a_block() {
    let old = record(false);
    let Decision::UncleanStop(next) =
        recover(Slot::Valid(2, old.clone()), Slot::Damaged, ALONE, MachineId(5), &disks(999))
    else {
        panic!()
    };
    assert_eq!(next.generation, Generation(old.generation.0 + 2));
    assert_eq!(next.reserved_until, WriteSeq(old.reserved_until.0 + RESERVE_BLOCK));
    assert!(!next.is_clean && next.must_compare_all);
}

#[test]
fn a_torn_first_start_is_repeated_only_in_an_empty_directory() {
    for (a, b) in [(Slot::Damaged, Slot::Empty), (Slot::Empty, Slot::Damaged), (Slot::Empty, Slot::Empty)] {
        for (spill, has_extent_log) in [(Spill::Empty, false), (Spill::Held, false), (Spill::Empty, true)] {
            let beside = Beside { spill, has_extent_log };
            let decision = recover(a.clone(), b.clone(), beside, MachineId(5), &disks(999));
            let refused = Decision::Refuse(StartRefused::OrphanedState);
            assert_eq!(decision, if beside == ALONE { Decision::FirstStart } else { refused });
        }
    }
}

#[test]
fn marks_are_trusted_only_if_no_record_and_no_change_says_otherwise() {
    let image = LogImage { sectors: Sectors(EXTENT_SECTORS), marks: vec![1], pages_damaged: 0 };
    let mut clean = record(true);
    assert_eq!(clean.start_marks(false, Ok(image.clone())), StartMarks::CompareMarked(image.clone()));
    clean.is_resync_open = false;
    let marks = StartMarks::Clean { image: image.clone(), issued: WriteSeq(40) };
    assert_eq!(clean.start_marks(false, Ok(image.clone())), marks);
    let damaged = LogImage { pages_damaged: 1, ..image.clone() };
    assert_eq!(clean.start_marks(false, Ok(damaged.clone())), StartMarks::CompareMarked(damaged));
    assert_eq!(clean.start_marks(false, Err(LogError::Header)), StartMarks::CompareAll);
    assert_eq!(clean.start_marks(true, Ok(image.clone())), StartMarks::CompareAll);
    // A stop that looks clean but left the log without marks is none.
    clean.must_compare_all = true;
    let slot = decode_slot(&encode_slot(4, &clean));
    let decision = recover(slot, Slot::Empty, ALONE, MachineId(5), &disks(999));
    let Decision::UncleanStop(next) = decision else { panic!("{decision:?}") };
    assert_eq!(next.generation, Generation(4));
    assert_eq!(next.start_marks(false, Ok(image)), StartMarks::CompareAll);
}
