//! The planner against a disk, a vault that lags behind, and guests that write meanwhile.

use super::*;
use crate::extent_map::BLOCK_SECTORS;
use proptest::prelude::*;

const VOLUME: VolumeIndex = VolumeIndex(0);
const BLOCKS: u64 = 300;

struct Bits {
    dirty: BTreeSet<u64>,
    blocks: u64,
}

impl Bits {
    fn of(dirty: impl IntoIterator<Item = u64>) -> Bits {
        Bits { dirty: dirty.into_iter().collect(), blocks: BLOCKS }
    }
}

impl DirtyBlocks for Bits {
    fn next_dirty(&self, _: VolumeIndex, from: u64) -> Option<u64> {
        self.dirty.range(from..).next().copied()
    }
    fn block_extent(&self, _: VolumeIndex, block: u64) -> Option<Extent> {
        (block < self.blocks).then(|| Extent::new(block * BLOCK_SECTORS, BLOCK_SECTORS))
    }
    fn dirty_count(&self, _: VolumeIndex) -> u64 {
        self.dirty.len() as u64
    }
}

fn around(dirty: &Bits) -> Around<'_> {
    Around { dirty, is_connected: true, is_complete: true, has_room: true }
}

fn content(byte: u8) -> Content {
    if byte == 0 { Content::Zeros } else { Content::Data(Some([byte; 32])) }
}

fn planner() -> ResyncPlanner {
    ResyncPlanner::new(WriteSeq(1), [VOLUME])
}

/// A disk, the stream on its way, and the vault at its end.
struct World {
    disk: Vec<u8>,
    vault: Vec<u8>,
    stream: Vec<(u64, u8)>,
    bits: Bits,
    asked: Vec<(u64, Extent)>,
    reads: Vec<Extent>,
}

impl World {
    fn write(&mut self, block: u64, byte: u8) {
        self.disk[block as usize] = byte;
        self.stream.push((block, byte));
    }

    fn apply(&mut self, count: usize) {
        for (block, byte) in self.stream.drain(..count.min(self.stream.len())) {
            self.vault[block as usize] = byte;
        }
    }

    /// Ends a read; what the planner sends goes into the stream.
    fn read(&mut self, planner: &mut ResyncPlanner, run: Extent) {
        let contents: Vec<Content> = blocks_in(run).map(|block| content(self.disk[block as usize])).collect();
        let verdicts = planner.on_read(VOLUME, run, &contents);
        for (block, verdict) in blocks_in(run).zip(verdicts) {
            if verdict != Verdict::Same {
                self.stream.push((block, self.disk[block as usize]));
            }
            self.bits.dirty.remove(&block);
        }
    }

    fn end_of_stream(&self) -> Vec<u8> {
        let mut image = self.vault.clone();
        for (block, byte) in &self.stream {
            image[*block as usize] = *byte;
        }
        image
    }

