//! A model as text: its times as curves, and what it can do at each size of request.

use crate::play::play;
use crate::{DiskModel, LinkModel, Operation, Quantiles, StoreModel};
use std::fmt::Write;

/// Cells of the longest bar.
const WIDTH: f64 = 40.0;

/// Chances that are drawn.
const DRAWN: [(u32, &str); 9] = [
    (0, "min"),
    (250_000, "p25"),
    (500_000, "p50"),
    (750_000, "p75"),
    (900_000, "p90"),
    (990_000, "p99"),
    (999_000, "p99.9"),
    (999_900, "p99.99"),
    (1_000_000, "max"),
];

/// Sizes of requests whose rate is shown.
const SIZES: [u64; 4] = [4 << 10, 64 << 10, 256 << 10, 1 << 20];

/// Requests at once whose rate is shown.
const AT_ONCE: [u32; 3] = [1, 8, 64];

/// Draws a disk.
pub fn disk(model: &DiskModel) -> String {
    let curves = [("read", &model.read_us), ("write", &model.write_us), ("flush", &model.flush_us)];
    let mut text = draw(&curves);
    let cache = if model.volatile_cache { "is lost" } else { "is kept" };
    let _ = writeln!(text, "what was not flushed  {cache} by a power loss");
    let _ = writeln!(text, "served at once        {}", model.queue_depth);
    let _ = writeln!(text, "physical sector       {} B", model.physical_sector_bytes);
    if let Some(room) = model.write_cache {
        let (size, rate) = (size(room.bytes), rate(room.drains_bytes_per_second as f64));
        let _ = writeln!(text, "quick writes          until {size} are full, then {rate}");
    }
    if let Some(limits) = model.throttle {
        let rate = rate(limits.bytes_per_second as f64);
        let _ = writeln!(text, "sold as               {} operations/s, {rate}", limits.operations_per_second);
        let saved = (limits.burst_operations, size(limits.burst_bytes));
        let _ = writeln!(text, "saves up              {} operations, {}", saved.0, saved.1);
    }
    let _ = write!(text, "\nrate of {:>16}", "");
    for at_once in AT_ONCE {
        let _ = write!(text, "{:>14}", format!("{at_once} at once"));
    }
    text.push('\n');
    for (name, what) in [("reads", Operation::Read as fn(u64) -> Operation), ("writes", Operation::Write)] {
        for block in SIZES {
            let _ = write!(text, "{:<24}", format!("{name} of {}", size(block)));
            for at_once in AT_ONCE {
                let per_second = play(model, what(block), at_once).per_second() * block as f64;
                let _ = write!(text, "{:>14}", rate(per_second));
            }
            text.push('\n');
        }
    }
    text
}

/// Draws one direction of a link.
pub fn link(model: &LinkModel) -> String {
    let mut text = draw(&[("one way", &model.delay_us)]);
    let _ = writeln!(text, "rate                  {}", rate(model.bytes_per_second as f64));
    let _ = writeln!(text, "queue                 {}", size(model.queue_bytes));
    let _ = writeln!(text, "sent again            {} of a million pieces", model.loss_ppm);
    text
}

/// Draws a store.
pub fn store(model: &StoreModel) -> String {
    let mut text = draw(&[("request", &model.request_us)]);
    let _ = writeln!(text, "rate of one request   {}", rate(model.bytes_per_second as f64));
    text
}

/// Draws curves of times below one another, all on one logarithmic scale.
fn draw(curves: &[(&str, &Quantiles)]) -> String {
    let shortest = curves.iter().map(|(_, times)| times.min.max(1)).min().unwrap_or(1) as f64;
    let longest = curves.iter().map(|(_, times)| times.max.max(2)).max().unwrap_or(2) as f64;
    // The shortest time gets a cell too.
    let scale = (longest / shortest).ln().max(f64::MIN_POSITIVE);
    let mut text = String::new();
    for (name, times) in curves {
        for (at, (chance, figure)) in DRAWN.into_iter().enumerate() {
            let micros = times.at(chance);
            let part = (micros.max(1) as f64 / shortest).ln() / scale;
            let cells = 1 + (part * (WIDTH - 1.0)).round() as usize;
            let name = if at == 0 { name } else { "" };
            let _ = writeln!(text, "{name:<8} {figure:<7} {:>9}  {}", time(micros), "█".repeat(cells));
        }
        text.push('\n');
    }
    text
}

/// Writes a time with its unit.
pub fn time(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..1_000_000 => short(micros as f64 / 1e3, "ms"),
        _ => short(micros as f64 / 1e6, "s"),
    }
}

/// Writes a rate with its unit.
pub fn rate(bytes_per_second: f64) -> String {
    let (value, unit) = match bytes_per_second {
        0.0..1e3 => (bytes_per_second, "B/s"),
        1e3..1e6 => (bytes_per_second / 1e3, "kB/s"),
        1e6..1e9 => (bytes_per_second / 1e6, "MB/s"),
        _ => (bytes_per_second / 1e9, "GB/s"),
    };
    short(value, unit)
}

/// Writes a size with its unit: powers of 1024 if it is one of them.
fn size(bytes: u64) -> String {
    match bytes {
        _ if bytes >= 1 << 20 && bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        _ if bytes >= 1 << 10 && bytes.is_multiple_of(1 << 10) && bytes < 1 << 20 => {
            format!("{} KiB", bytes >> 10)
        }
        1_000_000_000.. => short(bytes as f64 / 1e9, "GB"),
        1_000_000.. => short(bytes as f64 / 1e6, "MB"),
        _ => format!("{bytes} B"),
    }
}

fn short(value: f64, unit: &str) -> String {
    if value < 10.0 && value.fract() >= 0.05 {
        format!("{value:.1} {unit}")
    } else {
        format!("{value:.0} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DISKS, LINKS, STORES, find};

    #[test]
    fn every_kind_of_model_is_drawn() {
        let drawn = disk(&find(&DISKS, "cloud-premium").unwrap().unwrap())
            + &link(&find(&LINKS, "satellite").unwrap().unwrap())
            + &store(&find(&STORES, "cloud").unwrap().unwrap());
        insta::assert_snapshot!(drawn);
    }

    #[test]
    fn units_fit_their_numbers() {
        assert_eq!(
            (time(999), time(1_500), time(2_000_000)),
            ("999 µs".into(), "1.5 ms".into(), "2 s".into())
        );
        assert_eq!(
            (size(4096), size(1 << 20), size(40_000_000_000)),
            ("4 KiB".into(), "1 MiB".into(), "40 GB".into())
        );
    }
}
