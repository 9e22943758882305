//! Which points the next version of the catalogue has: the ladder of `redoubt_core::maintenance`, applied.

use super::{Maintainer, Times};
use crate::error::StoreFailure;
use crate::index::{Catalogue, PointOf};
use crate::names;
use crate::reader::{PointId, PointInfo};
use redoubt_core::maintenance::{KeptPoint, Ladder, NewPoint, PinListing, Retention};
use redoubt_core::planted::{self, Bug};
use redoubt_ports::StoreKey;
use std::collections::{BTreeMap, BTreeSet};

impl Maintainer {
    /// Lists the pins, after version `after` was loaded; returns the points with one that is alive, and the
    /// names of dead pins.
    pub(super) async fn list_pins(
        &mut self,
        after: u64,
        times: Times,
    ) -> Result<(PinListing<PointId>, Vec<StoreKey>), StoreFailure> {
        let machine = self.log.machine;
        let listed = self.log.vault.store.list(&names::pins(machine), None).await?;
        let pins: BTreeSet<(PointId, u128)> =
            listed.iter().filter_map(|name| names::pin_of(name, machine)).collect();
        let dead = self.pins.listed(times.now, &pins);
        let mut points: BTreeSet<PointId> = pins.difference(&dead).map(|(point, _)| *point).collect();
        if planted::active(Bug::IgnorePins) {
            points.clear();
        }
        let dead = dead.iter().map(|(point, uuid)| names::pin(machine, *point, *uuid)).collect();
        Ok((PinListing { after, points }, dead))
    }
}

/// Fills in the points of `next`, which follows `base` and covers the `new` ones besides. Returns how many the rules keep that
/// are beyond what a machine may have.
pub(super) fn retain(
    base: &Catalogue,
    next: &mut Catalogue,
    new: Vec<PointInfo>,
    pins: &PinListing<PointId>,
    times: Times,
    keep: &Ladder,
) -> usize {
    let kept = |point: &PointOf| {
        let (id, kind, wall) = (point.info.id, point.info.marker.kind, point.info.marker.wall);
        KeptPoint { id, kind, wall, at: point.at }
    };
    let fresh = |info: &PointInfo| NewPoint { id: info.id, kind: info.marker.kind, wall: info.marker.wall };
    let before = Retention {
        clock: base.clock,
        live: base.live.iter().map(kept).collect(),
        retired: base.retired.iter().map(kept).collect(),
    };
    let fresh: Vec<NewPoint<PointId>> = new.iter().map(fresh).collect();
    let turn = before.next(base.version, pins, &fresh, times.wall, keep);
    let known = base.live.iter().chain(&base.retired).map(|point| &point.info).chain(&new);
    let known: BTreeMap<PointId, &PointInfo> = known.map(|info| (info.id, info)).collect();
    let of = |point: &KeptPoint<PointId>| {
        known.get(&point.id).map(|info| PointOf { info: (*info).clone(), at: point.at })
    };
    next.live = turn.next.live.iter().filter_map(of).collect();
    next.retired = turn.next.retired.iter().filter_map(of).collect();
    next.clock = turn.next.clock;
    turn.cut
}
