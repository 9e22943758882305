//! Each planted bug of the capture path breaks the property that stands for it.
//!
//! The active bug is state of the process, so everything runs in one test, one bug after the other.
//! Each property first holds with no bug active.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use redoubt_core::extent_map::{EXTENT_SECTORS, ExtentMap, StartMarks};
use redoubt_core::ids::{VolumeId, WriteSeq};
use redoubt_core::planted::{Bug, activate};
use redoubt_core::sequencer::{RESERVE_BLOCK, SeqRange, Sequencer};
use redoubt_core::splitter::{CaptureContext, Effect, Event, IoId, Op, Splitter, Stamp};
use redoubt_core::{Extent, Sectors};
use std::collections::BTreeMap;

const SECTORS: u64 = 2048;
type Steps = Vec<(u8, u16)>;
type Property = fn(Steps) -> Result<(), TestCaseError>;

#[derive(Default)]
struct Stream(u64);

impl CaptureContext for Stream {
    fn is_hot(&self, _: Extent) -> bool {
        true
    }
    fn stamp(&mut self, _: IoId, _: &Op) -> Stamp {
        self.0 += 1;
        Stamp::Ordered(SeqRange { first: WriteSeq(self.0), last: WriteSeq(self.0) })
    }
}

/// One value per write, applied to the disk in two halves: an overlap in flight mixes them.
fn apply(image: &mut [u64], io: IoId, op: Op, half: Option<u64>) {
    let value = if matches!(op, Op::Write { .. }) { io.0 } else { 0 };
    let Some(extent) = op.changes() else { return };
    for sector in (extent.lba.0..extent.end()).filter(|sector| half.is_none_or(|half| sector % 2 == half)) {
        image[sector as usize] = value;
    }
}

/// what was acknowledged has its place, and the stream replayed in order is the disk.
fn acknowledged_writes_are_in_the_stream_in_order(steps: Steps) -> Result<(), TestCaseError> {
    let (mut splitter, mut stream) = (Splitter::new(Sectors(SECTORS)), Stream::default());
    let (mut disk, mut replica) = (vec![u64::MAX; SECTORS as usize], vec![u64::MAX; SECTORS as usize]);
    let (mut started, mut stamped): (Vec<(IoId, Op)>, BTreeMap<IoId, Stamp>) = Default::default();
    let drain = std::iter::repeat_n((9u8, 1u16), steps.len());
    for (number, (kind, pick)) in steps.iter().copied().chain(drain).enumerate() {
        let extent = Extent::new(u64::from(pick) % 64, 1 + u64::from(pick >> 8) % 16);
        let op = match kind {
            0 | 1 => Some(Op::Write { extent, fua: false }),
            2 => Some(Op::Write { extent: Extent::new(extent.lba.0, 600), fua: false }),
            3 => Some(Op::WriteZeroes { extent, fua: false, may_unmap: false }),
            _ => None,
        };
        let event = match op {
            Some(op) => Event::Submit { io: IoId(number as u64), op },
            None if started.is_empty() => Event::Hot,
            None => {
                let (io, op) = started.swap_remove(usize::from(pick) % started.len());
                apply(&mut disk, io, op, Some(0));
                Event::Done { io, result: Ok(()) }
            }
        };
        let mut effects = Vec::new();
        splitter.step(event, &mut stream, &mut effects);
        for effect in effects {
            match effect {
                Effect::Start { io, op } => {
                    apply(&mut disk, io, op, Some(1));
                    started.push((io, op));
                }
                Effect::Stamped { io, op, stamp } => {
                    apply(&mut replica, io, op, None);
                    stamped.insert(io, stamp);
                }
                Effect::Complete { io, .. } => prop_assert!(stamped.contains_key(&io), "{io:?} has no place"),
                _ => {}
            }
        }
    }
    prop_assert!(splitter.is_idle());
    prop_assert_eq!(replica, disk);
    Ok(())
}

/// ID-1: no sequence is issued twice across crashes.
fn sequences_are_used_once(steps: Steps) -> Result<(), TestCaseError> {
    let mut record = (WriteSeq(0), WriteSeq(0));
    let (mut sequencer, mut highest) = (Sequencer::resume(record.0, record.1, true), 0);
    for (kind, pick) in steps {
        match kind {
            0..=5 => {
                let Some(range) = sequencer.stamp(1 + u64::from(pick) * (RESERVE_BLOCK >> 20)) else {
                    continue;
                };
                prop_assert!(range.first.0 > highest, "{} is used twice", range.first);
                highest = range.last.0;
            }
            6..=8 => {
                let Some(through) = sequencer.take_reservation() else { continue };
                record = (sequencer.issued(), through);
                sequencer.on_reserved(through);
            }
            _ => sequencer = Sequencer::resume(record.0, record.1, false),
        }
    }
    Ok(())
}

fn map() -> ExtentMap {
    ExtentMap::new(VolumeId(1), Sectors(64 * EXTENT_SECTORS), StartMarks::CompareAll)
}

/// XM-1: an extent is hot only after a write of the log that holds its mark ended well.
fn hot_means_durably_marked(steps: Steps) -> Result<(), TestCaseError> {
    let (mut map, mut is_written) = (map(), false);
    for (kind, pick) in steps {
        let extent = Extent::new(u64::from(pick) % 64 * EXTENT_SECTORS, 8);
        map.want_hot(extent);
        prop_assert!(!map.is_hot(extent) || is_written, "{extent} is hot before its mark is durable");
        if kind > 6 && map.take_persist().is_some() {
            map.on_persisted(Ok::<(), ()>(()));
            is_written = true;
        }
    }
    Ok(())
}

/// XM-3, R-17: only resync reads clear a dirty block.
fn a_reconnect_clears_no_dirty_block(steps: Steps) -> Result<(), TestCaseError> {
    let mut map = map();
    let mut dirty = map.dirty_blocks();
    for (kind, pick) in steps {
        if kind < 5 {
            let block = Extent::new(u64::from(pick) % 1024 * 128, 128);
            let was = map.next_dirty(block.lba.0 / 128) == Some(block.lba.0 / 128);
            map.on_resynced(redoubt_core::Instant(0), block, Stamp::Nothing);
            dirty -= u64::from(was);
        } else {
            map.on_reconnect();
        }
        prop_assert_eq!(map.dirty_blocks(), dirty);
    }
    Ok(())
}

fn check(property: Property) -> Result<(), String> {
    let config = Config { cases: 128, failure_persistence: None, ..Config::default() };
    let steps = prop::collection::vec((0u8..10, any::<u16>()), 1..80);
    TestRunner::new(config).run(&steps, property).map_err(|error| error.to_string())
}

#[test]
fn each_planted_bug_of_the_capture_path_is_caught() {
    let catches: [(Property, &[Bug]); 4] = [
        (acknowledged_writes_are_in_the_stream_in_order, &[Bug::LoseWriteZeroes, Bug::OverlapUnordered]),
        (sequences_are_used_once, &[Bug::ReuseSequence]),
        (hot_means_durably_marked, &[Bug::SkipActivityLogSync]),
        (a_reconnect_clears_no_dirty_block, &[Bug::ClearBitmapOnReconnect]),
    ];
    for (property, bugs) in catches {
        activate(None);
        assert_eq!(check(property), Ok(()));
        for bug in bugs {
            activate(Some(*bug));
            assert!(check(property).is_err(), "{} is not caught", bug.name());
        }
    }
    activate(None);
}
