//! What maintainers may do to a vault, judged from the store's own record of what was created and deleted.
//!
//! - Oracle `single-writer`: a catalogue is of a maintainer that claimed the machine, and never follows one of a
//!   newer maintainer; what it covers never goes back.
//! - Oracle `points-restorable`: nobody ever deletes the vault object or a claim, and of the catalogues the newest
//!   three there are stay.
//!
//! Which segments, slots and tables may go depends on sealed content and is not here: whatever was deleted too
//! early is missed when the points are read.

use super::Finding;
use super::history::{Deed, Effect};
use std::collections::{BTreeMap, BTreeSet};

/// Where the header of a catalogue says its slot and its maintainer's epoch (`engine/docs/vault-format.md`).
const SLOT_AT: std::ops::Range<usize> = 80..88;
const EPOCH_AT: std::ops::Range<usize> = 88..96;

/// Catalogues that stay.
const KEPT: usize = 3;

/// One machine.
#[derive(Default)]
struct Machine {
    claimed: u64,
    /// Of the newest version.
    version: u64,
    epoch: u64,
    slot: u64,
    versions: BTreeSet<u64>,
}

impl Machine {
    fn created(&mut self, version: u64, header: &[u8]) -> Option<String> {
        self.versions.insert(version);
        if version <= self.version {
            // A late creation over a name that was deleted: readers begin with the newest.
            return None;
        }
        let number = |at: std::ops::Range<usize>| header.get(at).and_then(|bytes| bytes.first_chunk());
        let [slot, epoch] = [SLOT_AT, EPOCH_AT].map(|at| number(at).map_or(0, |n| u64::from_le_bytes(*n)));
        let (before, covered) = (self.epoch, self.slot);
        (self.version, self.epoch, self.slot) = (version, epoch.max(before), slot.max(covered));
        if epoch > self.claimed {
            Some(format!("by maintainer {epoch}, which nobody claimed"))
        } else if epoch < before {
            Some(format!("by maintainer {epoch}, after one by maintainer {before}"))
        } else if slot < covered {
            Some(format!("up to slot {slot}, after one up to slot {covered}"))
        } else {
            None
        }
    }

    fn deleted(&mut self, version: u64) -> bool {
        self.versions.remove(&version);
        self.versions.range(version..).count() >= KEPT
    }
}

/// Returns the marks of what maintainers did: that a run reached it, nothing more.
pub fn marks(effects: &[Effect]) -> BTreeSet<&'static str> {
    let of = |effect: &Effect| match (effect.deed, effect.key.as_str().split('/').nth(2)?) {
        (Deed::Created, "fold") => Some("log-folded"),
        (Deed::Created, "cseg") => Some("segments-packed-anew"),
        (Deed::Deleted, "log") => Some("folded-log-deleted"),
        _ => None,
    };
    effects.iter().filter_map(of).collect()
}

/// Judges what happened in the store.
pub fn judge(effects: &[Effect]) -> Vec<Finding> {
    let mut machines: BTreeMap<String, Machine> = BTreeMap::new();
    let mut findings = Vec::new();
    for Effect { at, host, key, deed, header } in effects {
        let parts: Vec<&str> = key.as_str().split('/').collect();
        let machine = machines.entry(parts.get(1).copied().unwrap_or_default().to_owned()).or_default();
        let (oracle, wrong) = match (deed, parts.as_slice()) {
            (Deed::Created, ["g", _, "claim", "m", epoch]) => {
                machine.claimed = hex(epoch).max(machine.claimed);
                continue;
            }
            (Deed::Created, ["g", _, "cat", name]) => ("single-writer", machine.created(!hex(name), header)),
            (Deed::CameBack, ["g", _, "cat", name]) => {
                machine.versions.insert(!hex(name));
                continue;
            }
            (Deed::Deleted, ["g", _, "cat", name]) => {
                let is_early = !machine.deleted(!hex(name));
                (
                    "points-restorable",
                    is_early.then(|| "although fewer than three newer ones exist".to_owned()),
                )
            }
            (Deed::Deleted, ["vault"] | ["g", _, "claim", ..]) => {
                ("points-restorable", Some("which must stay for ever".to_owned()))
            }
            _ => continue,
        };
        if let Some(wrong) = wrong {
            let what = format!("{host}: {deed:?} {key} at {:.3} s {wrong}", at.as_secs_f64());
            findings.push(Finding::new(oracle, what));
        }
    }
    findings.truncate(3);
    findings
}

fn hex(number: &str) -> u64 {
    u64::from_str_radix(number, 16).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use redoubt_ports::StoreKey;
    use std::time::Duration;

    fn effect(deed: Deed, key: String, slot: u64, epoch: u64) -> Effect {
        let mut header = vec![0; EPOCH_AT.end];
        header[SLOT_AT].copy_from_slice(&slot.to_le_bytes());
        header[EPOCH_AT].copy_from_slice(&epoch.to_le_bytes());
        Effect { at: Duration::ZERO, host: "a".to_owned(), key: StoreKey::new(key), deed, header }
    }

    fn claim(epoch: u64) -> Effect {
        effect(Deed::Created, format!("g/m/claim/m/{epoch:08x}"), 0, 0)
    }

    fn catalogue(version: u64, slot: u64, epoch: u64) -> Effect {
        effect(Deed::Created, format!("g/m/cat/{:016x}", !version), slot, epoch)
    }

    fn gone(version: u64) -> Effect {
        effect(Deed::Deleted, format!("g/m/cat/{:016x}", !version), 0, 0)
    }

    #[test]
    fn a_maintainer_that_was_superseded_publishes_nothing_more() {
        let good = vec![claim(1), catalogue(1, 4, 1), claim(2), catalogue(2, 8, 1), catalogue(3, 8, 2)];
        assert_eq!(judge(&good), vec![], "one in flight when the claim was made is built upon");
        for bad in [catalogue(4, 12, 1), catalogue(4, 12, 3), catalogue(4, 7, 2)] {
            let effects = [good.clone(), vec![bad]].concat();
            assert_eq!(judge(&effects).len(), 1, "{effects:?}");
        }
    }

    #[test]
    fn claims_and_the_newest_three_catalogues_stay() {
        let mut effects = vec![claim(1)];
        effects.extend((1..=4).map(|version| catalogue(version, version, 1)));
        effects.push(gone(1));
        assert_eq!(judge(&effects), vec![]);
        for bad in [gone(2), effect(Deed::Deleted, "g/m/claim/m/00000001".to_owned(), 0, 0)] {
            let effects = [effects.clone(), vec![bad]].concat();
            assert_eq!(judge(&effects).len(), 1, "{effects:?}");
        }
    }
}
