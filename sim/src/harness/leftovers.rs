//! What is left at rest: points come one by one and a maintainer at the recovery site takes its turns, until what nobody
//! needs had its time to go; then names and sizes are counted.
//!
//! What is *not* here: how much may be left (`oracles::leftovers`).

use super::estate::{Estate, Machine};
use super::images::Image;
use super::{guests, restore, scrubbing};
use crate::oracles::leftovers::Rest;
use crate::oracles::{Finding, history::Deed};
use crate::ports::lock;
use redoubt_core::MarkerId;
use redoubt_core::maintenance::{Ladder, Rule, Which};
use redoubt_ports::World;
use redoubt_vault::{MachineReader, Maintainer, MaintainerSettings, Times, Vault, VaultError};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Versions of the catalogue until what one dropped is deleted, and one more.
const VERSIONS: u32 = 6;
/// Slots that count as new: a run that is not folded yet, the two that never are, those of the versions above.
const RECENT_SLOTS: u64 = 16;
/// A point at rest is in the vault long before that.
const POINT_WITHIN: Duration = Duration::from_secs(30);
/// A maintainer that was superseded has noticed it, whatever its last requests waited for.
const SETTLED: Duration = Duration::from_secs(90);
/// Turns that begin again because somebody claimed meanwhile.
const TRIES: u32 = 3;
const POLL: Duration = Duration::from_millis(250);

/// Takes the turns for a machine and judges what is left; an error is why that cannot be.
pub(super) async fn judge(estate: &Estate, machine: &Machine) -> Result<Vec<Finding>, String> {
    let vault = restore::open(estate).await.map_err(|error| error.to_string())?;
    let world = estate.world.host(&format!("keeper-{}", machine.spec.name), "target").world().world;
    let keep = estate
        .keep
        .map_or_else(Ladder::default, |count| Ladder::new(vec![Rule::Newest { count, which: Which::Any }]));
    let settings = MaintainerSettings { every: 1, keep, ..MaintainerSettings::default() };
    let reader = MachineReader::open(&vault, machine.id).await.map_err(|error| error.to_string())?;
    for turn in 0..2 {
        if turn > 0 {
            // What the first one superseded noticed it by then, and what it left meanwhile is for the second.
            tokio::time::sleep(SETTLED).await;
        }
        let mut tries = 1;
        while let Err(error) = take_turn(&vault, &world, machine, &reader, &settings).await {
            // A process server that came back just now claims once.
            let is_claimed = matches!(error, Untidy::Vault(VaultError::Superseded { .. }));
            if !is_claimed || tries == TRIES {
                return Err(error.to_string());
            }
            tries += 1;
        }
    }
    let mut findings = Vec::new();
    let images = restore::images(estate, machine).await.ok_or("its points cannot be read")?;
    let whole = scrubbing::whole(estate, machine, images, &mut findings).await;
    let whole = whole.ok_or("it cannot be scrubbed")?;
    findings.extend(crate::oracles::leftovers::judge(&machine.spec.name, &rest(estate, machine, &whole)));
    Ok(findings)
}

/// Why the vault cannot be tidied.
#[derive(Debug, thiserror::Error)]
enum Untidy {
    #[error("{0}")]
    Estate(String),
    #[error(transparent)]
    Vault(#[from] VaultError),
}

/// Claims the maintenance, and does a round for each of some points.
async fn take_turn(
    vault: &Vault,
    world: &World,
    machine: &Machine,
    reader: &MachineReader,
    settings: &MaintainerSettings,
) -> Result<(), Untidy> {
    let estate = |what: &str| Untidy::Estate(what.to_owned());
    let mut maintainer =
        Maintainer::claim(vault, machine.id, world.entropy.clone(), settings.clone()).await?;
    for _ in 0..VERSIONS {
        let agent = lock(&machine.agent).clone().ok_or_else(|| estate("no agent runs"))?;
        let id = guests::cut(machine, &agent).await.ok_or_else(|| estate("no point can be cut"))?;
        let late = |_| Untidy::Estate(format!("point {id} does not come into the vault"));
        tokio::time::timeout(POINT_WITHIN, published(reader, id)).await.map_err(late)?;
        let times = Times { now: world.clock.now(), wall: world.clock.wall() };
        while maintainer.round(reader.slot(), times).await?.is_some() {}
    }
    Ok(())
}

async fn published(reader: &MachineReader, id: MarkerId) {
    while reader.refresh().await.is_err() || !reader.points().iter().any(|point| point.marker.id == id) {
        tokio::time::sleep(POLL).await;
    }
}

fn rest(estate: &Estate, machine: &Machine, whole: &scrubbing::Whole) -> Rest {
    let prefix = format!("g/{}/", machine.id);
    let all = estate.world.store.truth();
    let of = all.iter().filter(|(name, _)| name.as_str().starts_with(&prefix));
    let objects: BTreeMap<String, u64> = of.map(|(name, bytes)| (name.to_string(), *bytes)).collect();
    let slot = |name: &str| u64::from_str_radix(name.strip_prefix(&format!("{prefix}log/"))?, 16).ok();
    let newest = objects.keys().filter_map(|name| slot(name)).max().unwrap_or(0);
    let created = estate.world.store.effects().into_iter().filter(|effect| effect.deed == Deed::Created);
    let is_new = |key: &str| slot(key).is_some_and(|slot| slot + RECENT_SLOTS > newest);
    let recent: BTreeSet<String> = created
        .skip_while(|effect| !is_new(effect.key.as_str()))
        .map(|effect| effect.key.to_string())
        .collect();
    let of_commits = |name: &&String| name.contains("/log/") || name.contains("/seg/");
    let recent = recent.iter().filter(of_commits).filter_map(|name| objects.get(name)).sum();
    Rest { objects, recent, orphans: whole.orphans().cloned().collect(), shown: shown(whole) }
}

/// Counts the bytes that the points show: of the first all that is not zero, of each later one what is other than before.
fn shown(whole: &scrubbing::Whole) -> u64 {
    let (mut shown, mut before): (u64, Option<&Vec<Image>>) = (0, None);
    for images in whole.images().values() {
        let old = |volume: usize| before.and_then(|before| before.get(volume));
        shown += images.iter().enumerate().map(|(volume, image)| image.newer_than(old(volume))).sum::<u64>();
        before = Some(images);
    }
    shown
}
