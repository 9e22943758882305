//! What the damage costs, and what nothing names.

use super::Run;
use super::clear::Fault;
use super::hits::{self, Mapped, Sight};
use super::report::{Ended, Hit, Orphan, Takes, Unread};
use crate::error::{ReadError, VaultError};
use crate::reader::{MachineReader, PointId};
use redoubt_ports::StoreKey;
use std::collections::BTreeSet;

impl Run<'_> {
    pub(super) async fn verdict(&mut self) -> Result<(), VaultError> {
        self.orphans();
        let (Some(vault), Some(_)) = (&self.scrub.vault, &self.keys) else { return Ok(()) };
        let (reader, damage) = match MachineReader::open_damaged(vault, self.machine).await {
            Ok(opened) => opened,
            Err(VaultError::Store(failure)) => {
                let object = failure.object.clone();
                self.report.unread.push(Unread { object, why: failure.to_string() });
                return Ok(());
            }
            // Nothing of the log can be had. The damage that keeps it shut is in the report already, or is now.
            Err(error) => {
                let (object, what) = match error {
                    VaultError::Damaged { object, what } => (object, what),
                    other => return Err(other),
                };
                let hit = Hit {
                    first: PointId { slot: 1, ordinal: 0 },
                    last: PointId { slot: u64::MAX, ordinal: u16::MAX },
                    lost: None,
                };
                self.report.lost.clone_from(&self.points);
                self.charge(&object, what, hit);
                return Ok(());
            }
        };
        self.lost_points(&reader, damage);
        let mut sights: Vec<Sight> =
            reader.points().into_iter().map(|point| Sight { id: point.id, volumes: point.volumes }).collect();
        self.report.points = sights.len() as u64;
        let newest = PointId { slot: reader.slot(), ordinal: u16::MAX };
        sights.push(Sight { id: newest, volumes: reader.head().volumes });
        let volumes = sights.iter().flat_map(|sight| &sight.volumes);
        self.report.volumes = volumes.map(|(index, info)| (*index, info.id)).collect();
        for pending in std::mem::take(&mut self.pending) {
            let mapped = hits::map(reader.inner(), &sights, pending.bad, pending.rows.as_deref()).await;
            let damage = &mut self.report.damage[pending.damage];
            match mapped {
                Ok(Mapped { hits, newest }) => {
                    damage.newest = newest;
                    match &mut damage.takes {
                        Takes::Points(known) => known.extend(hits),
                        takes => *takes = Takes::Points(hits),
                    }
                }
                Err(ReadError::Store(failure)) => {
                    damage.takes = Takes::Unknown;
                    let object = failure.object.clone();
                    self.report.unread.push(Unread { object, why: failure.to_string() });
                }
                Err(_) => damage.takes = Takes::Unknown,
            }
        }
        sights.pop();
        self.report.whole = self.report.whole_of(sights.iter().map(|sight| sight.id));
        Ok(())
    }

    /// Points that have a record and that the reader does not have: whatever stopped it took them.
    fn lost_points(&mut self, reader: &MachineReader, damage: Option<VaultError>) {
        let Some(VaultError::Damaged { object, what }) = damage else { return };
        let had: BTreeSet<PointId> = reader.points().iter().map(|point| point.id).collect();
        self.report.lost = self.points.iter().copied().filter(|point| !had.contains(point)).collect();
        // The record that broke may not say how many points it had.
        let first = PointId { slot: reader.slot() + 1, ordinal: 0 };
        let last = self.report.lost.last().copied().unwrap_or(PointId { ordinal: u16::MAX, ..first });
        let hit = Hit { first, last, lost: None };
        self.charge(&object, what, hit);
    }

    /// Says what the damage of an object takes; adds the damage if nothing was found in it.
    fn charge(&mut self, object: &str, what: String, hit: Hit) {
        match self.report.damage.iter_mut().find(|damage| damage.object == object) {
            Some(damage) => damage.takes = Takes::Points(vec![hit]),
            None => drop(self.add(&StoreKey::new(object), Fault::new(0, 0, what), Takes::Points(vec![hit]))),
        }
    }

    /// Whatever is in the listing and named by nothing. Of a scrub that did not see all nothing is told.
    fn orphans(&mut self) {
        if self.report.ended == Ended::Stopped || self.keys.is_none() || !self.report.unread.is_empty() {
            return;
        }
        let orphan = |(name, bytes): (&StoreKey, &u64)| {
            (!self.named.contains(name)).then(|| Orphan { object: name.to_string(), bytes: *bytes })
        };
        self.report.orphans = self.inventory.iter().filter_map(orphan).collect();
    }
}
