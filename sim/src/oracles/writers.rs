//! Oracle `single-writer`: once a newer claim exists, an older writer creates one more slot at most, the
//! one it had in flight; and none at all after the newer one has written its first, however late a request
//! arrives.
//!
//! Judged from the store's own record of what was created, by whom and in which order.

use super::Finding;
use redoubt_ports::StoreKey;
use std::collections::BTreeMap;
use std::time::Duration;

/// What the puts so far say about one machine's log.
#[derive(Default)]
struct Log {
    /// Newest claim of each host.
    claims: BTreeMap<String, u64>,
    newest_claim: u64,
    /// Newest epoch that has written a slot.
    newest_slot: u64,
    /// Slots of a host's epoch since a newer one was claimed.
    late: BTreeMap<(String, u64), u32>,
}

impl Log {
    fn claim(&mut self, host: &str, epoch: u64) {
        let newest = self.claims.entry(host.to_owned()).or_default();
        *newest = epoch.max(*newest);
        self.newest_claim = epoch.max(self.newest_claim);
    }

    /// Takes a slot; says what is wrong with it.
    fn slot(&mut self, host: &str) -> Option<String> {
        let epoch = self.claims.get(host).copied().unwrap_or(0);
        let (sealed, claimed) = (self.newest_slot, self.newest_claim);
        self.newest_slot = epoch.max(sealed);
        let mut late = 0;
        if epoch < claimed {
            let count = self.late.entry((host.to_owned(), epoch)).or_default();
            *count += 1;
            late = *count;
        }
        if epoch < sealed {
            Some(format!("of epoch {epoch}, after epoch {sealed} had sealed the log"))
        } else if late > 1 {
            Some(format!("of epoch {epoch}, its slot number {late} since epoch {claimed} was claimed"))
        } else {
            None
        }
    }
}

/// Judges the puts of a run.
pub fn judge(puts: &[(Duration, String, StoreKey)]) -> Vec<Finding> {
    let mut logs: BTreeMap<String, Log> = BTreeMap::new();
    let mut findings = Vec::new();
    for (at, host, key) in puts {
        let mut parts = key.as_str().split('/').skip(1);
        let (Some(machine), Some(kind)) = (parts.next(), parts.next()) else { continue };
        let Some(last) = parts.last() else { continue };
        let log = logs.entry(machine.to_owned()).or_default();
        let wrong = match kind {
            "claim" => {
                log.claim(host, u64::from_str_radix(last, 16).unwrap_or(0));
                None
            }
            "log" => log.slot(host),
            _ => None,
        };
        if let Some(wrong) = wrong {
            let what = format!("{host} created {key} at {:.3} s {wrong}", at.as_secs_f64());
            findings.push(Finding::new("single-writer", what));
        }
    }
    findings.truncate(3);
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(host: &str, key: &str) -> (Duration, String, StoreKey) {
        (Duration::ZERO, host.to_owned(), StoreKey::new(key))
    }

    #[test]
    fn an_older_writers_slot_after_the_seal_is_found() {
        let mut puts = vec![
            put("a", "g/m/claim/w/00000001"),
            put("a", "g/m/log/0000000000000001"),
            put("b", "g/m/claim/w/00000002"),
            put("a", "g/m/log/0000000000000002"),
            put("b", "g/m/log/0000000000000003"),
        ];
        assert_eq!(judge(&puts), vec![], "a slot that lands before the seal is adopted by it");
        puts.push(put("a", "g/m/log/0000000000000004"));
        assert_eq!(judge(&puts).len(), 1);
    }

    #[test]
    fn a_second_slot_after_a_newer_claim_is_found() {
        let mut puts = vec![
            put("a", "g/m/claim/w/00000001"),
            put("a", "g/m/log/0000000000000001"),
            put("b", "g/m/claim/w/00000002"),
            put("a", "g/m/log/0000000000000002"),
        ];
        assert_eq!(judge(&puts), vec![], "one was in flight");
        puts.push(put("a", "g/m/log/0000000000000003"));
        assert_eq!(judge(&puts).len(), 1);
    }
}
