//! The final phase: every point is restored and judged, once more for each damage, and what is left is looked at.

use super::liveness::POLL;
use super::restore::{self, Health, How, Images, Restored};
use super::run::{Readable, Run};
use super::scrubbing::{self, Whole};
use super::{leftovers, mounts};
use crate::oracles::Finding;
use crate::oracles::history::Deed;
use crate::plan::{self, Damage, Part};
use redoubt_core::MarkerId;
use redoubt_ports::StoreKey;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Of so many of its newest objects one of the index is damaged: most of them are in use.
const INDEX_VICTIMS: usize = 6;

/// All points of so many seconds stay under the usual rules.
const USUALLY_KEPT: u64 = 2 * 3600;

/// Of so many of its newest claims one is damaged: a reader looks only at the one that the log ends with.
const CLAIM_VICTIMS: usize = 2;

impl Run<'_> {
    /// The final check, and one more for each damage. Each object gets its bytes back before the next one is
    /// damaged, so that what is damaged has one cause.
    pub(super) async fn finale(&mut self, last: &BTreeMap<String, MarkerId>) {
        // Whatever is still on the way arrives: nobody waits for it any more, and it changes nothing.
        self.estate.world.store.land();
        tokio::time::sleep(POLL).await;
        let keeps_images = !self.plan.damages().is_empty();
        let images = self.check_points_as(last, Health::Whole, keeps_images).await.images;
        let wholes = self.scrub_whole(images).await;
        for (part, damage) in self.plan.damages() {
            let store = self.estate.world.store.clone();
            let Some((written, key)) = self.victim(part, damage) else { continue };
            let Some(bytes) = store.spoil(&key, damage) else { continue };
            let shared = &self.estate.world.shared;
            shared.trace.line(shared.now(), || format!("{key}: {damage:?}"));
            shared.trace.bite(plan::damage_verb(part, damage));
            let health = match part {
                Part::Data | Part::Log => Health::Rotten,
                Part::Claim | Part::Index | Part::Catalogue | Part::Pin | Part::Key | Part::Identity => {
                    Health::Spoilt(part, key.clone())
                }
            };
            self.scrub_damaged(&wholes, (part, damage), &key).await;
            store.forget_meeting();
            let restored = self.check_points(last, health.clone()).await;
            let is_met = store.restore(&key, bytes);
            if health == Health::Rotten {
                self.spared(key.as_str(), written, &restored.read);
            } else if is_met && !restored.is_reported && part != Part::Key {
                // Openings ask ahead for keys that nothing may need; a scrub names every one (`scrub-exact`).
                let what = format!("{key}: the reader met its damage ({damage:?}) and told nobody");
                self.total.findings.push(Finding::new(health.oracle("no-silent-damage"), what));
            }
        }
        if self.plan.checks_leftovers() {
            self.leftovers().await;
        }
    }

    /// Waits until what nobody needs had its time to go, and looks what is left; the points are as good as before.
    async fn leftovers(&mut self) {
        let mut found = Vec::new();
        for (name, machine) in &self.estate.machines {
            match leftovers::judge(&self.estate, machine).await {
                Ok(findings) => found.extend(findings),
                Err(why) => {
                    let what = format!("{name}: the vault cannot be tidied: {why}");
                    found.push(Finding::new("nothing-left-behind", what));
                }
            }
        }
        self.tell(&found);
        self.total.findings.extend(found);
        self.check_points(&BTreeMap::new(), Health::Whole).await;
    }

    /// Scrubs what is whole; `images` is what the points of each machine hold, for whoever damages it.
    async fn scrub_whole(&mut self, mut images: BTreeMap<String, Images>) -> BTreeMap<String, Whole> {
        let (mut found, mut wholes) = (Vec::new(), BTreeMap::new());
        for (name, machine) in &self.estate.machines {
            let images = images.remove(name).unwrap_or_default();
            let whole = scrubbing::whole(&self.estate, machine, images, &mut found).await;
            wholes.extend(whole.map(|whole| (name.clone(), whole)));
        }
        self.tell(&found);
        self.total.findings.extend(found);
        wholes
    }

    /// Scrubs the machine that the damaged object belongs to.
    async fn scrub_damaged(
        &mut self,
        wholes: &BTreeMap<String, Whole>,
        what: (Part, Damage),
        key: &StoreKey,
    ) {
        let mut found = Vec::new();
        for (name, machine) in &self.estate.machines {
            let is_of = key.as_str().starts_with(&format!("g/{}/", machine.id));
            let Some(whole) = wholes.get(name).filter(|_| is_of) else { continue };
            let is_costly = scrubbing::damaged(&self.estate, machine, whole, what, key, &mut found).await;
            let mark = if is_costly { "scrub-found-lost-content" } else { "scrub-found-harmless-damage" };
            self.total.marks.insert(mark);
        }
        self.tell(&found);
        self.total.findings.extend(found);
    }

    /// Chooses an object of a machine; of the index and the claims, one of the newest. Never the loss of the
    /// newest slot of a log: no reader can tell that from its never having been.
    fn victim(&self, part: Part, damage: Damage) -> Option<(Duration, StoreKey)> {
        let store = &self.estate.world.store;
        let there: BTreeSet<StoreKey> = store.truth().into_iter().map(|(key, _)| key).collect();
        let created = store.effects().into_iter().filter(|effect| effect.deed == Deed::Created);
        let mut objects: Vec<_> =
            created.filter(|effect| part.holds(effect.key.as_str()) && there.contains(&effect.key)).collect();
        let few = match part {
            Part::Data | Part::Log | Part::Pin | Part::Key | Part::Identity => objects.len(),
            Part::Index | Part::Catalogue => INDEX_VICTIMS,
            Part::Claim => CLAIM_VICTIMS,
        };
        objects.drain(..objects.len().saturating_sub(few));
        if (part, damage) == (Part::Log, Damage::Lost) {
            objects.pop();
        }
        let at = self.estate.world.shared.below(objects.len().max(1) as u64) as usize;
        objects.get(at).map(|effect| (effect.at, effect.key.clone()))
    }

    /// A point that could be read before an object existed does not need it, unless that holds what was packed anew.
    fn spared(&mut self, key: &str, written: Duration, after: &BTreeSet<Readable>) {
        if key.contains("/cseg/") {
            return;
        }
        let Some((_, before)) = self.readable.iter().rev().find(|(at, _)| *at < written) else { return };
        match before.difference(after).next() {
            Some((machine, point)) => {
                let what = format!(
                    "{machine}: point {point} was readable before {key} was written, but not after that rotted"
                );
                self.total.findings.push(Finding::new("no-silent-damage", what));
            }
            None if !before.is_empty() => {
                self.total.marks.insert("rot-spared-older-points");
            }
            None => {}
        }
    }

    pub(super) async fn check_points(
        &mut self,
        last: &BTreeMap<String, MarkerId>,
        health: Health,
    ) -> Restored {
        self.check_points_as(last, health, false).await
    }

    async fn check_points_as(
        &mut self,
        last: &BTreeMap<String, MarkerId>,
        health: Health,
        keeps_images: bool,
    ) -> Restored {
        let (outages, is_whole) = (&self.account.outages, health == Health::Whole);
        // What was restored from a copy lacks what was acknowledged, until the agent knows and healed it.
        let (is_back, none) = (self.account.marks.contains("vault-restored"), BTreeMap::new());
        let vaulted = if is_back && last.is_empty() { &none } else { &self.watch.vaulted };
        let how = How { vaulted, health, last, outages, keeps_images };
        let held = if is_whole { mounts::held(&self.estate) } else { Vec::new() };
        let restored = restore::all(&self.estate, &how).await;
        self.pinned(&held, &restored);
        self.tell(&restored.findings);
        self.total.findings.extend(restored.findings.iter().cloned());
        self.total.marks.extend(restored.marks.iter().copied());
        self.total.points += restored.points;
        for (machine, sequence, cut_ms) in &restored.cuts {
            self.record.point(machine, *sequence, *cut_ms);
        }
        if !restored.findings.is_empty() {
            self.record.found(self.now());
        }
        if is_whole {
            self.vanished(&restored);
            self.total.order.extend(restored.order.clone());
            self.readable.push((self.estate.world.shared.now(), restored.read.clone()));
        }
        restored
    }

    /// Notes mounted points that only their pins keep.
    fn pinned(&mut self, held: &[(String, MarkerId)], restored: &Restored) {
        let keep = self.estate.keep.map_or(u64::MAX, u64::from);
        let is_old = |point: &Readable| newer(restored, point, restored.order.get(point)) >= keep;
        if held.iter().any(|point| restored.read.contains(point) && is_old(point)) {
            self.total.marks.insert("pinned-point-outlived-retention");
        }
    }

    /// A point that could be read once can be read for as long as nothing is damaged.
    fn vanished(&mut self, restored: &Restored) {
        let Some((at, before)) = self.readable.last() else { return };
        let keep = self.estate.keep.map_or(u64::MAX, u64::from);
        // Of a scaled estate not all points are read, and the usual rules give up those of more than two hours.
        let is_scaled = self.estate.scale > 1;
        let there = if is_scaled { &restored.listed } else { &restored.read };
        let is_old = at.as_secs() + USUALLY_KEPT < self.estate.world.shared.now().as_secs();
        if is_scaled && is_old {
            return;
        }
        let mut gone: Vec<&Readable> = before.difference(there).collect();
        let vanished = gone.len();
        gone.retain(|point| newer(restored, point, self.total.order.get(point)) < keep);
        if vanished > gone.len() {
            self.total.marks.insert("points-given-up");
        }
        if let Some((machine, point)) = gone.first() {
            let at = at.as_secs_f64();
            let what = format!("{machine}: point {point} was readable at {at:.3} s and is not any more");
            self.total.findings.push(Finding::new("points-restorable", what));
        }
    }
}

/// Counts the points of the same machine that are listed and newer.
fn newer(restored: &Restored, point: &Readable, place: Option<&u64>) -> u64 {
    restored.order.iter().filter(|((machine, _), at)| *machine == point.0 && Some(*at) > place).count() as u64
}
