//! Plays a benchmark's job on a model: so many requests at once, each followed by the next.
//!
//! Chances come from an even sequence, so that the same job always gives the same answer.

use crate::{CERTAIN, DiskClock, DiskModel, Operation};
use std::time::Duration;

/// Requests of one job: enough for the last quantile of [`crate::Quantiles`] to be met twenty times.
const REQUESTS: u32 = 20_000;

/// What a job measured on a model.
#[derive(Clone, Debug)]
pub(crate) struct Played {
    /// How long each request took, shortest first.
    times: Vec<Duration>,
    /// How long all took.
    total: Duration,
}

impl Played {
    /// Returns the time that this part per million of all requests did not exceed.
    pub(crate) fn at(&self, chance: u32) -> Duration {
        let rank = (self.times.len() as u64 * u64::from(chance)).div_ceil(u64::from(CERTAIN)).max(1);
        self.times.get(rank as usize - 1).or(self.times.last()).copied().unwrap_or_default()
    }

    /// Returns the requests per second.
    pub(crate) fn per_second(&self) -> f64 {
        self.times.len() as f64 / self.total.as_secs_f64().max(1e-9)
    }
}

/// Plays one kind of request with so many at once.
pub(crate) fn play(model: &DiskModel, what: Operation, at_once: u32) -> Played {
    let (mut clock, mut chances) = (DiskClock::default(), Chances::even());
    let mut lanes = vec![Duration::ZERO; at_once.max(1) as usize];
    let mut times = Vec::with_capacity(REQUESTS as usize);
    for _ in 0..REQUESTS {
        let Some(lane) = lanes.iter_mut().min() else { break };
        let end = clock.serve(model, *lane, what, chances.next()).end;
        times.push(end.saturating_sub(*lane));
        *lane = end;
    }
    times.sort_unstable();
    Played { times, total: lanes.into_iter().max().unwrap_or_default() }
}

/// A sequence that meets every chance evenly: multiples of an irrational number, without their whole part. Random
/// numbers would need a hundred times as many requests for the same accuracy in the last quantile.
pub(crate) struct Chances {
    step: u64,
    at: u64,
}

impl Chances {
    /// Multiples of the golden ratio.
    pub(crate) const fn even() -> Chances {
        Chances { step: 0x9E37_79B9_7F4A_7C15, at: 0 }
    }

    /// Two sequences that meet every pair of chances evenly: the plane's counterpart of the golden ratio.
    pub(crate) const fn pair() -> [Chances; 2] {
        [Chances { step: 0xC13F_A9A9_02A6_328F, at: 0 }, Chances { step: 0x91E1_0DA5_C79E_7B1D, at: 0 }]
    }

    /// Returns the next chance, in parts per million.
    pub(crate) fn next(&mut self) -> u32 {
        self.at = self.at.wrapping_add(self.step);
        (((self.at >> 32) * u64::from(CERTAIN + 1)) >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DISKS, find};

    #[test]
    fn one_at_once_shows_the_quantiles_of_the_model() {
        let model: DiskModel = find(&DISKS, "flash").unwrap().unwrap();
        let played = play(&model, Operation::Read(0), 1);
        for chance in [100_000, 500_000, 900_000, 990_000] {
            let (seen, told) = (played.at(chance).as_micros() as f64, model.read_us.at(chance) as f64);
            assert!((seen / told - 1.0).abs() < 0.02, "{chance}: {seen} and {told}");
        }
        let mean = 1e6 / played.per_second();
        assert!((mean / model.read_us.mean() - 1.0).abs() < 0.05, "{mean}");
    }

    #[test]
    fn many_large_requests_reach_the_rate() {
        let model: DiskModel = find(&DISKS, "flash").unwrap().unwrap();
        let rate = play(&model, Operation::Read(1 << 20), 8).per_second() * f64::from(1 << 20);
        assert!((rate / model.read_bytes_per_second as f64 - 1.0).abs() < 0.01, "{rate}");
    }
}
