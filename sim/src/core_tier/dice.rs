//! Chance: one seeded stream for everything that a run leaves open, and the times of hardware drawn from it.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use redoubt_hw_models::{CERTAIN, Quantiles};
use std::ops::Range;

/// Nanoseconds of a microsecond.
pub(super) const MICRO: u64 = 1_000;
/// Nanoseconds of a millisecond.
pub(super) const MILLI: u64 = 1_000_000;
/// Nanoseconds of a second.
pub(super) const SECOND: u64 = 1_000_000_000;

/// The stream of a run.
pub(super) struct Dice(ChaCha8Rng);

impl Dice {
    pub(super) fn new(seed: u64) -> Dice {
        Dice(ChaCha8Rng::seed_from_u64(seed))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Draws a number below `end`, which is not zero.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }

    pub(super) fn between(&mut self, range: Range<u64>) -> u64 {
        range.start + self.below(range.end - range.start)
    }

    /// Tells whether something with this chance, in parts per million, happens; what never happens takes no throw.
    pub(super) fn happens(&mut self, ppm: u32) -> bool {
        ppm > 0 && self.below(u64::from(CERTAIN)) < u64::from(ppm)
    }

    pub(super) fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }
}

/// Entries of a table of times: a draw looks one up, so that the tail beyond one in a thousand is its last entry.
const ENTRIES: u64 = 1 << 10;

/// How long something takes, ready to be drawn.
pub(super) struct Times(Vec<u64>);

impl Times {
    pub(super) fn of(quantiles: &Quantiles) -> Times {
        let chance = |entry: u64| (entry * u64::from(CERTAIN) / (ENTRIES - 1)) as u32;
        Times((0..ENTRIES).map(|entry| quantiles.at(chance(entry)) * MICRO).collect())
    }

    /// Draws a time in nanoseconds.
    pub(super) fn draw(&self, dice: &mut Dice) -> u64 {
        self.0[dice.below(ENTRIES) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_stream_and_times_stay_within_their_model() {
        let (mut one, mut other) = (Dice::new(7), Dice::new(7));
        assert!((0..100).all(|_| one.next() == other.next()));
        let model = Quantiles::of(|chance| 100 + u64::from(chance) / 1000);
        let times = Times::of(&model);
        assert!((0..1000).all(|_| (100 * MICRO..=1100 * MICRO).contains(&times.draw(&mut one))));
    }
}
