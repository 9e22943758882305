//! A maintainer: one round after the other, each decision made by `redoubt_core::maintenance`.

use crate::Mutant;
use crate::collector;
use crate::folder;
use crate::store::{Body, Catalogue, Name, Object, PINS};
use crate::world::{Created, Port, Tail, turn};
use redoubt_core::MarkerKind;
use redoubt_core::maintenance::{Garbage, NewPoint, PinListing, PinWatch, Tenure, Turn};
use std::collections::BTreeSet;
use std::rc::Rc;

pub(crate) struct Maintainer {
    pub(crate) port: Port,
    pub(crate) epoch: u32,
    pub(crate) tenure: Tenure,
    watch: PinWatch<Name>,
    /// Garbage whose delete was confirmed.
    pub(crate) deleted: BTreeSet<Name>,
    /// Uploads of this round.
    pub(crate) uploads: Vec<Name>,
    /// The version published last, to go on from without a look at the store.
    own: Option<Rc<Catalogue>>,
}

pub(crate) async fn maintain(port: Port) {
    let Some(epoch) = port.claim(Name::MaintainerClaim).await else { return };
    let tenure = Tenure::new(u64::from(epoch));
    let (watch, deleted) = (PinWatch::default(), BTreeSet::new());
    let mut maintainer = Maintainer { port, epoch, tenure, watch, deleted, uploads: Vec::new(), own: None };
    while !maintainer.tenure.is_over() {
        maintainer.round().await;
    }
    maintainer.port.count(2);
}

impl Maintainer {
    async fn round(&mut self) {
        let early = if self.port.is(Mutant::PinsBeforeCatalogue) { Some(self.pins().await) } else { None };
        let own = self.port.0.borrow().own;
        let catalogue = match self.own.take().filter(|_| self.port.below(8) < own) {
            Some(own) => own,
            None => self.port.newest().await,
        };
        if self.port.is(Mutant::PublishOverHigherEpoch) && catalogue.epoch > self.epoch {
            self.tenure = Tenure::new(u64::from(catalogue.epoch));
        }
        if !self.tenure.found(u64::from(catalogue.version), u64::from(catalogue.epoch)) {
            return;
        }
        let (pinned, dead) = match early {
            Some(pins) => pins,
            None => self.pins().await,
        };
        // They hold nothing, whatever becomes of this round.
        for pin in dead {
            self.port.delete(pin).await;
        }
        let Some(tail) = self.port.tail(&catalogue).await else { return };
        let next = self.next(&catalogue, &tail, pinned).await;
        let Some(next) = next else {
            collector::orphans(self).await;
            return turn().await;
        };
        if self.port.is(Mutant::DeleteBeforePublish) {
            for entry in &next.garbage {
                self.port.delete(entry.name).await;
            }
        }
        if !self.publish(&next).await {
            return;
        }
        self.own = Some(Rc::new(next.clone()));
        collector::garbage(self, &next).await;
        if self.port.below(3) == 0 {
            collector::orphans(self).await;
        }
    }

    /// Lists pins; returns the points that are pinned, and dead pins.
    async fn pins(&mut self) -> (BTreeSet<u32>, BTreeSet<Name>) {
        let listed: BTreeSet<Name> = self.port.list(PINS).await.into_iter().collect();
        let dead = self.watch.listed(self.port.now(), &listed);
        let alive = listed.difference(&dead);
        (
            alive
                .filter_map(|name| if let Name::Pin(point, _) = name { Some(*point) } else { None })
                .collect(),
            dead,
        )
    }

    /// Builds the next version; none if there is nothing to say.
    async fn next(&mut self, catalogue: &Catalogue, tail: &Tail, pinned: BTreeSet<u32>) -> Option<Catalogue> {
        let slot = tail.slot - self.port.below(2).min(tail.slot - catalogue.slot);
        let covered =
            tail.records.iter().filter(|record| record.slot > catalogue.slot && record.slot <= slot);
        let points = covered.filter(|record| record.is_point).map(|record| NewPoint {
            id: record.slot,
            kind: if record.slot % 5 == 0 { MarkerKind::App } else { MarkerKind::Crash },
            wall: self.port.wall(),
        });
        let pins = PinListing { after: u64::from(catalogue.version), points: pinned };
        let points: Vec<_> = points.collect();
        let mut turn = {
            let world = self.port.0.borrow();
            let version = u64::from(catalogue.version);
            catalogue.points.next(version, &pins, &points, self.port.wall(), &world.ladder)
        };
        self.break_phases(&mut turn);
        let garbage = catalogue.garbage.iter().filter(|entry| !self.deleted.contains(&entry.name));
        let mut next = Catalogue {
            id: self.port.fresh(),
            version: catalogue.version + 1,
            epoch: self.epoch,
            slot,
            points: turn.next,
            garbage: garbage.cloned().collect(),
            ..catalogue.clone()
        };
        let dropped = folder::fold(self, &mut next, catalogue.slot, tail).await;
        let (since, is_folded) = (u64::from(next.version), !dropped.is_empty());
        next.garbage.extend(dropped.into_iter().map(|name| Garbage { name, since }));
        let is_new = turn.is_new || is_folded || slot > catalogue.slot || !catalogue.garbage.is_empty();
        is_new.then_some(next)
    }

    /// The mutants that have no phase in between.
    fn break_phases(&self, turn: &mut Turn<u32>) {
        if self.port.is(Mutant::OnePhase) || self.port.is(Mutant::RelistBeforeDelete) {
            let retired = std::mem::take(&mut turn.next.retired);
            turn.gone.extend(retired.iter().map(|point| point.id));
        }
    }

    /// Publishes; returns whether this version was published by this maintainer and nobody took over.
    async fn publish(&mut self, next: &Catalogue) -> bool {
        let Some(version) = self.tenure.next_version() else { return false };
        assert_eq!(version, u64::from(next.version));
        let object = Object { id: next.id, body: Body::Catalogue(Rc::new(next.clone())) };
        let created = self.port.create(Name::Catalogue(next.version), &object).await;
        let uploads = std::mem::take(&mut self.uploads);
        if let Created::Other(_) = created {
            self.tenure.lost();
            for name in uploads {
                self.port.delete(name).await;
            }
            return false;
        }
        self.tenure.published();
        if self.port.is(Mutant::NoCheckBeforeDelete) {
            self.tenure.checked(false);
            return true;
        }
        let newer = self.port.get(Name::MaintainerClaim(self.epoch + 1)).await;
        self.tenure.checked(newer.is_some());
        !self.tenure.is_over()
    }
}
