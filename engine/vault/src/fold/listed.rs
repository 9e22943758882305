//! Folds without a catalogue that names them: what of all that there are says the most.
//!
//! A run's folds say everything about it (FO-3), so any set of complete runs that follow one another from the
//! first slot on is the truth up to its end, if all that they name is there. There may be several: of versions before
//! the newest, which are garbage and half deleted, and of maintainers that died before they published.
//!
//! What is *not* here: reading what the folds name.

use super::{Fold, FoldEnd, FoldInfo};
use crate::error::VaultError;
use crate::index::{Catalogue, Run, TableId};
use crate::load::Log;
use crate::names;
use redoubt_ports::StoreKey;
use std::collections::{BTreeMap, BTreeSet};

/// Runs in the order in which they are tried: those that come farther first, then the later ones.
type Order = (u64, u64, u128);

/// A run with the folds found of it, by their places.
#[derive(Default)]
struct Found {
    from: u64,
    folds: BTreeMap<u32, FoldInfo>,
    end: Option<(u32, FoldEnd)>,
    /// Objects that hold its segments.
    objects: BTreeSet<StoreKey>,
}

impl Found {
    fn is_complete(&self) -> bool {
        self.end.as_ref().is_some_and(|(last, _)| self.folds.len() as u64 == u64::from(*last) + 1)
    }
}

/// Returns a catalogue as it would be if nothing were known but the folds of a machine: mark, points, and runs without
/// rows. Of several the one that comes farthest and of which all is there; none if no run is complete.
pub(crate) async fn newest_listed(log: &Log) -> Result<Option<Catalogue>, VaultError> {
    let mut runs: BTreeMap<Order, Found> = BTreeMap::new();
    let (store, prefix) = (&log.vault.store, names::folds(log.machine));
    for name in store.list(&prefix, None).await? {
        let Some((epoch, uuid)) = names::upload_of(name.as_str(), &prefix) else { continue };
        let Some((fold, info)) = read(log, epoch, uuid).await? else { continue };
        let found = runs.entry((fold.to, epoch, fold.run)).or_default();
        found.from = fold.from;
        found.folds.insert(fold.part, info);
        found.objects.extend(fold.rows.iter().map(|row| row.place.object(log.machine).0));
        if let Some(end) = fold.end {
            found.end = Some((fold.part, end));
        }
    }
    runs.retain(|_, found| found.is_complete());
    let mut there = BTreeSet::new();
    for prefix in [names::segments(log.machine), names::packed_segments(log.machine), names::log(log.machine)]
    {
        there.extend(store.list(&prefix, None).await?);
    }
    let mut best = None;
    for last in runs.keys().rev() {
        let Some(all) = chain(&runs, *last) else { continue };
        let is_there = all.iter().all(|run| runs[run].objects.is_subset(&there));
        let catalogue = catalogue(&runs, &all);
        if !goes_on(log, &catalogue).await? {
            continue;
        }
        if is_there {
            return Ok(Some(catalogue));
        }
        best.get_or_insert(catalogue);
    }
    Ok(best)
}

/// Follows runs back from one to the first slot; returns them oldest first.
fn chain(runs: &BTreeMap<Order, Found>, last: Order) -> Option<Vec<Order>> {
    let mut all = vec![last];
    while let Some(from) = all.last().map(|run| runs[run].from).filter(|from| *from > 1) {
        let before = (from - 1, u64::MAX, u128::MAX);
        let (next, _) = runs.range(..=before).next_back().filter(|(run, _)| run.0 == from - 1)?;
        all.push(*next);
    }
    all.reverse();
    Some(all)
}

fn catalogue(runs: &BTreeMap<Order, Found>, all: &[Order]) -> Catalogue {
    let mut catalogue = Catalogue::default();
    for run in all {
        let Found { from, folds, end, .. } = &runs[run];
        if let Some((_, end)) = end {
            catalogue.live.extend(end.live.iter().cloned());
            catalogue.retired.extend(end.retired.iter().cloned());
            (catalogue.mark, catalogue.clock) = (end.mark.clone(), end.clock);
        }
        let folds = folds.values().copied().collect();
        catalogue.runs.push(Run::without_rows(*from, run.0, folds));
    }
    catalogue.dek = catalogue.mark.dek;
    catalogue.folded()
}

/// Tells whether the log goes on behind the mark, with a record that follows it.
async fn goes_on(log: &Log, catalogue: &Catalogue) -> Result<bool, VaultError> {
    let mark = &catalogue.mark;
    let next = log.vault.store.get(&names::slot(log.machine, mark.log_from()), None).await?;
    let header = next.and_then(|bytes| crate::log::peek(&bytes).ok());
    Ok(header.is_some_and(|(header, _)| header.prev == mark.digest || header.epoch < mark.epoch))
}

/// Reads a fold that no catalogue speaks of; none if it is damaged, or went away meanwhile.
async fn read(log: &Log, epoch: u64, uuid: u128) -> Result<Option<(Fold, FoldInfo)>, VaultError> {
    let Some(bytes) = log.vault.store.get(&names::fold(log.machine, epoch, uuid), None).await? else {
        return Ok(None);
    };
    let Ok(dek) = super::peek_dek(&bytes) else { return Ok(None) };
    let key = match log.keys.get(dek).await {
        Err(VaultError::Store(failure)) => return Err(failure.into()),
        Err(_) => return Ok(None),
        Ok(key) => key,
    };
    let id = TableId { vault: log.vault.uuid, machine: log.machine, uuid, dek };
    let Ok(fold) = super::decode(&id, epoch, &bytes, &key) else { return Ok(None) };
    let (length, digest) = (bytes.len() as u64, *blake3::hash(&bytes).as_bytes());
    let stored = fold.rows.iter().map(|row| row.length).sum();
    let info = FoldInfo { uuid, epoch, length, digest, dek, stored, live: fold.live };
    Ok(Some((fold, info)))
}
