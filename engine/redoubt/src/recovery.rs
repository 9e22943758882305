//! The recovery side: a vault opened with its key, a point and a volume found by what the user typed.
//!
//! Needs nothing of the protected site: its state directory only saves typing.

use crate::cli::{PointArgs, VaultArgs, WhichVault};
use crate::failure::{Exit, Failure, Outcome};
use crate::key::{self, KeySource};
use crate::names::{self, Known, WhichMachine};
use crate::state;
use crate::units::show_wall;
use redoubt_core::{MachineId, Sectors, VolumeIndex};
use redoubt_host::{HostClock, StoreSettings};
use redoubt_ports::{RawStore, StoreError};
use redoubt_roles::mount::{Overlay, OverlayOf, PointDisk};
use redoubt_vault::{MachineReader, PointId, PointInfo, PointView, Vault, VaultError};
use std::sync::Arc;

/// The machine of one vault, ready to read.
pub(crate) struct Recovery {
    pub(crate) machine: MachineId,
    pub(crate) reader: MachineReader,
    pub(crate) vault: Vault,
    pub(crate) key: KeySource,
    /// The vault is a directory of this host.
    pub(crate) is_near: bool,
    /// Points are missing, because the log is damaged before them.
    is_damaged: bool,
    /// Warnings that were given.
    told: Vec<String>,
    /// What the machine and its volumes are called.
    pub(crate) known: Known,
}

/// What it means that the first request of a command to a store in a cloud failed.
pub(crate) fn no_contact(settings: &StoreSettings, error: &StoreError) -> Failure {
    let hint = match error {
        StoreError::Denied(_) => "check the name of the vault and its credentials",
        _ => "check the address and the network, then try again",
    };
    Failure::new(Exit::Unreachable, format!("cannot use vault {}: {error}", settings.url)).hint(hint)
}

/// Opens the store of a vault; looks at nothing in it but whether it answers.
pub(crate) async fn open_store(settings: &StoreSettings) -> Outcome<Arc<dyn RawStore>> {
    if let Some(directory) = settings.url.directory().filter(|directory| !directory.is_dir()) {
        let what = format!("there is no vault directory {}", directory.display());
        return Err(Failure::new(Exit::Unreachable, what)
            .hint("check the path; if the vault was moved, pass its new place with --vault"));
    }
    let store = redoubt_host::store::open(settings)?;
    if settings.url.directory().is_none() {
        // A wrong name or address is told at once, before the patience that an outage deserves.
        let contact = store.list_after("", None, 1).await;
        if let Err(error @ (StoreError::Denied(_) | StoreError::Unavailable(_))) = contact {
            return Err(no_contact(settings, &error));
        }
    }
    Ok(store)
}

/// Opens a store that must hold a vault.
pub(crate) async fn open_vault(settings: &StoreSettings, key: &KeySource) -> Outcome<Vault> {
    open_vault_for(settings, key, None).await
}

/// As [`open_vault`]; what reading a machine needs is asked for at the same time.
async fn open_vault_for(
    settings: &StoreSettings,
    key: &KeySource,
    machine: Option<MachineId>,
) -> Outcome<Vault> {
    let store = open_store(settings).await?;
    let keys = match key.read() {
        Ok(keys) => keys,
        // Where no vault is, no key is missing.
        Err(failure) => match Vault::identity(store).await {
            Err(VaultError::NoVault) => return Err(no_vault(settings)),
            _ => return Err(failure),
        },
    };
    key.check_vault(store.clone(), &settings.url).await?;
    let opened = match machine {
        Some(machine) => Vault::open_for(store, keys, machine).await,
        None => Vault::open(store, keys).await,
    };
    opened.map_err(|error| of_vault(error, settings))
}

fn no_vault(settings: &StoreSettings) -> Failure {
    of_vault(VaultError::NoVault, settings)
}

fn of_vault(error: VaultError, settings: &StoreSettings) -> Failure {
    let failure = Failure::from(error);
    Failure { what: format!("{} ({})", failure.what, settings.url), ..failure }
}

/// Where a vault is, and what the service of the state directory knows of it.
pub(crate) struct Place {
    pub(crate) settings: StoreSettings,
    pub(crate) key: KeySource,
    record: Option<state::Record>,
}

