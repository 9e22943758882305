//! The modelled maintainer's runs: adds what the log has new, merges, folds and packs.

use crate::Mutant;
use crate::maintainer::Maintainer;
use crate::store::{Catalogue, Name, Record, Row, Run};
use crate::world::Tail;
use redoubt_core::maintenance::{RunShape, Work, next_work};
use std::collections::BTreeSet;
use std::ops::Range;
use std::rc::Rc;

/// Entries of a slot: makes runs of a few slots cross the sizes at which they are merged.
const ENTRIES: u64 = 1500;

/// Brings the runs of the next version up to date; returns what it needs no more.
pub(crate) async fn fold(
    me: &mut Maintainer,
    next: &mut Catalogue,
    covered: u32,
    tail: &Tail,
) -> BTreeSet<Name> {
    let mut dropped = BTreeSet::new();
    if next.slot > covered {
        let object = upload(me).await;
        let entries = u64::from(next.slot - covered) * ENTRIES;
        next.runs.push(Run { last: next.slot, entries, object, fold: None });
    }
    let is_mutant = me.port.is(Mutant::DropLastRecord);
    let (decided, end) =
        if is_mutant { (u64::MAX, u64::MAX) } else { (decided(me, next), u64::from(tail.slot)) };
    while let Some(work) = next_work(&shapes(next), decided, end) {
        match work {
            Work::Merge(range) => merge(me, next, range, None, &mut dropped).await,
            Work::Fold(range) => {
                let rows = rows(me, next, &range, tail, &mut dropped).await;
                merge(me, next, range, Some(rows), &mut dropped).await;
            }
        }
    }
    // A run that was made and replaced in one round was never named.
    dropped
}

fn shapes(next: &Catalogue) -> Vec<RunShape> {
    let shape = |run: &Run| RunShape {
        last: u64::from(run.last),
        entries: run.entries,
        is_folded: run.fold.is_some(),
    };
    next.runs.iter().map(shape).collect()
}

/// Returns the slot before which every point is decided.
fn decided(me: &Maintainer, next: &Catalogue) -> u64 {
    let live = &next.points.live;
    let decided = me.port.0.borrow().ladder.decided(live);
    live.get(decided).map_or(0, |point| u64::from(point.id))
}

async fn upload(me: &mut Maintainer) -> Name {
    let name = Name::Upload(me.epoch, me.port.fresh());
    me.port.upload(name).await;
    me.uploads.push(name);
    name
}

async fn merge(
    me: &mut Maintainer,
    next: &mut Catalogue,
    range: Range<usize>,
    fold: Option<Rc<Vec<Row>>>,
    dropped: &mut BTreeSet<Name>,
) {
    let object = upload(me).await;
    let (last, entries) = {
        let runs = &next.runs[range.clone()];
        (runs[runs.len() - 1].last, runs.iter().map(|run| run.entries).sum())
    };
    let old = next.runs.splice(range, [Run { last, entries, object, fold }]);
    dropped.extend(old.map(|run| run.object));
}

/// Returns the rows of a fold: each version that a live or retired point sees, and the last of each block. Moves the
/// beginning of the log behind the stretch.
async fn rows(
    me: &mut Maintainer,
    next: &mut Catalogue,
    range: &Range<usize>,
    tail: &Tail,
    dropped: &mut BTreeSet<Name>,
) -> Rc<Vec<Row>> {
    let runs = &next.runs[range.clone()];
    let last = runs[runs.len() - 1].last;
    let mut all: Vec<Row> =
        runs.iter().filter_map(|run| run.fold.as_ref()).flat_map(|f| f.iter().copied()).collect();
    dropped.extend(all.iter().map(|row| row.object));
    let log: Vec<Record> =
        tail.records.iter().filter(|r| r.slot >= next.log_from && r.slot <= last).copied().collect();
    for record in log {
        let object = record.segment.unwrap_or(Name::Log(record.slot));
        dropped.extend([Name::Log(record.slot), object]);
        all.extend(record.key.map(|key| Row { slot: record.slot, key, object }));
        let is_void = record.epoch < next.before.1;
        let position = if is_void { next.before.2 } else { record.from + u32::from(record.key.is_some()) };
        next.before = (record.id, record.epoch.max(next.before.1), position);
        next.log_from = record.slot + 1;
    }
    let needed = next.points.needed();
    let is_seen = |row: &Row| {
        let end =
            all.iter().find(|newer| newer.key == row.key && newer.slot > row.slot).map(|newer| newer.slot);
        end.is_none_or(|end| needed.iter().any(|point| (row.slot..end).contains(point)))
    };
    let mut kept: Vec<Row> = all.iter().filter(|row| is_seen(row)).copied().collect();
    if !kept.is_empty() && me.port.below(3) == 0 {
        let packed = upload(me).await;
        let from = me.port.below(kept.len() as u32) as usize;
        kept[from..].iter_mut().for_each(|row| row.object = packed);
    }
    for row in &kept {
        dropped.remove(&row.object);
    }
    Rc::new(kept)
}
