//! Folds runs whose points are all decided, and moves the beginning of the log behind them.

use super::build::Tables;
use super::{BuildError, Maintainer};
use crate::error::{ReadError, VaultError};
use crate::fold::{self, Fold, FoldInfo, FoldRow, Mark};
use crate::index::{Catalogue, Object, PointOf, Run, TableId};
use crate::key_ring::DataKey;
use crate::names;
use bytes::Bytes;
use redoubt_core::maintenance::KeptPoint;
use std::collections::BTreeSet;
use std::ops::Range;

/// What became of a stretch.
pub(super) struct Folded {
    pub(super) run: Run,
    pub(super) mark: Mark,
    /// What the log and the folds before named and the new folds do not.
    pub(super) dropped: BTreeSet<Object>,
}

impl Maintainer {
    /// Returns the slot before which all points of the next version are decided.
    pub(super) fn decided(&self, next: &Catalogue) -> u64 {
        let kept = |point: &PointOf| {
            let (id, kind, wall) = (point.info.id, point.info.marker.kind, point.info.marker.wall);
            KeptPoint { id, kind, wall, at: point.at }
        };
        let live: Vec<_> = next.live.iter().map(kept).collect();
        next.live.get(self.settings.keep.decided(&live)).map_or(0, |point| point.info.id.slot)
    }

    /// Makes one run, with its fold, of the runs of a range.
    pub(super) async fn fold(
        &mut self,
        base: &Catalogue,
        next: &Catalogue,
        range: Range<usize>,
        key: &DataKey,
        tables: &mut Tables,
    ) -> Result<Folded, BuildError> {
        let old = &next.runs[range];
        let (from, to) = (old[0].from, old[old.len() - 1].to);
        let mut run =
            self.merge(old, std::iter::empty(), (from, to), key, tables).await.map_err(BuildError::Base)?;
        let mut fold = Fold { from, to, ..Fold::default() };
        for info in old.iter().flat_map(|run| &run.folds) {
            let read = self.log.fold(info).await.map_err(|failure| BuildError::Log(failure.into()))?;
            let name = || names::fold(self.log.machine, info.epoch, info.uuid);
            let read = read.map_err(|what| BuildError::Log(VaultError::damaged(name(), what)))?;
            fold.rows.extend(read.rows);
            fold.zeros.extend(read.zeros);
        }
        let rows = &mut fold.rows;
        let end = fold::gather(&self.log, base.mark.tail(), to, |row| rows.push(row)).await;
        let end = end.map_err(BuildError::Log)?;
        let containers: BTreeSet<u64> =
            fold.rows.iter().filter_map(|row| Some(row.place.inline()?.0)).collect();
        let dropped = slots_between(base.mark.slot + 1, to, &containers).collect();
        run.folds.push(self.put_fold(&fold, key).await?);
        Ok(Folded { run, mark: Mark::at(&end), dropped })
    }

    async fn put_fold(&mut self, fold: &Fold, key: &DataKey) -> Result<FoldInfo, BuildError> {
        let (vault, machine) = (self.log.vault.uuid, self.log.machine);
        let (uuid, epoch, dek) = (self.entropy.id(), self.claim.epoch, key.id);
        let name = names::fold(machine, epoch, uuid);
        let bytes =
            fold::encode(&TableId { vault, machine, uuid, dek }, epoch, fold, &key.key).map(Bytes::from);
        let bytes = bytes
            .ok_or_else(|| BuildError::Log(VaultError::damaged(&name, "the fold has outgrown its limit")))?;
        self.upload(Object::Fold { epoch, uuid }, &bytes)
            .await
            .map_err(|error| BuildError::Base(ReadError::Store(error)))?;
        let (length, digest) = (bytes.len() as u64, *blake3::hash(&bytes).as_bytes());
        let stored = fold.rows.iter().map(|row: &FoldRow| row.length).sum();
        Ok(FoldInfo { uuid, epoch, length, digest, dek, stored, live: stored })
    }
}

/// Returns the stretches of slots between two, both included, that hold no segment that is kept.
fn slots_between(first: u64, last: u64, containers: &BTreeSet<u64>) -> impl Iterator<Item = Object> {
    let ends = containers.range(first..=last).copied().chain([last + 1]);
    let begin = std::iter::once(first).chain(containers.range(first..=last).map(|slot| slot + 1));
    begin.zip(ends).filter(|(from, to)| from < to).map(|(first, to)| Object::Slots { first, last: to - 1 })
}