impl Place {
    /// Returns the names under which the state directory knows disks.
    pub(crate) fn local_names(&self) -> impl Iterator<Item = String> {
        let disks = self.record.iter().flat_map(|record| &record.disks);
        disks.map(|disk| disk.name.clone())
    }
}

/// Finds the vault that the options mean; nothing of it is opened.
pub(crate) fn locate(args: &WhichVault) -> Outcome<Place> {
    // With --vault the state directory only gives names: a damaged one must not stop a recovery.
    let record = match (state::peek(&args.state.state), &args.store.vault) {
        (Ok(record), _) => record,
        (Err(_), Some(_)) => None,
        (Err(failure), None) => return Err(failure),
    };
    let kit = args.key.kit()?;
    // What the kit says over what this directory happens to know, and the command line over both.
    let recorded = record.as_ref().and_then(state::Record::store);
    let recorded = kit.as_ref().map(|kit| kit.store.clone()).or(recorded);
    let settings = args.store.over(recorded).ok_or_else(|| {
        let what = format!("no vault is given and {} names none", args.state.state.display());
        Failure::usage(what).hint("pass the vault's directory or URL with --vault")
    })?;
    let key_file =
        match (&args.key.key, &args.store.vault, record.as_ref().and_then(|record| record.key.clone())) {
            (Some(key), _, _) => key.clone(),
            (None, None, Some(key)) => key,
            _ => key::default_path(&settings.url),
        };
    let key = kit.map_or(KeySource::File(key_file), |kit| KeySource::Kit(Box::new(kit)));
    Ok(Place { settings, key, record })
}

/// Opens the vault and the log of the machine that the options mean.
pub(crate) async fn open(args: &VaultArgs) -> Outcome<Recovery> {
    open_at(args, None).await
}

/// As [`open`]; a point that is given by its name is enough, and what the vault got since may be left out.
async fn open_at(args: &VaultArgs, point: Option<PointId>) -> Outcome<Recovery> {
    let place = locate(&args.which)?;
    let Place { settings, key, record } = &place;
    let own = record.as_ref().and_then(state::Record::machine);
    let guess = match &args.machine {
        Some(WhichMachine::Id(id)) => Some(*id),
        Some(WhichMachine::Name(_)) => None,
        None => own,
    };
    let workers = Arc::new(redoubt_host::HostWorkers::new());
    let vault = open_vault_for(settings, key, guess).await?.with_workers(workers);
    // The names of other machines are nobody's business unless the machine is not known.
    let opened = match guess {
        Some(machine) => match open_machine(&vault, machine, point).await {
            Err(VaultError::UnknownMachine(_)) if args.machine.is_none() => None,
            opened => Some((machine, opened?)),
        },
        None => None,
    };
    let (machine, (reader, damage)) = match opened {
        Some(opened) => opened,
        None => {
            let name = match &args.machine {
                Some(WhichMachine::Name(name)) => Some(name.as_str()),
                _ => None,
            };
            let machine = names::find_machine(&vault, &settings.url.to_string(), name).await?;
            (machine, open_machine(&vault, machine, point).await?)
        }
    };
    let told = warnings(&reader, damage.as_ref());
    told.iter().for_each(crate::output::say);
    let known = Known::new(machine, &reader.names(), place.local_names());
    let (is_damaged, is_near) = (damage.is_some(), settings.url.directory().is_some());
    let key = place.key;
    Ok(Recovery { machine, reader, vault, key, is_near, is_damaged, told, known })
}

async fn open_machine(
    vault: &Vault,
    machine: MachineId,
    point: Option<PointId>,
) -> Result<(MachineReader, Option<VaultError>), VaultError> {
    match point {
        Some(point) => MachineReader::open_at(vault, machine, point).await,
        None => MachineReader::open_damaged(vault, machine).await,
    }
}

/// Reads the name of a point; `None` for other ways to mean one.
fn point_id(text: &str) -> Option<PointId> {
    let (slot, ordinal) = text.split_once('.')?;
    Some(PointId { slot: slot.parse().ok()?, ordinal: ordinal.parse().ok()? })
}

