//! Oracle `single-writer`: once a newer claim exists, an older writer creates one more slot at most, the
//! one it had in flight; and none at all after the newer one has written its first, however late a request
//! arrives.
//!
//! Judged from the store's own record of what was created, by whom and in which order.

use super::Finding;
use super::history::{Deed, Effect};
use std::collections::BTreeMap;

/// Where the header of a log record says its epoch (`engine/docs/vault-format.md`).
const EPOCH_AT: std::ops::Range<usize> = 56..64;

/// What the creations so far say about one machine's log.
#[derive(Default)]
struct Log {
    newest_claim: u64,
    /// Newest epoch that has written a slot.
    newest_epoch: u64,
    newest_slot: u64,
    /// Slots of an epoch since a newer one was claimed.
    late: BTreeMap<u64, u32>,
}

impl Log {
    /// Takes a slot; says what is wrong with it.
    fn slot(&mut self, slot: u64, epoch: u64) -> Option<String> {
        if slot <= self.newest_slot {
            // A late creation over a name that was deleted: no reader looks there any more.
            return None;
        }
        let (sealed, claimed) = (self.newest_epoch, self.newest_claim);
        self.newest_slot = slot;
        self.newest_epoch = epoch.max(sealed);
        let mut late = 0;
        if epoch < claimed {
            let count = self.late.entry(epoch).or_default();
            *count += 1;
            late = *count;
        }
        if epoch < sealed {
            Some(format!("of epoch {epoch}, after epoch {sealed} had sealed the log"))
        } else if epoch > claimed {
            Some(format!("of epoch {epoch}, which nobody claimed"))
        } else if late > 1 {
            Some(format!("of epoch {epoch}, its slot number {late} since epoch {claimed} was claimed"))
        } else {
            None
        }
    }
}

/// Judges what happened in the store.
pub fn judge(effects: &[Effect]) -> Vec<Finding> {
    let mut logs: BTreeMap<String, Log> = BTreeMap::new();
    let mut findings = Vec::new();
    for effect in effects.iter().filter(|effect| effect.deed == Deed::Created) {
        let (key, host) = (&effect.key, &effect.host);
        let mut parts = key.as_str().split('/').skip(1);
        let (Some(machine), Some(kind)) = (parts.next(), parts.next()) else { continue };
        let rest: Vec<&str> = parts.collect();
        let log = logs.entry(machine.to_owned()).or_default();
        let wrong = match (kind, rest.as_slice()) {
            ("claim", ["w", epoch]) => {
                log.newest_claim = hex(epoch).max(log.newest_claim);
                None
            }
            ("log", [slot]) => {
                let epoch = effect.header.get(EPOCH_AT).and_then(|bytes| bytes.first_chunk());
                log.slot(hex(slot), epoch.map_or(0, |epoch| u64::from_le_bytes(*epoch)))
            }
            _ => None,
        };
        if let Some(wrong) = wrong {
            let what = format!("{host} created {key} at {:.3} s {wrong}", effect.at.as_secs_f64());
            findings.push(Finding::new("single-writer", what));
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

    fn created(key: String, epoch: u64) -> Effect {
        let mut header = vec![0; EPOCH_AT.end];
        header[EPOCH_AT].copy_from_slice(&epoch.to_le_bytes());
        let (at, host, key) = (Duration::ZERO, "a".to_owned(), StoreKey::new(key));
        Effect { at, host, key, deed: Deed::Created, header }
    }

    fn claim(epoch: u64) -> Effect {
        created(format!("g/m/claim/w/{epoch:08x}"), epoch)
    }

    fn slot(slot: u64, epoch: u64) -> Effect {
        created(format!("g/m/log/{slot:016x}"), epoch)
    }

    #[test]
    fn an_older_writers_slot_after_the_seal_is_found() {
        let mut effects = vec![claim(1), slot(1, 1), claim(2), slot(2, 1), slot(3, 2)];
        assert_eq!(judge(&effects), vec![], "a slot that lands before the seal is adopted by it");
        effects.push(slot(4, 1));
        assert_eq!(judge(&effects).len(), 1);
    }

    #[test]
    fn a_second_slot_after_a_newer_claim_is_found() {
        let mut effects = vec![claim(1), slot(1, 1), claim(2), slot(2, 1)];
        assert_eq!(judge(&effects), vec![], "one was in flight");
        effects.push(slot(3, 1));
        assert_eq!(judge(&effects).len(), 1);
    }

    #[test]
    fn a_slot_without_a_claim_is_found_and_a_late_one_over_a_deleted_name_is_not() {
        let mut effects = vec![claim(1), slot(1, 1), claim(2), slot(2, 2), slot(1, 1)];
        assert_eq!(judge(&effects), vec![]);
        effects.push(slot(3, 3));
        assert_eq!(judge(&effects).len(), 1);
    }
}
