//! When a disk of a model has served a request: the one place that turns its numbers into time.
//!
//! A request passes the throttle, waits for a place in the queue, for its turn on the bus, which carries one
//! transfer after another, and for the medium. The lab's disks and the error of a fit both use this clock, so that the error is
//! the one the lab will have.
//!
//! What is *not* here: drawing the chance, waiting, content, faults (`redoubt-sim`).

use crate::DiskModel;
use std::time::Duration;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Reads so many bytes.
    Read(u64),
    /// Writes so many bytes.
    Write(u64),
    /// Writes so many bytes and has them durable.
    DurableWrite(u64),
    /// Makes what was written durable.
    Flush,
}

/// Time between two moments of one disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// It has a place in the queue.
    pub begin: Duration,
    /// It is done.
    pub end: Duration,
}

/// When the parts of one disk are free.
#[derive(Clone, Debug, Default)]
pub struct DiskClock {
    places: Vec<Duration>,
    bus: Duration,
    cache: Bucket,
    operations: Bucket,
    peak: Bucket,
    bytes: Bucket,
}

/// Lets a rate through, and more as long as something was saved up.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// All that was let through would have passed at the rate by then.
    paid: Duration,
}

impl Bucket {
    /// Returns when so much passes that comes now.
    fn pass(&mut self, now: Duration, amount: u64, per_second: u64, burst: u64) -> Duration {
        let (cost, saved) = (span(amount, per_second), span(burst, per_second));
        let passes = now.max((self.paid + cost).saturating_sub(saved));
        self.paid = self.paid.max(now) + cost;
        passes
    }
}

/// Returns how long an amount takes at a rate.
fn span(amount: u64, per_second: u64) -> Duration {
    let nanos = u128::from(amount) * 1_000_000_000 / u128::from(per_second.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

impl DiskClock {
    /// Takes a request that comes now and returns when it is served. `chance` in parts per million says how
    /// lucky it is: 0 as fast as ever, 1,000,000 as slow as ever.
    pub fn serve(&mut self, model: &DiskModel, now: Duration, what: Operation, chance: u32) -> Service {
        self.places.resize(model.queue_depth.max(1) as usize, Duration::ZERO);
        let allowed = self.throttled(model, now, what);
        let free = self.places.iter().enumerate().min_by_key(|(_, free)| **free);
        let (place, free) = free.map_or((0, now), |(place, free)| (place, *free));
        let begin = allowed.max(free);
        let media = Duration::from_micros(media_us(model, what, chance));
        let end = match what {
            Operation::Read(bytes) => self.transfer(begin, bytes, model.read_bytes_per_second) + media,
            Operation::Write(bytes) | Operation::DurableWrite(bytes) => {
                let room = model.write_cache.map_or(begin, |cache| {
                    self.cache.pass(begin, bytes, cache.drains_bytes_per_second, cache.bytes)
                });
                self.transfer(begin, bytes, model.write_bytes_per_second) + media + (room - begin)
            }
            Operation::Flush => begin + media,
        };
        if let Some(place) = self.places.get_mut(place) {
            *place = end;
        }
        Service { begin, end }
    }

    /// Takes its turn on the bus. Requests come in the order in which they begin, so that none waits for a
    /// slow one that came later.
    fn transfer(&mut self, begin: Duration, bytes: u64, per_second: u64) -> Duration {
        self.bus = self.bus.max(begin) + span(bytes, per_second);
        self.bus
    }

    fn throttled(&mut self, model: &DiskModel, now: Duration, what: Operation) -> Duration {
        let (Some(limits), Operation::Read(bytes) | Operation::Write(bytes) | Operation::DurableWrite(bytes)) =
            (model.throttle, what)
        else {
            return now;
        };
        let counted = self.operations.pass(now, 1, limits.operations_per_second, limits.burst_operations);
        let counted = self.peak.pass(counted, 1, limits.peak_operations_per_second, 1);
        self.bytes.pass(now, bytes, limits.bytes_per_second, limits.burst_bytes).max(counted)
    }
}

fn media_us(model: &DiskModel, what: Operation, chance: u32) -> u64 {
    match what {
        Operation::Read(_) => model.read_us.at(chance),
        Operation::Write(_) => model.write_us.at(chance),
        Operation::DurableWrite(_) => model.write_us.at(chance) + model.flush_us.at(chance),
        Operation::Flush => model.flush_us.at(chance),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DISKS, Quantiles, Throttle, WriteCache, find};

    const SECOND: Duration = Duration::from_secs(1);

    fn plain() -> DiskModel {
        let model: DiskModel = find(&DISKS, "flash").unwrap().unwrap();
        let (read_us, write_us, flush_us) =
            (Quantiles::fixed(100), Quantiles::fixed(50), Quantiles::fixed(1000));
        DiskModel { queue_depth: 2, read_us, write_us, flush_us, ..model }
    }

    fn micros(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    #[test]
    fn requests_beyond_the_queue_wait_for_a_place() {
        let (mut clock, model) = (DiskClock::default(), plain());
        let ends: Vec<_> =
            (0..3).map(|_| clock.serve(&model, Duration::ZERO, Operation::Flush, 0).end).collect();
        assert_eq!(ends, [micros(1000), micros(1000), micros(2000)]);
    }

    #[test]
    fn the_bus_carries_one_transfer_after_another() {
        let mut clock = DiskClock::default();
        let model = DiskModel { read_bytes_per_second: 1_000_000, ..plain() };
        let ends: Vec<_> =
            (0..2).map(|_| clock.serve(&model, Duration::ZERO, Operation::Read(1000), 0).end).collect();
        assert_eq!(ends, [micros(1100), micros(2100)]);
    }

    #[test]
    fn a_throttled_disk_keeps_its_rate_once_its_savings_are_spent() {
        let limits = Throttle {
            operations_per_second: 100,
            peak_operations_per_second: 100_000,
            burst_operations: 10,
            bytes_per_second: u64::MAX,
            burst_bytes: 1,
        };
        let (mut clock, model) = (DiskClock::default(), DiskModel { throttle: Some(limits), ..plain() });
        let mut serve = |now| clock.serve(&model, now, Operation::Read(512), 0).begin;
        let begins: Vec<_> = (0..111).map(|_| serve(Duration::ZERO)).collect();
        assert!(begins[..10].iter().all(|begin| *begin < SECOND / 100), "{begins:?}");
        assert_eq!(begins[110].as_millis(), 1010);
        // It saves up again, but never more than the burst.
        let later = SECOND * 100;
        let free = (0..50).filter(|_| serve(later) < later + SECOND / 100).count();
        assert_eq!(free, 10);
    }

    #[test]
    fn writes_slow_down_when_the_fast_room_is_full() {
        let cache = WriteCache { bytes: 1_000_000, drains_bytes_per_second: 1_000_000 };
        let model = DiskModel { write_cache: Some(cache), write_bytes_per_second: u64::MAX, ..plain() };
        let mut clock = DiskClock::default();
        let mut now = Duration::ZERO;
        for _ in 0..300 {
            now = clock.serve(&model, now, Operation::Write(10_000), 0).end;
        }
        assert!((1_990..2_100).contains(&now.as_millis()), "3 MB through 1 MB of room: {now:?}");
    }

    #[test]
    fn no_luck_takes_longer() {
        let model = DiskModel { read_us: Quantiles { max: 9000, ..plain().read_us }, ..plain() };
        let end = |chance| DiskClock::default().serve(&model, SECOND, Operation::Read(0), chance).end;
        assert_eq!((end(0), end(1_000_000)), (SECOND + micros(100), SECOND + micros(9000)));
    }
}
