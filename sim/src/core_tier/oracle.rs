//! What the oracles know of a guest, and what they say: the same judges as in the full lab, over pages instead of
//! sectors. Each marker is judged when it lands in the vault, so that a finding stands near its cause.
//!
//! | oracle | from the specification | judged |
//! |---|---|---|
//! | prefix | everything before a marker is one consistent cut | each marker that lands |
//! | converges | at rest the newest point equals the source | the last marker |
//! | loss-never-hidden | what an agent was told is in the vault is there | each acknowledgement |
//! | order-kept | what was acknowledged as staged is durable; nobody meets another history | each acknowledgement, each look |
//! | single-writer | an older generation gets no session; a log has one writer | each welcome, each slot |
//! | guest-untouched | replication fails no operation and holds none up | at the end |
//! | bounded | memory, spill and stage stay within their bounds | each look |
//! | points-restorable | what lands follows what is there | each commit |

use super::common::Common;
use super::content::Cell;
use super::vault::{Claimed, MachineVault};
use crate::oracles::guest_untouched::{self, Excuse};
use crate::oracles::order_kept::Losses;
use crate::oracles::{Finding, prefix};
use crate::workload::notices::Notices;
use crate::workload::{Cut, MachineLog, Seen};
use redoubt_core::MarkerId;
use std::collections::BTreeMap;
use std::time::Duration;

/// Everything a guest did and noticed.
pub(super) struct Guest {
    pub(super) log: MachineLog,
    pub(super) cuts: BTreeMap<MarkerId, Cut>,
    pub(super) notices: Notices,
    pub(super) excuses: Vec<Excuse>,
    /// The marker that ends the run, and when it was cut.
    pub(super) last: Option<(MarkerId, u64)>,
    /// Whether it landed.
    pub(super) is_last_there: bool,
    /// Losses that agents told of, over all their lives.
    pub(super) losses: Losses,
    pub(super) judged: u64,
}

/// Returns cells as the judges see them.
pub(super) fn seen(cells: &[Cell]) -> Vec<Seen> {
    cells.iter().map(|cell| if *cell == 0 { Seen::Zero } else { Seen::Op(*cell, 0) }).collect()
}

impl Guest {
    pub(super) fn new(machine: u16, pages: &[u64]) -> Guest {
        Guest {
            log: MachineLog::new(machine, pages),
            cuts: BTreeMap::new(),
            notices: Notices::default(),
            excuses: Vec::new(),
            last: None,
            is_last_there: false,
            losses: Losses::default(),
            judged: 0,
        }
    }

    /// An operation ended; `at` in nanoseconds.
    pub(super) fn notice(
        &mut self,
        at: u64,
        volume: u16,
        what: &'static str,
        took: u64,
        error: Option<&str>,
    ) {
        let (at, took) = (Duration::from_nanos(at), Duration::from_nanos(took));
        self.notices.ended(at, volume, what, took, error);
    }

    /// Judges the image at a marker.
    fn judge(&mut self, vault: &MachineVault, marker: &Claimed) -> Option<Finding> {
        self.judged += 1;
        let images: Vec<Vec<Seen>> = vault.image.iter().map(|cells| seen(cells)).collect();
        let Some(cut) = self.cuts.get(&marker.id) else {
            let what = format!("marker {} is in the vault, and nobody asked for it", marker.id.0);
            return Some(Finding::new("prefix", what));
        };
        let verdict = prefix::judge(&self.log, *cut, &images).err();
        let kind = if marker.is_exact { "the point at" } else { "a marker that was cut in a resync," };
        verdict.map(|what| Finding::new("prefix", format!("{kind} marker {}: {what}", marker.id.0)))
    }
}

impl Common {
    /// A commit's slot lands: batches go into the vault and their markers before the judge. False if the log is
    /// another writer's.
    pub(super) fn land(
        &mut self,
        machine: usize,
        writer: (u64, u64),
        batches: &[u32],
        disks: &[Vec<Cell>],
    ) -> bool {
        let mut found = Vec::new();
        let truth = &mut self.truths[machine];
        let (guest, ledger) = (&mut truth.guest, super::common::lock(&truth.ledger));
        let result = truth.vault.commit(writer, batches, &ledger, &mut |vault, marker| {
            found.extend(guest.judge(vault, &marker));
            if guest.last.is_some_and(|(last, _)| last == marker.id) {
                guest.is_last_there = marker.is_exact;
                found.extend(compare(vault, disks));
            }
        });
        drop(ledger);
        let points = self.truths[machine].vault.points;
        if points > 0 {
            self.marks.insert("point-published");
        }
        for Finding { oracle, what } in found {
            self.find(oracle, format!("{}: {what}", self.name(machine)));
        }
        match result {
            Err(_) => false,
            Ok(wrong) => {
                if let Some(wrong) = wrong {
                    self.find("points-restorable", format!("{}: {wrong}", self.name(machine)));
                }
                true
            }
        }
    }

    /// Judges what a guest noticed, and what its agents told of losses.
    pub(super) fn judge_guest(&mut self, machine: usize, is_order_excused: bool) {
        let name = self.name(machine).to_owned();
        let guest = &self.truths[machine].guest;
        let mut found = guest_untouched::judge(&name, guest.notices.noted(), &guest.excuses);
        found.extend(crate::oracles::order_kept::judge(&name, guest.losses, is_order_excused));
        for finding in found {
            self.find(finding.oracle, finding.what);
        }
    }
}

/// After the sources are at rest, source and replica are equal.
fn compare(vault: &MachineVault, disks: &[Vec<Cell>]) -> Option<Finding> {
    let pairs = vault.image.iter().zip(disks).enumerate();
    let mut differing = pairs.filter_map(|(volume, (image, disk))| {
        let page = image.iter().zip(disk).position(|(a, b)| a != b)?;
        let (vault, disk) = (image[page], disk[page]);
        Some(format!(
            "volume {volume} differs from its source at rest, first in page {page}: operation {vault} in the vault, {disk} on the disk"
        ))
    });
    differing.next().map(|what| Finding::new("converges", what))
}