    fn resize(&mut self, blocks: u64) {
        self.bits.blocks = blocks;
        self.bits.dirty.retain(|block| *block < blocks);
        for block in blocks..BLOCKS {
            // Both sides lose what lies beyond, in the order of the stream.
            self.write(block, 0);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn a_finished_resync_leaves_the_end_of_the_stream_equal_to_the_disk(
        disk in prop::collection::vec(0u8..3, 300), old in prop::collection::vec(0u8..3, 300),
        steps in prop::collection::vec((0u8..12, any::<u16>()), 0..600),
    ) {
        let bits = Bits::of((0..BLOCKS).filter(|block| disk[*block as usize] != old[*block as usize] || block % 3 == 0));
        let mut world = World { disk, vault: old, stream: vec![], bits, asked: vec![], reads: vec![] };
        let mut planner = planner();
        let (mut now, mut effects, mut last) = (Instant(0), Vec::new(), Progress::default());
        planner.step(now, Event::Poll, around(&world.bits), &mut effects);
        let quiet = std::iter::repeat_n([(7u8, 0u16), (0, 0), (9, 0)], 2000).flatten();
        for (kind, pick) in steps.into_iter().chain(quiet) {
            let mut event = Event::Poll;
            let at = pick as usize;
            match kind {
                0..=4 if !world.reads.is_empty() => {
                    let run = world.reads.swap_remove(at % world.reads.len());
                    if blocks_in(run).end > world.bits.blocks {
                        planner.on_read_refused(VOLUME, run);
                    } else if kind == 4 {
                        planner.on_read_failed(now, VOLUME, run);
                    } else {
                        world.read(&mut planner, run);
                    }
                }
                5 | 6 => {
                    let block = u64::from(pick) % world.bits.blocks;
                    world.write(block, (pick >> 9) as u8 % 3);
                }
                7 if !world.asked.is_empty() => {
                    // The answer may be older than what the guest wrote since, not than the begin.
                    let (id, extent) = world.asked.swap_remove(at % world.asked.len());
                    // One from before it says what it likes: here that all is equal.
                    let is_old = pick.is_multiple_of(5);
                    let told = if is_old { &world.disk } else { &world.vault };
                    let hashes = blocks_in(extent).map(|block| match content(told[block as usize]) {
                        Content::Data(hash) => hash,
                        Content::Zeros => None,
                    });
                    let as_of = WriteSeq(u64::from(!is_old));
                    event = Event::HashReply { id, as_of, hashes: hashes.collect() };
                }
                8 => { world.asked.clear(); event = Event::LinkDown; }
                9 => world.apply(1 + at % 7),
                10 if pick % 8 == 0 => {
                    let blocks = [BLOCKS, 200, 77][at / 8 % 3].min(world.bits.blocks);
                    world.resize(blocks);
                    event = Event::Resized { volume: VOLUME, blocks };
                }
                _ => now = now.after(Duration::from_secs(2)),
            }
            let room = Around { has_room: kind != 11, ..around(&world.bits) };
            planner.step(now, event, room, &mut effects);
            for effect in effects.drain(..) {
                match effect {
                    Effect::Compare { id, extent, after, .. } => {
                        prop_assert_eq!(after, WriteSeq(1));
                        world.asked.push((id, extent));
                    }
                    Effect::ReadRun { extent, .. } => world.reads.push(extent),
                    Effect::Finished => {
                        prop_assert!(world.bits.dirty.is_empty() && world.end_of_stream() == world.disk);
                    }
                }
            }
            now = if kind == 9 { now.after(Duration::from_secs(2)) } else { now };
            let p = planner.progress();
            prop_assert!(p.total >= last.total && p.sent >= last.sent && p.skipped >= last.skipped);
            last = p;
        }
        prop_assert!(planner.is_finished());
    }
}

/// Answers every question with zeros and collects the reads, until nothing moves.
fn run_all(planner: &mut ResyncPlanner, now: Instant, bits: &Bits) -> Vec<Extent> {
    let (mut effects, mut reads) = (Vec::new(), Vec::new());
    planner.step(now, Event::Poll, around(bits), &mut effects);
    while !effects.is_empty() {
        for effect in std::mem::take(&mut effects) {
            match effect {
                Effect::Compare { id, extent, .. } => {
                    let hashes = vec![None; blocks_in(extent).count()];
                    planner.step(
                        now,
                        Event::HashReply { id, as_of: WriteSeq(1), hashes },
                        around(bits),
                        &mut effects,
                    );
                }
                Effect::ReadRun { extent, .. } => reads.push(extent),
                Effect::Finished => {}
            }
        }
    }
    reads
}

#[test]
fn an_unreadable_block_keeps_the_resync_open_and_holds_no_other() {
    let mut bits = Bits::of(0..RUN_BLOCKS);
    let mut planner = planner();
    let run = run_all(&mut planner, Instant(0), &bits);
    assert_eq!(run, [Extent::new(0, RUN_BLOCKS * BLOCK_SECTORS)]);
    planner.on_read_failed(Instant(0), VOLUME, run[0]);
    let due = Instant(0).after(retry_delay(1));
    assert_eq!(run_all(&mut planner, Instant(0), &bits), []);
    for single in run_all(&mut planner, due, &bits) {
        let block = blocks_in(single).start;
        if block == 5 {
            planner.on_read_failed(due, VOLUME, single);
        } else {
            planner.on_read(VOLUME, single, &[Content::Zeros]);
            bits.dirty.remove(&block);
        }
    }
    assert_eq!((bits.dirty.len(), planner.unreadable_blocks(), planner.is_finished()), (1, 1, false));
    let mut now = due;
    for attempt in 2..9 {
        assert_eq!(run_all(&mut planner, now, &bits), [], "attempt {attempt} comes too early");
        now = now.after(retry_delay(attempt));
        let again = run_all(&mut planner, now, &bits);
        assert_eq!(again, [Extent::new(5 * BLOCK_SECTORS, BLOCK_SECTORS)]);
        planner.on_read_failed(now, VOLUME, again[0]);
    }
}

#[test]
fn questions_run_ahead_of_reads_that_find_no_room() {
    let bits = Bits { dirty: (0..100_000).collect(), blocks: 100_000 };
    let (mut planner, mut effects) = (planner(), Vec::new());
    let full = Around { has_room: false, ..around(&bits) };
    planner.step(Instant(0), Event::Poll, full, &mut effects);
    let asked: u64 = effects
        .drain(..)
        .filter_map(|effect| match effect {
            Effect::Compare { extent, .. } => Some(extent.sectors.0 / BLOCK_SECTORS),
            _ => None,
        })
        .sum();
    assert_eq!(asked as usize, AHEAD_BLOCKS_MAX);
    planner.step(
        Instant(0),
        Event::HashReply { id: 1, as_of: WriteSeq(1), hashes: vec![None; QUESTION_BLOCKS as usize] },
        full,
        &mut effects,
    );
    assert_eq!(effects, [], "no read without room");
    planner.step(Instant(0), Event::Poll, around(&bits), &mut effects);
    let reads = effects.iter().filter(|effect| matches!(effect, Effect::ReadRun { .. })).count();
    assert_eq!(reads, READS_AT_ONCE);
}

#[test]
fn a_run_is_cut_into_the_records_that_it_needs() {
    use Verdict::{Same, Write, Zeroes};
    let verdicts = [Same, Same, Write, Write, Zeroes, Zeroes, Same, Zeroes];
    let run = Extent::new(0, 8 * BLOCK_SECTORS - 3);
    let cut = pieces(run, &verdicts);
    let expected = [(0, 2, Same), (2, 1, Write), (3, 1, Write), (4, 2, Zeroes), (6, 1, Same), (7, 1, Zeroes)];
    assert_eq!(cut.len(), expected.len());
    for (piece, (first, blocks, verdict)) in cut.iter().zip(expected) {
        let end = ((first + blocks) * BLOCK_SECTORS).min(run.end());
        let extent = Extent::new(first * BLOCK_SECTORS, end - first * BLOCK_SECTORS);
        assert_eq!(*piece, Piece { extent, verdict });
    }
}
