//! Damage at rest: what befalls stored objects without any request, and the store as an operator at the recovery
//! site sees it.

use super::{SimStore, lock};
use crate::plan::Damage;
use async_trait::async_trait;
use bytes::Bytes;
use redoubt_ports::{RawStore, StoreError, StoreKey};
use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::Arc;

/// Where the header of a catalogue says with which slot the log begins that is needed (`engine/docs/vault-format.md`).
const LOG_FROM_AT: Range<usize> = 104..112;

/// An object that an operator will meet damaged.
pub(super) struct Spoilt {
    key: StoreKey,
    /// The bytes that changed or are missing.
    bytes: Range<u64>,
    is_met: bool,
}

impl SimStore {
    /// Damages the object. Returns its bytes from before; none if there are none.
    pub fn spoil(&self, key: &StoreKey, damage: Damage) -> Option<Bytes> {
        let mut state = lock(&self.state);
        let body = state.objects.get(key).filter(|body| !body.is_empty())?.clone();
        let length = body.len() as u64;
        let at = self.shared.below(length);
        let bytes = match damage {
            Damage::Lost => {
                state.objects.remove(key);
                0..u64::MAX
            }
            Damage::Truncated => {
                state.objects.insert(key.clone(), body.slice(..at as usize));
                at..u64::MAX
            }
            Damage::Rot => {
                let mut bytes = body.to_vec();
                bytes[at as usize] ^= 1 << self.shared.below(8);
                state.objects.insert(key.clone(), bytes.into());
                at..at + 1
            }
        };
        state.has_lost = true;
        state.spoilt = Some(Spoilt { key: key.clone(), bytes, is_met: false });
        Some(body)
    }

    /// Returns which bytes of the spoilt object changed or are missing.
    pub fn spoilt(&self) -> Option<Range<u64>> {
        lock(&self.state).spoilt.as_ref().map(|spoilt| spoilt.bytes.clone())
    }

    /// Forgets that an operator met the damage: who did was asked about it already.
    pub fn forget_meeting(&self) {
        if let Some(spoilt) = &mut lock(&self.state).spoilt {
            spoilt.is_met = false;
        }
    }

    /// Gives an object its bytes back. Tells whether an operator met the damage.
    pub fn restore(&self, key: &StoreKey, bytes: Bytes) -> bool {
        let mut state = lock(&self.state);
        state.objects.insert(key.clone(), bytes);
        state.spoilt.take().is_some_and(|spoilt| spoilt.is_met)
    }

    /// Copies every object, as somebody does who backs the whole vault up.
    pub fn copy(&self) {
        let mut state = lock(&self.state);
        let objects = state.objects.clone();
        state.copy = Some((objects, state.effects.len()));
    }

    /// Puts the copy in the place of everything: what happened since has never happened. Tells whether there
    /// was a copy.
    pub fn go_back(&self) -> bool {
        let mut state = lock(&self.state);
        let Some((objects, effects)) = state.copy.clone() else { return false };
        state.objects = objects;
        state.effects.truncate(effects);
        state.turned = Some(self.shared.now());
        state.has_lost = true;
        true
    }

    /// Tells whether anything was ever taken from the store but by who may delete it.
    pub fn has_lost(&self) -> bool {
        lock(&self.state).has_lost
    }

    /// Puts back from the copy what deletions took that were on their way when it took the place of everything: what an
    /// operator does who had not stopped the process servers. Returns how much there was.
    pub fn put_back(&self) -> usize {
        let mut state = lock(&self.state);
        let struck = std::mem::take(&mut state.struck);
        let count = struck.len();
        for (key, body) in struck {
            state.objects.entry(key).or_insert(body);
        }
        count
    }

    /// Removes the log slots behind a gap: what an operator does who is told of one, which nobody acknowledged.
    /// Returns how many there were.
    pub fn remove_behind_gaps(&self) -> usize {
        let (mut next, mut strays) = (BTreeMap::new(), Vec::new());
        for (key, body) in lock(&self.state).objects.iter() {
            match key.as_str().split('/').collect::<Vec<_>>()[..] {
                // Names sort the catalogues of a machine before its log.
                ["g", machine, "cat", _] => {
                    let from = body.get(LOG_FROM_AT).and_then(|from| from.try_into().ok());
                    let from = from.map_or(1, u64::from_le_bytes);
                    let first = next.entry(machine.to_owned()).or_insert(1);
                    *first = from.max(*first);
                }
                ["g", machine, "log", slot] => {
                    let next = next.entry(machine.to_owned()).or_insert(1);
                    let slot = u64::from_str_radix(slot, 16).unwrap_or(0);
                    if slot == *next {
                        *next += 1;
                    } else if slot > *next {
                        strays.push(key.clone());
                    }
                }
                _ => {}
            }
        }
        strays.iter().for_each(|key| drop(self.remove("operator", key)));
        strays.len()
    }

    /// Returns the store as an operator at the recovery site sees it: no faults, no delay.
    pub fn direct(&self) -> Arc<dyn RawStore> {
        Arc::new(Direct(self.clone()))
    }
}

/// The store without faults and without delay.
struct Direct(SimStore);

#[async_trait]
impl RawStore for Direct {
    async fn put_if_absent(&self, key: &StoreKey, body: Bytes) -> Result<(), StoreError> {
        self.0.create("operator", key, &body)
    }

    async fn get(&self, key: &StoreKey, range: Option<Range<u64>>) -> Result<Option<Bytes>, StoreError> {
        let wanted = range.clone().unwrap_or(0..u64::MAX);
        if let Some(spoilt) = &mut lock(&self.0.state).spoilt {
            let overlaps = wanted.start < spoilt.bytes.end && spoilt.bytes.start < wanted.end;
            spoilt.is_met |= spoilt.key == *key && overlaps;
        }
        Ok(self.0.read(key, range))
    }

    async fn list_after(
        &self,
        prefix: &str,
        after: Option<&StoreKey>,
        limit: usize,
    ) -> Result<Vec<(StoreKey, u64)>, StoreError> {
        let state = lock(&self.0.state);
        // Names with this prefix follow one another; those before it are not looked at.
        let from = after.map(StoreKey::as_str).filter(|after| *after >= prefix).unwrap_or(prefix);
        let found = state
            .objects
            .range::<str, _>((Bound::Included(from), Bound::Unbounded))
            .take_while(|(key, _)| key.as_str().starts_with(prefix))
            .filter(|(key, _)| after.is_none_or(|after| *key > after));
        Ok(found.take(limit).map(|(key, body)| (key.clone(), body.len() as u64)).collect())
    }

    async fn delete(&self, key: &StoreKey) -> Result<(), StoreError> {
        self.0.remove("operator", key);
        Ok(())
    }
}
