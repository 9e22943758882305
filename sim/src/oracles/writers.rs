//! Oracle `single-writer`: once a newer claim exists, an older writer creates one more slot at most, the
//! one it had in flight; and none at all after the newer one has written its first, however late a request
//! arrives.
//!
//! Judged from the store's own record of what was created, by whom and in which order.

use super::Finding;
use redoubt_ports::StoreKey;
use std::collections::BTreeMap;
use std::time::Duration;

/// Judges the puts of a run.
pub fn judge(puts: &[(Duration, String, StoreKey)]) -> Vec<Finding> {
    let mut claims: BTreeMap<(String, String), u64> = BTreeMap::new();
    let mut sealed: BTreeMap<String, u64> = BTreeMap::new();
    let mut newest_claim: BTreeMap<String, u64> = BTreeMap::new();
    let mut after_claim: BTreeMap<((String, String), u64), u32> = BTreeMap::new();
    let mut findings = Vec::new();
    for (at, host, key) in puts {
        let mut parts = key.as_str().split('/').skip(1);
        let (Some(machine), Some(kind)) = (parts.next(), parts.next()) else { continue };
        let Some(last) = parts.last() else { continue };
        let owner = (machine.to_owned(), host.clone());
        match kind {
            "claim" => {
                let epoch = u64::from_str_radix(last, 16).unwrap_or(0);
                let newest = claims.entry(owner).or_default();
                *newest = epoch.max(*newest);
                let newest = newest_claim.entry(machine.to_owned()).or_default();
                *newest = epoch.max(*newest);
            }
            "log" => {
                let epoch = claims.get(&owner).copied().unwrap_or(0);
                let claimed = newest_claim.get(machine).copied().unwrap_or(0);
                if epoch < claimed {
                    let slots = after_claim.entry((owner, epoch)).or_default();
                    *slots += 1;
                    if *slots > 1 {
                        let what = format!(
                            "{host} (epoch {epoch}) created {key} at {:.3} s, its slot number {slots} since epoch {claimed} was claimed",
                            at.as_secs_f64()
                        );
                        findings.push(Finding::new("single-writer", what));
                    }
                }
                let newest = sealed.entry(machine.to_owned()).or_default();
                if epoch < *newest {
                    let what = format!(
                        "{host} (epoch {epoch}) created {key} at {:.3} s, after epoch {newest} had sealed the log",
                        at.as_secs_f64()
                    );
                    findings.push(Finding::new("single-writer", what));
                }
                *newest = epoch.max(*newest);
            }
            _ => {}
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
