//! Oracle `single-writer`: once a newer claimant has written its first log slot, no older writer's slot
//! is created any more, however late its request arrives.
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
            }
            "log" => {
                let epoch = claims.get(&owner).copied().unwrap_or(0);
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
}
