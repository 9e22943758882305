//! Makes folded runs anew, of their folds and the tables of the segments that they name: what was dropped and lies in
//! a segment that stayed comes back, and changes nothing at a kept point (FO-1).
//!
//! Invariants
//! - AN-1 Memory is that of one stretch of the log: what is more becomes a run of its own first, and all are merged.

use super::build::Tables;
use super::{BuildError, Maintainer};
use crate::error::{ReadError, VaultError};
use crate::fold::FoldRow;
use crate::index::{Catalogue, Run, Tail};
use crate::key_ring::DataKey;
use std::collections::BTreeSet;

/// Segments whose tables are in memory at once: some ten thousand entries each at most.
const SEGMENTS_AT_ONCE: usize = if cfg!(test) { 3 } else { 64 };

impl Maintainer {
    /// Returns a version with folded runs of which no table is known to be damaged.
    pub(super) async fn make_anew(&mut self, base: &Catalogue) -> Result<Catalogue, BuildError> {
        let key = self.log.keys.get(base.dek).await.map_err(BuildError::Log)?;
        let key = DataKey { id: base.dek, key };
        let mut anew = Catalogue { runs: Vec::new(), tables: Tables::new(), ..base.clone() };
        for run in &base.runs {
            let mut made = self.run_anew(run, &key, &mut anew.tables).await?;
            made.folds.clone_from(&run.folds);
            anew.runs.push(made);
        }
        let named: BTreeSet<u128> = anew.runs.iter().flat_map(Run::tables).collect();
        anew.tables.retain(|uuid, _| named.contains(uuid));
        Ok(anew)
    }

    async fn run_anew(&mut self, run: &Run, key: &DataKey, tables: &mut Tables) -> Result<Run, BuildError> {
        let (slots, mut parts) = ((run.from, run.to), Vec::new());
        for info in &run.folds {
            let fold = self.read_fold(info).await.map_err(base_damage)?;
            let mut zeros = &fold.zeros[..];
            let no_rows: Option<&[FoldRow]> = fold.rows.is_empty().then_some(&[]);
            for rows in fold.rows.chunks(SEGMENTS_AT_ONCE).chain(no_rows) {
                let read = self.log.folded_tables(rows.to_vec()).await;
                let segments = read.map_err(|error| base_damage(BuildError::Log(error)))?;
                // Versions of segments come in no order: a tail holds those that are sorted together.
                let mut tail = Tail::to_load();
                tail.add_folded(&segments, std::mem::take(&mut zeros));
                parts.push(self.merge(&[], tail.items(), slots, key, tables).await?);
            }
        }
        Ok(match &parts[..] {
            [one] => one.clone(),
            several => self.merge(several, std::iter::empty(), slots, key, tables).await?,
        })
    }
}

/// Damage of what a version names: it is to be built on less of it.
fn base_damage(error: BuildError) -> BuildError {
    match error {
        BuildError::Fold(VaultError::Damaged { object, what })
        | BuildError::Log(VaultError::Damaged { object, what }) => {
            BuildError::Base(ReadError::Damaged { object, from: 0, to: 0, what })
        }
        BuildError::Log(VaultError::Store(failure)) => BuildError::Base(ReadError::Store(failure)),
        other => other,
    }
}
