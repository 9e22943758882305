//! The extent map against a slow model of a disk with a cache, a vault, and every file that may be
//! found after a crash.
//!
//! The model keeps, per half block, all values the disk may hold after power loss and all values the
//! vault may hold. An extent in which the two may differ must be marked in every possible file, or
//! the log must be disowned; after each crash a new map is made from one possible file, and each
//! block that differs must be dirty.

use super::*;
use crate::extent_log::{self, LOG_PAGE_BYTES, decode_file, encode_header};
use crate::time::Instant;
use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use std::time::Duration;

mod checks;
mod model;

use model::{CELL, Model, SIZES, VOLUME};

impl Model {
    fn step(&mut self, kind: u8, a: u16, b: u16) -> Result<(), TestCaseError> {
        let pick = |len: usize| a as usize % len;
        match kind {
            0..=5 => {
                let extents = extents_of(Sectors(self.size));
                let extent = [0, 1, 2, extents - 1, extents.saturating_sub(2)][pick(5)].min(extents - 1);
                let first = extent * EXTENT_SECTORS / CELL + u64::from(b) % 34;
                let cells_left = self.size / CELL;
                let first = first.min(cells_left - 1);
                let length = (1 + u64::from(b >> 8) % 5).min(cells_left - first);
                self.clock += 1;
                self.waiting.push((Extent::new(first * CELL, length * CELL), self.clock));
                self.start_writes();
            }
            6..=9 if !self.started.is_empty() => {
                let failed = (kind == 9).then_some(u64::from(b));
                self.end_write(pick(self.started.len()), failed, kind != 8);
            }
            10 | 11 => self.start_persist(),
            12 | 13 => self.end_persist(true),
            14 => {
                self.end_persist(!b.is_multiple_of(8));
                if b.is_multiple_of(16) {
                    self.map.on_disowned();
                    self.start_writes();
                }
            }
            15 => self.flushes.push((self.map.flush_issued(), self.clock)),
            16 | 17 if !self.flushes.is_empty() => self.flushed(pick(self.flushes.len())),
            18 | 19 if !self.sent.is_empty() => self.vault_through(self.sent[pick(self.sent.len())].0),
            20 | 21 => {
                self.now = self.now.after(COOL_AFTER / 2);
                let idle = if b.is_multiple_of(2) { COOL_AFTER } else { Duration::ZERO };
                self.map.cool(self.now, idle, self.recaptures.clone().into_iter());
            }
            22 if !self.recaptures.is_empty() => {
                self.recapture(pick(self.recaptures.len()), !b.is_multiple_of(4))
            }
            23 | 24 => self.resync(u64::from(b), a),
            25 => self.resize(SIZES[pick(SIZES.len())], !b.is_multiple_of(3)),
            26 if b.is_multiple_of(4) => {
                let keep = self.sent.get(pick(self.sent.len() + 1)).map_or(self.seq, |(seq, _)| *seq);
                self.sent.retain(|(seq, _)| *seq <= keep);
                self.attach_due = true;
                self.map.mark_dirty_after(WriteSeq(keep.max(self.vaulted)));
            }
            27 => {
                self.map.on_reconnect();
            }
            28 => self.crash(u64::from(a) << 16 | u64::from(b), b.is_multiple_of(2))?,
            29 if b.is_multiple_of(3) => self.clean_stop(),
            30 if !self.flushes.is_empty() => self.flush_failed(pick(self.flushes.len())),
            _ => {}
        }
        self.check()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn whatever_may_differ_is_marked_and_found_after_any_crash(
        size in 0usize..SIZES.len(), steps in prop::collection::vec((0u8..31, any::<u16>(), any::<u16>()), 1..160),
    ) {
        let mut model = Model::new(SIZES[size]);
        for (kind, a, b) in steps {
            model.step(kind, a, b)?;
        }
        model.rest()?;
    }
}

fn map_of_ten() -> ExtentMap {
    let image = LogImage { sectors: Sectors(10 * EXTENT_SECTORS), marks: vec![0], pages_damaged: 0 };
    let mut map = ExtentMap::new(VOLUME, image.sectors, StartMarks::Clean { image, issued: WriteSeq(5) });
    map.take_persist().unwrap();
    map.on_persisted(Ok::<(), ()>(()));
    map
}

#[test]
fn a_log_that_cannot_be_written_does_not_hold_writes() {
    let (mut map, write) = (map_of_ten(), Extent::new(0, 8));
    map.want_hot(write);
    map.take_persist().unwrap();
    assert_eq!(map.on_persisted(Err(())), Some(PERSIST_RETRY_DELAYS[0]));
    assert_eq!((map.trust(), map.is_hot(write)), (LogTrust::Doubted, false));
    assert!(map.must_compare_all());
    map.on_disowned();
    assert!(map.is_hot(write) && map.must_compare_all());
    map.on_write_started(Instant(0), write);
    map.take_persist().unwrap();
    let late = Extent::new(EXTENT_SECTORS, 8);
    map.on_write_started(Instant(0), late);
    map.on_persisted(Ok::<(), ()>(()));
    assert_eq!((map.trust(), map.is_hot(late)), (LogTrust::CatchingUp, false));
    assert!(map.must_compare_all(), "the late write is not in the image");
    map.take_persist().unwrap();
    map.on_persisted(Ok::<(), ()>(()));
    assert_eq!((map.trust(), map.is_hot(late)), (LogTrust::Whole, true));
}

#[test]
fn a_log_written_again_before_it_was_disowned_is_whole() {
    let (mut map, write) = (map_of_ten(), Extent::new(0, 8));
    map.want_hot(write);
    map.take_persist().unwrap();
    map.on_persisted(Err(()));
    map.take_persist().unwrap();
    map.on_persisted(Ok::<(), ()>(()));
    assert_eq!((map.trust(), map.is_hot(write)), (LogTrust::Whole, true));
    map.on_disowned();
    assert_eq!(map.trust(), LogTrust::Whole);
}

#[test]
fn marks_of_a_clean_stop_stay_until_what_was_issued_is_vaulted() {
    let sectors = Sectors(10 * EXTENT_SECTORS);
    let image = LogImage { sectors, marks: vec![0b101], pages_damaged: 0 };
    let mut map = ExtentMap::new(VOLUME, sectors, StartMarks::Clean { image, issued: WriteSeq(5) });
    map.take_persist().unwrap();
    map.on_persisted(Ok::<(), ()>(()));
    assert_eq!(map.cool(Instant(0), Duration::ZERO, std::iter::empty()), 0);
    assert_eq!(map.clone_lost(WriteSeq(4)), 2);
    map.on_vaulted(WriteSeq(5));
    assert_eq!(map.cool(Instant(0), Duration::ZERO, std::iter::empty()), 2);
    assert_eq!(map.marked_extents(), 0);
}

#[test]
fn what_a_failed_flush_should_have_covered_stays_marked_and_the_rest_cools() {
    let (mut map, early, late) = (map_of_ten(), Extent::new(0, 8), Extent::new(EXTENT_SECTORS, 8));
    let write = |map: &mut ExtentMap, extent: Extent| {
        map.want_hot(extent);
        map.take_persist().unwrap();
        map.on_persisted(Ok::<(), ()>(()));
        map.on_write_started(Instant(0), extent);
        map.on_write_finished(Instant(0), extent, Stamp::Nothing);
    };
    write(&mut map, early);
    map.on_flush_failed();
    write(&mut map, late);
    map.on_flushed(map.flush_issued());
    assert_eq!(map.cool(Instant(0), Duration::ZERO, std::iter::empty()), 1);
    assert!(map.is_hot(early) && !map.is_hot(late), "a later flush proves nothing about the first");
    assert!(map.has_lost_flush());
}

#[test]
fn a_region_that_was_cut_off_and_grown_again_is_not_taken_as_equal() {
    let mut map = map_of_ten();
    map.on_resized(Sectors(2 * EXTENT_SECTORS), Stamp::Bitmap);
    map.on_resized(Sectors(4 * EXTENT_SECTORS), Stamp::Bitmap);
    assert_eq!((map.dirty_blocks(), map.next_dirty(0)), (2 * BLOCKS_PER_EXTENT, Some(2 * BLOCKS_PER_EXTENT)));
    let header = map.take_persist().unwrap().writes[0].1.clone();
    assert_eq!(header, encode_header(VOLUME, Sectors(4 * EXTENT_SECTORS)));
}

impl ExtentMap {
    /// Counts the runs that a loss after `seq` would make dirty.
    fn clone_lost(&self, seq: WriteSeq) -> usize {
        self.unvaulted.clone().take_after(seq).len()
    }
}
