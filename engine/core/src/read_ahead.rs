//! What a mount reads ahead: finds streams among its reads and says what each will want next.
//!
//! Invariants
//! - AH-1 Nothing is asked for ahead before a stream has read [`PROOF_SECTORS`], half of what it passed, and never more than
//!   [`WINDOW_MAX_SECTORS`] before its reader: a random reader costs nothing.
//! - AH-2 What is asked for ahead is asked for once, lies inside the volume, and continues what was asked before.
//! - AH-3 At most [`STREAMS_MAX`] streams are remembered; the one that rested longest gives way.
//!
//! What is *not* here: reading, and how much of it may be on the way at once.

use crate::units::{Extent, SECTOR_BYTES};

/// Streams remembered: the files that a busy guest reads side by side.
pub const STREAMS_MAX: usize = 8;
/// Read in order before anything is read ahead, 128 KiB: twice what one look at a file takes.
pub const PROOF_SECTORS: u64 = (128 << 10) / SECTOR_BYTES;
/// First window, 512 KiB; it doubles as the stream goes on.
const WINDOW_FIRST_SECTORS: u64 = (512 << 10) / SECTOR_BYTES;
/// Largest window, 4 MiB: all streams together fill half of the units that a mount keeps in memory.
pub const WINDOW_MAX_SECTORS: u64 = (4 << 20) / SECTOR_BYTES;
/// Reads of one stream may come out of order by this much, 1 MiB: clients keep several on the way.
const SLACK_SECTORS: u64 = (1 << 20) / SECTOR_BYTES;

#[derive(Clone, Copy, Debug)]
struct Stream {
    /// Where it began, and where its reader is.
    start: u64,
    next: u64,
    /// Read between them, at most all of it.
    read: u64,
    /// Asked for ahead up to here.
    ahead: u64,
    window: u64,
    /// When it was seen last, counted in reads.
    seen: u64,
}

/// The reads of one volume, as streams.
#[derive(Clone, Debug)]
pub struct ReadAhead {
    sectors: u64,
    reads: u64,
    streams: Vec<Stream>,
}

impl ReadAhead {
    /// Starts with a volume of this size and no stream.
    pub fn new(sectors: u64) -> ReadAhead {
        ReadAhead { sectors, reads: 0, streams: Vec::new() }
    }

    /// Notes a read; returns what to read ahead now, if anything.
    pub fn read(&mut self, extent: Extent) -> Option<Extent> {
        self.reads += 1;
        let (from, to) = (extent.lba.0, extent.end());
        let known = self.streams.iter_mut().find(|stream| {
            from.saturating_add(SLACK_SECTORS) >= stream.next && from <= stream.next + SLACK_SECTORS
        });
        let Some(stream) = known else {
            self.begin(extent);
            return None;
        };
        stream.seen = self.reads;
        stream.next = stream.next.max(to);
        let passed = stream.next - stream.start;
        // Reading one place again proves nothing, and who jumps forward reads less than he passes.
        stream.read = passed.min(stream.read + extent.sectors.0);
        stream.ahead = stream.ahead.max(stream.next);
        let is_dense = stream.read >= PROOF_SECTORS && stream.read >= passed / 2;
        if !is_dense || stream.ahead - stream.next > stream.window / 2 {
            return None;
        }
        let end = (stream.next + stream.window).min(self.sectors);
        let from = stream.ahead;
        stream.ahead = end.max(from);
        stream.window = (stream.window * 2).min(WINDOW_MAX_SECTORS);
        (from < end).then(|| Extent::new(from, end - from))
    }

    fn begin(&mut self, extent: Extent) {
        let (start, next, read) = (extent.lba.0, extent.end(), extent.sectors.0);
        let (window, seen) = (WINDOW_FIRST_SECTORS, self.reads);
        let stream = Stream { start, next, read, ahead: next, window, seen };
        if self.streams.len() < STREAMS_MAX {
            self.streams.push(stream);
        } else if let Some(oldest) = self.streams.iter_mut().min_by_key(|stream| stream.seen) {
            *oldest = stream;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KIB: u64 = (1 << 10) / SECTOR_BYTES;
    const MIB: u64 = KIB << 10;

    /// Reads from `from` on in steps and returns what was asked for ahead.
    fn stream(ahead: &mut ReadAhead, from: u64, step: u64, count: u64) -> Vec<Extent> {
        (0..count).filter_map(|n| ahead.read(Extent::new(from + n * step, step))).collect()
    }

    #[test]
    fn a_stream_is_read_ahead_without_gaps_and_stays_in_front_of_its_reader() {
        let mut ahead = ReadAhead::new(1 << 40);
        let mut covered = None;
        for n in 0..1000 {
            let read = Extent::new(n * 64 * KIB, 64 * KIB);
            if let Some(asked) = ahead.read(read) {
                let begin = covered.unwrap_or(read.end());
                assert_eq!(asked.lba.0, begin, "after what was asked for before");
                covered = Some(asked.end());
            }
            if n >= 3 {
                let front = covered.expect("a stream by now");
                assert!(front > read.end() && front <= read.end() + WINDOW_MAX_SECTORS, "{n}");
            }
        }
    }

    #[test]
    fn random_reads_and_reads_of_one_place_ask_for_nothing() {
        let mut ahead = ReadAhead::new(1 << 40);
        let mut place = 1;
        for _ in 0..1000 {
            place = u64::wrapping_mul(place, 6_364_136_223_846_793_005).wrapping_add(1);
            assert_eq!(ahead.read(Extent::new((place >> 24) - (place >> 24) % 8, 8)), None);
        }
        for _ in 0..1000 {
            assert_eq!(ahead.read(Extent::new(5000, 64)), None);
        }
        // Strides of 128 KiB, a quarter of which is read.
        assert_eq!((0..1000).find_map(|n| ahead.read(Extent::new((1 << 30) + n * 256, 64))), None);
    }

    #[test]
    fn several_streams_go_side_by_side_and_out_of_order() {
        let mut ahead = ReadAhead::new(1 << 40);
        let mut asked = [0; 4];
        for n in 0..64_u64 {
            for (number, asked) in asked.iter_mut().enumerate() {
                // Pairs of reads arrive the wrong way round.
                let at = ((number as u64) << 30) + (n ^ 1) * 32 * KIB;
                *asked += ahead.read(Extent::new(at, 32 * KIB)).map_or(0, |extent| extent.sectors.0);
            }
        }
        assert!(asked.iter().all(|asked| *asked >= 2 * MIB), "{asked:?}");
    }

    #[test]
    fn nothing_is_asked_for_behind_the_end() {
        let mut ahead = ReadAhead::new(4 * MIB + 3);
        let asked = stream(&mut ahead, 0, 64 * KIB, 64);
        assert_eq!(asked.last().map(|last| last.end()), Some(4 * MIB + 3));
    }

    proptest! {
        #[test]
        fn bounds_hold_whatever_is_read(reads in proptest::collection::vec((0u64..1 << 14, 1u64..600), 1..400)) {
            let size = (1 << 14) * 16 + 600;
            let mut ahead = ReadAhead::new(size);
            for (place, sectors) in reads {
                let read = Extent::new(place * 16, sectors);
                if let Some(asked) = ahead.read(read) {
                    prop_assert!(asked.sectors.0 > 0 && asked.end() <= size);
                    prop_assert!(asked.sectors.0 <= WINDOW_MAX_SECTORS);
                }
                prop_assert!(ahead.streams.len() <= STREAMS_MAX);
            }
        }
    }
}
