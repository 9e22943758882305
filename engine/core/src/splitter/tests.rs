//! The splitter against a disk and a replica that replays the stream.

use super::*;
use crate::ids::WriteSeq;
use crate::sequencer::SeqRange;
use proptest::prelude::*;

/// Hot sectors in eighths of the volume, and the stream as (io, op) in the order of the stamps.
#[derive(Default)]
struct World {
    hot: bool,
    /// Bits of sectors, by groups of eight, that are hot although not all are.
    groups: u8,
    asked: std::cell::Cell<usize>,
    stream: Vec<(IoId, Op)>,
}

impl CaptureContext for World {
    fn is_hot(&self, extent: Extent) -> bool {
        self.asked.set(self.asked.get() + 1);
        self.hot
            || (extent.lba.0 / 8..extent.end().div_ceil(8)).all(|group| self.groups >> (group % 8) & 1 == 1)
    }
    fn stamp(&mut self, io: IoId, op: &Op) -> Stamp {
        self.stream.push((io, *op));
        let seq = WriteSeq(self.stream.len() as u64);
        Stamp::Ordered(SeqRange { first: seq, last: seq })
    }
}

fn fill(disk: &mut [u64], extent: Extent, value: u64) {
    disk[extent.lba.0 as usize..extent.end() as usize].fill(value);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn replaying_the_stream_in_order_gives_the_disk(
        steps in prop::collection::vec((0u8..11, 0u64..60, 1u64..8, any::<u16>()), 1..200),
    ) {
        let (mut splitter, mut world) = (Splitter::new(Sectors(64)), World::default());
        let (mut disk, mut replica) = (vec![0u64; 64], vec![0u64; 64]);
        let (mut started, mut effects, mut next): (Vec<(IoId, Op)>, Vec<Effect>, u64) = Default::default();
        // Reads back what the disk holds, by operation.
        let mut read: BTreeMap<IoId, Vec<u64>> = BTreeMap::new();
        let mut submitted_after: BTreeMap<IoId, usize> = BTreeMap::new();
        let mut completed = 0;
        let end = std::iter::repeat_n((7u8, 0, 1, 0u16), 2000);
        for (kind, lba, len, pick) in steps.into_iter().chain(end) {
            let extent = Extent::new(lba, len);
            let event = match kind {
                0 | 1 => Some(Op::Write { extent, fua: false }),
                2 => Some(Op::WriteZeroes { extent, fua: false, may_unmap: true }),
                8 => Some(Op::Trim { extent }),
                9 if pick.is_multiple_of(8) => Some(Op::Resize { sectors: Sectors(40 + u64::from(pick >> 8) % 25) }),
                3 => Some(if pick % 2 == 0 { Op::ResyncRead { extent } } else { Op::Flush }),
                _ => None,
            };
            let event = match event {
                Some(op) => { next += 1; Event::Submit { io: IoId(next), op } }
                None if kind == 10 => { world.groups = pick as u8; Event::Hot }
                None if kind == 4 || started.is_empty() => { world.hot = true; Event::Hot }
                None => {
                    let (io, op) = started.swap_remove(pick as usize % started.len());
                    let may_fail = op.changes().is_some() || matches!(op, Op::Recapture { .. });
                    let failed = kind == 6 && may_fail;
                    match op {
                        // A failed write leaves some sectors new and the rest old.
                        _ if failed => for sector in op.changes().map_or(0..0, |e| e.lba.0..e.end()) {
                            if (sector + u64::from(pick >> 8)).is_multiple_of(2) {
                                disk[sector as usize] = if matches!(op, Op::Write { .. }) { io.0 } else { 0 };
                            }
                        },
                        Op::Write { extent, .. } => fill(&mut disk, extent, io.0),
                        Op::WriteZeroes { extent, .. } | Op::Trim { extent } => fill(&mut disk, extent, 0),
                        Op::Resize { sectors } => disk[sectors.0 as usize..].fill(0),
                        Op::ResyncRead { extent } | Op::Recapture { extent } => {
                            let range = extent.lba.0 as usize..extent.end() as usize;
                            read.insert(io, disk[range].to_vec());
                        }
                        _ => {}
                    }
                    Event::Done { io, result: if failed { Err(IoFailure::Device) } else { Ok(()) } }
                }
            };
            let mut events = vec![event];
            while let Some(event) = events.pop() {
                if let Event::Submit { io, .. } = event {
                    submitted_after.insert(io, world.stream.len());
                }
                splitter.step(event, &mut world, &mut effects);
                for effect in effects.drain(..) {
                    match effect {
                        Effect::Start { io, op } => {
                            for (_, other) in &started {
                                prop_assert!(!other.conflicts(&op), "CP-1");
                            }
                            prop_assert!(op.changes().is_none_or(|extent| world.is_hot(extent)), "CP-2");
                            started.push((io, op));
                        }
                        Effect::Stamped { io, op, .. } => match op {
                            Op::Write { extent, .. } => fill(&mut replica, extent, io.0),
                            Op::WriteZeroes { extent, .. } | Op::Trim { extent } => fill(&mut replica, extent, 0),
                            Op::Resize { sectors } => replica[sectors.0 as usize..].fill(0),
                            _ => if let Some(extent) = op.extent() {
                                let range = extent.lba.0 as usize..extent.end() as usize;
                                replica[range].copy_from_slice(&read[&io]);
                            },
                        },
                        Effect::Complete { .. } => completed += 1,
                        Effect::Recapture { extent, .. } => {
                            next += 1;
                            events.push(Event::Submit { io: IoId(next), op: Op::Recapture { extent } });
                        }
                        Effect::MarkHot { .. } => {}
                    }
                }
            }
        }
        prop_assert!(splitter.is_idle() && !splitter.is_recapture_pending());
        prop_assert_eq!(completed, next);
        prop_assert_eq!(&replica, &disk);
        for (place, (io, _)) in world.stream.iter().enumerate() {
            prop_assert!(place >= submitted_after[io], "CP-3");
        }
    }
}

