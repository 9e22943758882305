//! What a scale may be: what is divided must stay large enough to be played.
//!
//! What is *not* here: the division itself (`crate::scale`).

use super::codes::Code;
use super::problem::Problem;
use super::quantity::{Range, Unit};
use super::reader::Reader;
use super::tree::{Node, Table};
use super::{Estate, Load};
use redoubt_hw_models as hw;
use std::collections::BTreeMap;

/// A write of a scaled estate.
pub const PAGE_BYTES: u64 = 4096;

/// Largest scale.
pub(super) const SCALE_MAX: i64 = 1_000_000;

/// Smallest disk of a run: a database has its log and pages on it.
const DISK_LEAST: u64 = 256 << 10;
/// Smallest part of a stage that one machine has: several of the largest batches of a resync.
const STAGE_LEAST: u64 = 1 << 20;
/// Smallest spill.
const SPILL_LEAST: u64 = 1 << 20;
/// Smallest spool in memory.
const SPOOL_LEAST: u64 = 64 << 10;

/// One page passes the link within this time: a session ends after 16 s of silence, and some dozen machines that have
/// a backlog at once take turns.
const TURN_MS: u64 = 500;

/// Models of guests whose writes are small enough to stand for many.
const SMALL: &[&str] = &["pages", "trickle", "database"];

/// Reads a share.
pub(super) fn share(reader: &mut Reader, node: &Node) -> Option<u32> {
    let share = reader.amount(node, Unit::Ppm, 0)?;
    if share > 1_000_000 {
        reader.report(Code::OutOfBounds, node.span, "a share lies between 0 % and 100 %");
        return None;
    }
    Some(share as u32)
}

/// Returns what the link between the sites of an estate carries, in bytes per second.
pub fn carries(estate: &Estate) -> u64 {
    let model = || hw::find::<hw::LinkModel>(&hw::LINKS, &estate.link)?.ok();
    estate.bandwidth.or_else(|| Some(model()?.bytes_per_second)).unwrap_or(1)
}

/// Returns the slowest link, in bytes per second, on which an estate can be played at its scale.
pub fn slowest_link(estate: &Estate) -> u64 {
    if estate.scale == 1 { 1 } else { (PAGE_BYTES * estate.scale * 1000).div_ceil(TURN_MS) }
}

/// Returns the longest time for which one page alone has the link at this rate, in milliseconds: figures are no finer.
pub fn finest(estate: &Estate, bandwidth: u64) -> u64 {
    (PAGE_BYTES * estate.scale * 1000).div_ceil(bandwidth.max(1))
}

/// Reports a scale at which an estate cannot be played.
pub(super) fn check(reader: &mut Reader, table: &Table, estate: &Estate) {
    let (Some(node), 2..) = (table.get("scale"), estate.scale) else { return };
    let machines = estate.machines.len() as u64;
    let words = |value: u64| Range { low: value as i64, high: value as i64, unit: Unit::Bytes }.words();
    let smallest = estate.machines.iter().flat_map(|machine| &machine.disks).min();
    let bounds = [
        ("the smallest disk", smallest.copied().unwrap_or(u64::MAX), DISK_LEAST),
        ("each machine's part of the stage", estate.stage / machines.max(1), STAGE_LEAST),
        ("the spill", estate.spill, SPILL_LEAST),
        ("the spool in memory", estate.spool_memory, SPOOL_LEAST),
    ];
    for (what, size, least) in bounds {
        if size / estate.scale < least {
            let told = format!(
                "at this scale {what} is {}, and it needs {}",
                words(size / estate.scale),
                words(least)
            );
            let most = size / least;
            let help = match most {
                0 | 1 => format!(
                    "it is {} now; at this scale it would have to be {}",
                    words(size),
                    words(least * estate.scale)
                ),
                _ => format!("a scale of at most {most}, or {} of it", words(least * estate.scale)),
            };
            reader.problem(Problem::new(Code::TooFine, node.span, told).help(help));
        }
    }
    let (carries, turn_ms) = (carries(estate), finest(estate, carries(estate)));
    if turn_ms > TURN_MS {
        let told =
            format!("at this scale one page takes {turn_ms} ms on the link, and {TURN_MS} ms is the most");
        let most = (carries * TURN_MS / (PAGE_BYTES * 1000)).max(1);
        reader
            .problem(Problem::new(Code::TooFine, node.span, told).help(format!("a scale of at most {most}")));
    }
}

/// Reports guests whose writes are too large to stand for many.
pub(super) fn check_loads(
    reader: &mut Reader,
    estate_node: Option<&Node>,
    estate: &Estate,
    loads: &BTreeMap<String, Load>,
) {
    let node = estate_node.and_then(Node::table).and_then(|table| table.get("scale"));
    let (Some(node), 2..) = (node, estate.scale) else { return };
    if let Some((name, load)) = loads.iter().find(|(_, load)| !SMALL.contains(&load.model.as_str())) {
        let what =
            format!("the guest of {name} is of the model {:?}, whose large writes do not scale", load.model);
        let help = format!("give it one of these models in [load]: {}", SMALL.join(", "));
        reader.problem(Problem::new(Code::Conflict, node.span, what).help(help));
    }
}
