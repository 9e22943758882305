//! Rare but legal behaviour of the engine, forced as the plan says: the lab's [`Chance`].
//!
//! Stage one, which points are enabled and how likely each is, is the plan's; stage two is thrown here each time a
//! place is passed. A point that is not enabled throws nothing, so that plans without any are what they were.

use super::{Shared, lock};
use redoubt_ports::{Chance, Rare};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// The points that are enabled, in parts per million, with the verb that stands for each.
#[derive(Clone, Debug, Default)]
pub struct RareKnobs(Arc<Mutex<BTreeMap<Rare, (&'static str, u32)>>>);

impl RareKnobs {
    /// Enables the point of a verb, or disables it with 0.
    pub fn set(&self, verb: &'static str, ppm: u32) {
        let name = verb.strip_prefix("buggify.").unwrap_or(verb);
        let Some(rare) = Rare::ALL.into_iter().find(|rare| rare.name() == name) else { return };
        let mut knobs = lock(&self.0);
        match ppm {
            0 => drop(knobs.remove(&rare)),
            ppm => drop(knobs.insert(rare, (verb, ppm))),
        }
    }

    /// Disables all.
    pub fn clear(&self) {
        lock(&self.0).clear();
    }
}

/// The chance of every host of a world.
pub(super) struct SimChance(pub(super) Shared);

impl Chance for SimChance {
    fn forces(&self, rare: Rare) -> bool {
        let knob = lock(&self.0.rare.0).get(&rare).copied();
        knob.is_some_and(|(verb, ppm)| self.0.bites(verb, ppm))
    }
}