/// Returns the name of a point as users write it.
pub(crate) fn point_name(point: &PointInfo) -> String {
    format!("{}.{}", point.id.slot, point.id.ordinal)
}

/// Says what is wrong with a log that was opened.
fn warnings(reader: &MachineReader, damage: Option<&VaultError>) -> Vec<String> {
    let damage = damage.map(|damage| format!("warning: {damage}; recovery points made after it are lost"));
    let finding = |finding| format!("warning: {finding}; no recovery point is affected");
    damage.into_iter().chain(reader.findings().into_iter().map(finding)).collect()
}

/// Opens a machine's log to its end; returns what is wrong with it that is not `known`.
async fn unknown_damage(vault: &Vault, machine: MachineId, known: &[String]) -> Vec<String> {
    match MachineReader::open_damaged(vault, machine).await {
        Ok((reader, damage)) => {
            let mut found = warnings(&reader, damage.as_ref());
            found.retain(|warning| !known.contains(warning));
            found
        }
        // An outage is no damage, and readers tell of it.
        Err(VaultError::Store(_)) => Vec::new(),
        Err(error) => vec![format!("warning: the log behind the point cannot be read: {error}")],
    }
}

impl Recovery {
    /// Looks at the log behind a point that was opened alone, and says what is wrong there.
    pub(crate) fn look_behind(&self) -> impl Future<Output = ()> + use<> {
        let (vault, machine, told) = (self.vault.clone(), self.machine, self.told.clone());
        async move { unknown_damage(&vault, machine, &told).await.into_iter().for_each(crate::output::say) }
    }

    /// How a command ends that did what it was asked: scripts must not miss that points are lost.
    pub(crate) fn done(&self) -> Outcome<()> {
        match self.is_damaged {
            false => Ok(()),
            true => {
                Err(Failure::new(Exit::Warned, "it is done, but the vault has lost newer recovery points")
                    .hint("`redoubt verify` says which, and which object to restore from a copy"))
            }
        }
    }

    /// Returns the volumes of a point with their names, or their ids where no name is known.
    pub(crate) fn volumes(&self, point: &PointInfo) -> Vec<(VolumeIndex, String, u64)> {
        self.known.volumes(point)
    }

    /// Finds a point by `newest`, its name, or a beginning of its marker's id. Behind a damaged log nobody
    /// knows which point is the newest: that word is refused then.
    pub(crate) fn point(&self, text: &str) -> Outcome<PointInfo> {
        let points = self.reader.points();
        let newest = points.last().ok_or_else(|| {
            let (what, hint) = match self.is_damaged {
                false => (
                    "there is no recovery point yet",
                    "wait until the first copy is complete: `redoubt status`",
                ),
                true => (
                    "the damage takes every recovery point",
                    "`redoubt verify` says which object to restore from a copy",
                ),
            };
            Failure::new(Exit::Refused, what).hint(hint)
        })?;
        if text == "newest" && self.is_damaged {
            // A script that fails over to `newest` must not get an older day without being told before.
            let what =
                "which point is the newest is not known: the log is damaged, and points behind that are lost";
            let hint = format!(
                "the newest before the damage is {} of {} UTC: take it by its name, or restore the damaged object from a copy",
                point_name(newest),
                show_wall(newest.marker.wall.0)
            );
            return Err(Failure::new(Exit::Refused, what).hint(hint));
        }
        if text == "newest" {
            return Ok(newest.clone());
        }
        let id = |point: &&PointInfo| text.len() >= 8 && point.marker.id.to_string().starts_with(text);
        let mut found = points.iter().filter(|point| point_name(point) == text || id(point));
        match (found.next(), found.next()) {
            (Some(point), None) => Ok(point.clone()),
            (Some(_), Some(_)) => {
                Err(Failure::usage(format!("several points begin with {text}")).hint("write more of it"))
            }
            (None, _) => {
                let what = format!("there is no recovery point {text}");
                let newest = format!(
                    "the newest is {} of {} UTC; list all with `redoubt points`",
                    point_name(newest),
                    show_wall(newest.marker.wall.0)
                );
                Err(Failure::new(Exit::Refused, what).hint(newest))
            }
        }
    }
}

/// A volume at a point, found by what the user typed.
pub(crate) struct Found {
    pub(crate) recovery: Recovery,
    pub(crate) point: PointInfo,
    index: VolumeIndex,
    pub(crate) volume: String,
}

