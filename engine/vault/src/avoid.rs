//! What must not be used of the index after damage was met: tables, and versions of the catalogue.
//!
//! A version is used whole; without the runs that the log can say as well; without any run, its folds and the log say
//! the same (IX-4); or not at all. Versions that name a damaged table share the damage, so that nobody meets it once
//! for each of them.

use crate::error::ReadError;
use crate::index::{Catalogue, Run};
use crate::names;
use redoubt_core::MachineId;
use std::collections::{BTreeMap, BTreeSet};

/// How much of a version of the catalogue is not to be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Damage {
    /// Runs that the log can say as well.
    Runs,
    /// Folded runs too: their folds can say the same.
    Folded,
    /// All of it.
    All,
}

/// Damage met so far.
#[derive(Debug, Default)]
pub(crate) struct Avoid {
    versions: BTreeMap<u64, Damage>,
    tables: BTreeSet<u128>,
}

impl Avoid {
    /// Notes damage met in what a version names.
    pub(crate) fn met(&mut self, machine: MachineId, catalogue: &Catalogue, damage: &ReadError) {
        let version = catalogue.version;
        if let Some(table) = table_of(machine, damage).filter(|table| catalogue.tables.contains_key(table))
            && self.tables.insert(table)
        {
            self.of(catalogue);
            return;
        }
        let next = match self.versions.get(&version) {
            None => Damage::Runs,
            Some(Damage::Runs) => Damage::Folded,
            Some(Damage::Folded | Damage::All) => Damage::All,
        };
        self.versions.insert(version, next);
    }

    /// Tables are not there.
    pub(crate) fn lost(&mut self, tables: impl Iterator<Item = u128>) {
        self.tables.extend(tables);
    }

    /// Nothing of a version can be used.
    pub(crate) fn spoilt(&mut self, version: u64) {
        self.versions.insert(version, Damage::All);
    }

    /// Returns what is not to be used of a version; none if it is whole, as far as anybody knows.
    pub(crate) fn of(&mut self, catalogue: &Catalogue) -> Option<Damage> {
        let is_hit = |run: &&Run| run.tables().any(|table| self.tables.contains(&table));
        let by_table = match catalogue.runs.iter().find(is_hit) {
            Some(run) if !run.folds.is_empty() => Some(Damage::Folded),
            Some(_) => Some(Damage::Runs),
            None => None,
        };
        let damage = self.versions.get(&catalogue.version).copied().max(by_table);
        if let Some(damage) = damage {
            self.versions.insert(catalogue.version, damage);
        }
        damage
    }

    /// Tells whether damage of a version was met.
    pub(crate) fn knows(&self, version: u64) -> bool {
        self.versions.contains_key(&version)
    }
}

fn table_of(machine: MachineId, damage: &ReadError) -> Option<u128> {
    let ReadError::Damaged { object, .. } = damage else { return None };
    Some(names::upload_of(object, &names::tables(machine))?.1)
}