#[test]
fn an_operation_beyond_the_end_fails_at_its_turn_after_a_resize() {
    let (mut s, mut world, mut out) =
        (Splitter::new(Sectors(8)), World { hot: true, ..World::default() }, vec![]);
    let write = Op::Write { extent: Extent::new(8, 4), fua: false };
    s.step(Event::Submit { io: IoId(1), op: Op::Resize { sectors: Sectors(16) } }, &mut world, &mut out);
    s.step(Event::Submit { io: IoId(2), op: write }, &mut world, &mut out);
    assert_eq!(out.len(), 1, "the write waits for the resize");
    s.step(Event::Done { io: IoId(1), result: Ok(()) }, &mut world, &mut out);
    assert_eq!(out.last(), Some(&Effect::Start { io: IoId(2), op: write }));
    let beyond = Op::Trim { extent: Extent::new(15, 2) };
    s.step(Event::Submit { io: IoId(3), op: beyond }, &mut world, &mut out);
    assert!(matches!(out.last(), Some(Effect::Complete { result: Err(IoFailure::OutOfRange { .. }), .. })));
}

#[test]
fn a_full_queue_asks_for_heat_once_per_operation_and_starts_in_order() {
    let (mut s, mut world, mut out) = (Splitter::new(Sectors(1 << 20)), World::default(), vec![]);
    for io in 0..QUEUED_MAX as u64 {
        let op = Op::Write { extent: Extent::new(io, 1), fua: false };
        s.step(Event::Submit { io: IoId(io), op }, &mut world, &mut out);
    }
    assert_eq!(world.asked.get(), QUEUED_MAX, "each waits for its mark and is asked about once");
    assert!(!s.has_room());
    s.step(Event::Submit { io: IoId(QUEUED_MAX as u64), op: Op::Flush }, &mut world, &mut out);
    assert_eq!(out.pop(), Some(Effect::Complete { io: IoId(4096), result: Err(IoFailure::Overloaded) }));
    world.hot = true;
    let mut order = Vec::new();
    let mut event = Event::Hot;
    loop {
        out.clear();
        world.asked.set(0);
        s.step(event, &mut world, &mut out);
        assert!(world.asked.get() <= IN_FLIGHT_MAX, "asked {} times in one step", world.asked.get());
        order.extend(out.iter().filter_map(|effect| match effect {
            Effect::Start { io, .. } => Some(io.0),
            _ => None,
        }));
        assert!(s.active.len() <= IN_FLIGHT_MAX);
        let Some((io, _)) = s.active.first_key_value() else { break };
        event = Event::Done { io: *io, result: Ok(()) };
    }
    assert_eq!(order, (0..QUEUED_MAX as u64).collect::<Vec<_>>());
}

#[test]
fn an_extent_that_cooled_while_its_write_waited_is_asked_for_again() {
    let (mut s, mut world, mut out) = (Splitter::new(Sectors(64)), World::default(), vec![]);
    let extent = Extent::new(6, 4);
    s.step(Event::Submit { io: IoId(1), op: Op::Trim { extent } }, &mut world, &mut out);
    world.groups = 0b10;
    s.step(Event::Hot, &mut world, &mut out);
    assert_eq!(out, [Effect::MarkHot { extent }, Effect::MarkHot { extent }]);
}

#[test]
fn what_a_resize_leaves_of_a_failed_write_is_still_read_back() {
    let (mut s, mut world, mut out) =
        (Splitter::new(Sectors(16)), World { hot: true, ..World::default() }, vec![]);
    let extent = Extent::new(4, 8);
    s.step(Event::Submit { io: IoId(1), op: Op::Trim { extent } }, &mut world, &mut out);
    s.step(Event::Submit { io: IoId(2), op: Op::Resize { sectors: Sectors(6) } }, &mut world, &mut out);
    s.step(Event::Done { io: IoId(1), result: Err(IoFailure::Device) }, &mut world, &mut out);
    s.step(Event::Submit { io: IoId(3), op: Op::Recapture { extent } }, &mut world, &mut out);
    s.step(Event::Done { io: IoId(2), result: Ok(()) }, &mut world, &mut out);
    let left = Effect::Recapture { extent: Extent::new(4, 2), attempt: 0 };
    assert!(out.contains(&left) && s.is_recapture_pending());
}