/// Finds a point and a volume in the vault that the options mean.
pub(crate) async fn find(args: &PointArgs) -> Outcome<Found> {
    find_in(open(&args.vault).await?, args)
}

/// As [`find`], as fast as the store allows: damage behind a point that is given by its name is not looked for.
pub(crate) async fn find_fast(args: &PointArgs) -> Outcome<Found> {
    find_in(open_at(&args.vault, point_id(&args.point)).await?, args)
}

fn find_in(recovery: Recovery, args: &PointArgs) -> Outcome<Found> {
    let point = recovery.point(&args.point)?;
    let (index, volume) = recovery.known.find(&point, args.volume.as_deref())?;
    Ok(Found { recovery, point, index, volume })
}

impl Found {
    fn lost(&self) -> Failure {
        Failure::new(Exit::Failed, format!("the point lost its volume {:?}", self.volume))
    }

    /// Returns what an overlay of this volume at this point belongs to.
    pub(crate) fn overlay_of(&self) -> Outcome<OverlayOf> {
        let info = self.point.volumes.get(&self.index).ok_or_else(|| self.lost())?;
        let (machine, marker) = (self.recovery.machine, self.point.marker.id);
        Ok(OverlayOf { machine, marker, volume: info.id, sectors: info.sectors })
    }

    /// Returns the volume as it is at the point, and its size.
    pub(crate) fn view(&self) -> Outcome<(PointView, VolumeIndex, Sectors)> {
        let view = self.recovery.reader.view(self.point.id)?;
        let sectors = view.volumes().get(&self.index).map(|info| info.sectors);
        Ok((view, self.index, sectors.ok_or_else(|| self.lost())?))
    }

    /// Returns the volume as a disk.
    pub(crate) fn disk(&self, overlay: Option<Overlay>) -> Outcome<PointDisk> {
        let view = self.recovery.reader.view(self.point.id)?;
        PointDisk::new(view, self.index, overlay, Arc::new(HostClock::new())).ok_or_else(|| self.lost())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use redoubt_core::change::ResyncReason;
    use redoubt_core::{
        BatchPosition, Chain, Change, Generation, Marker, MarkerId, MarkerKind, Record, VolumeId, WallTime,
        WriteSeq,
    };
    use redoubt_host::HostEntropy;
    use redoubt_vault::{MachineWriter, MemStore, VaultKeys};

    #[tokio::test]
    async fn damage_behind_a_point_is_told_once() {
        let (store, machine) = (Arc::new(MemStore::new()), MachineId(7));
        let vault = Vault::init(store.clone(), VaultKeys::new([3; 32]), &HostEntropy).await.unwrap();
        let mut writer = MachineWriter::claim(&vault, machine, Arc::new(HostEntropy)).await.unwrap();
        for number in 0..3 {
            let marker =
                Marker { id: MarkerId(number.into()), kind: MarkerKind::Crash, wall: WallTime(number) };
            let changes = [
                Change::Attach { volume: VolumeIndex(0), id: VolumeId(1), sectors: Sectors(64) },
                Change::ResyncBegin { reason: ResyncReason::Requested },
                Change::ResyncEnd,
                Change::Marker(marker),
            ];
            let record = |(seq, change)| Record { seq: WriteSeq(seq), change };
            let seq = WriteSeq(number * 4 + 4);
            let to = BatchPosition { generation: Generation(1), seq, chain: Chain([number as u8; 32]) };
            writer.commit((number * 4 + 1..).zip(changes).map(record).collect(), to).await.unwrap();
        }
        assert_eq!(unknown_damage(&vault, machine, &[]).await, Vec::<String>::new());
        let slot = store.names().into_iter().find(|name| name.as_str().ends_with("/log/0000000000000003"));
        store.tamper(&slot.unwrap(), Some(vec![0; 300].into()));
        let found = unknown_damage(&vault, machine, &[]).await;
        assert!(
            matches!(&found[..], [one] if one.contains("recovery points made after it are lost")),
            "{found:?}"
        );
        assert_eq!(unknown_damage(&vault, machine, &found).await, Vec::<String>::new());
    }
}
