//! The modelled maintainer's deletes: garbage of published versions, and orphans.

use crate::Mutant;
use crate::maintainer::Maintainer;
use crate::store::{CATALOGUES, Catalogue, LOGS, Name, PINS, Run, SEGMENTS, UPLOADS};
use crate::world::{Tail, turn};
use redoubt_core::maintenance::{CATALOGUES_KEPT, orphans as find_orphans};
use std::collections::BTreeSet;
use std::rc::Rc;

/// Deletes what the version just published allows, and old versions.
pub(crate) async fn garbage(me: &mut Maintainer, published: &Catalogue) {
    let now: Vec<Name> = me.tenure.deletable(&published.garbage).into_iter().copied().collect();
    for name in now {
        if me.port.is(Mutant::RelistBeforeDelete) && !me.port.list(PINS).await.is_empty() {
            continue;
        }
        me.port.delete(name).await;
        me.deleted.insert(name);
    }
    for name in me.port.list(CATALOGUES).await {
        let Name::Catalogue(version) = name else { continue };
        if me.tenure.is_old(u64::from(version)) {
            me.port.delete(name).await;
        }
    }
}

/// What the log's tail and the last versions of the catalogue name.
struct Used {
    names: BTreeSet<Name>,
    log_from: u32,
    newest: Rc<Catalogue>,
    tail: Tail,
}

fn names(catalogue: &Catalogue) -> impl Iterator<Item = Name> {
    let rows = |run: &Run| run.fold.as_ref().map(|rows| rows.to_vec()).unwrap_or_default();
    catalogue.runs.iter().flat_map(move |run| {
        let objects = rows(run).into_iter().map(|row| row.object);
        objects.chain([run.object]).collect::<Vec<_>>()
    })
}

async fn used(me: &Maintainer) -> Option<Used> {
    let newest = me.port.newest().await;
    let (mut used, mut log_from) = (names(&newest).collect::<BTreeSet<_>>(), newest.log_from);
    used.extend(newest.garbage.iter().map(|entry| entry.name));
    for version in newest.version.saturating_sub(CATALOGUES_KEPT as u32 - 1).max(1)..newest.version {
        let older = me.port.get(Name::Catalogue(version)).await?.catalogue()?;
        used.extend(names(&older));
        log_from = log_from.min(older.log_from);
    }
    let tail = me.port.tail(&newest).await?;
    used.extend(tail.records.iter().filter_map(|record| record.segment));
    Some(Used { names: used, log_from, newest, tail })
}

/// Deletes what nobody will ever name: listed first, then compared with what is in use.
pub(crate) async fn orphans(me: &mut Maintainer) {
    let early = if me.port.is(Mutant::UsedBeforeSeal) { used(me).await } else { None };
    let segments = me.port.list(SEGMENTS).await;
    let uploads = me.port.list(UPLOADS).await;
    let logs = me.port.list(LOGS).await;
    let catalogues = me.port.list(CATALOGUES).await;
    let Some(mut used) = used(me).await else { return };
    if let Some(early) = early {
        used.names = early.names;
    }
    let mut gone = Vec::new();
    if me.port.is(Mutant::OrphansByAge) {
        let age = me.port.fresh().saturating_sub(12);
        let old = |name: &&Name| matches!(name, Name::Segment(_, id) | Name::Upload(_, id) if *id < age);
        gone.extend(
            segments.iter().chain(&uploads).filter(old).filter(|name| !used.names.contains(name)).copied(),
        );
    }
    let epoch = |name: Name| match name {
        Name::Segment(epoch, _) | Name::Upload(epoch, _) => (name, u64::from(epoch)),
        _ => unreachable!("only uploads carry epochs"),
    };
    let is_used = |name: &Name| used.names.contains(name);
    gone.extend(find_orphans(segments.into_iter().map(epoch), u64::from(used.tail.epoch), is_used));
    gone.extend(find_orphans(uploads.into_iter().map(epoch), u64::from(used.newest.epoch), is_used));
    gone.extend(logs.into_iter().filter(|name| *name < Name::Log(used.log_from) && !is_used(name)));
    let is_old = |name: &Name| {
        matches!(name, Name::Catalogue(version)
        if u64::from(*version) + CATALOGUES_KEPT <= u64::from(used.newest.version))
    };
    gone.extend(catalogues.into_iter().filter(is_old));
    for name in gone {
        me.port.delete(name).await;
    }
    turn().await;
}
