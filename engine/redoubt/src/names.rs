//! What people call machines and disks, found from what they typed, and shown instead of identities.
//!
//! The vault knows the names; a state directory may know them too, before the first commit told the vault. A disk
//! that is protected under a name has an identity made of it, so that such a name always finds its disk.

use crate::failure::{Exit, Failure, Outcome};
use redoubt_core::{MachineId, Names, VolumeId, VolumeIndex};
use redoubt_roles::agent::VolumeSpec;
use redoubt_vault::{PointInfo, Vault};
use std::fmt::Display;

/// Machines that are asked for their names, when the one that is meant is not known.
const ASKED_MAX: usize = 64;

/// The names of one machine.
pub(crate) struct Known {
    machine: MachineId,
    names: Names,
}

impl Known {
    /// Takes what the vault says over the names that a state directory has.
    pub(crate) fn new(machine: MachineId, vault: &Names, local: impl Iterator<Item = String>) -> Known {
        let mut names = Names::default();
        local.for_each(|name| names.call_volume(VolumeSpec::new(&name, "").id_in(machine), &name));
        names.learn(vault, |_| true);
        Known { machine, names }
    }

    /// Returns the machine's name, empty if it has none.
    pub(crate) fn machine_name(&self) -> &str {
        self.names.machine()
    }

    /// Returns a volume's name, or its identity where none is known.
    pub(crate) fn volume(&self, id: VolumeId) -> String {
        self.names.volume(id).map_or_else(|| id.to_string(), str::to_owned)
    }

    /// Returns the volumes of a point. Two that are called the same are told apart by their identities.
    pub(crate) fn volumes(&self, point: &PointInfo) -> Vec<(VolumeIndex, String, u64)> {
        let shown = |id: VolumeId| {
            let is_of = |other: VolumeId| other != id && self.volume(other) == self.volume(id);
            let is_shared = point.volumes.values().any(|info| is_of(info.id));
            if is_shared { id.to_string() } else { self.volume(id) }
        };
        point.volumes.iter().map(|(index, info)| (*index, shown(info.id), info.sectors.bytes())).collect()
    }

    /// Finds a volume of a point by its name, by a name it was protected under, or by its identity; without any,
    /// the only one.
    pub(crate) fn find(&self, point: &PointInfo, name: Option<&str>) -> Outcome<(VolumeIndex, String)> {
        let volumes = self.volumes(point);
        let list = || volumes.iter().map(|(_, name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
        let Some(name) = name else {
            return match &volumes[..] {
                [(index, name, _)] => Ok((*index, name.clone())),
                _ => Err(Failure::usage(format!("the point holds several volumes: {}", list()))
                    .hint("choose one with --volume")),
            };
        };
        let derived = VolumeSpec::new(name, "").id_in(self.machine);
        let ways: [&dyn Fn(VolumeId) -> bool; 2] = [
            &|id| self.names.volume(id) == Some(name) || id.to_string() == name,
            // What it was called when it was protected, whatever it is called now.
            &|id| id == derived,
        ];
        for way in ways {
            let mut found = volumes.iter().filter(|(index, ..)| way(point.volumes[index].id));
            match (found.next(), found.next()) {
                (Some((index, name, _)), None) => return Ok((*index, name.clone())),
                (Some(_), Some(_)) => {
                    let what = format!("the point holds several volumes called {name:?}");
                    return Err(Failure::usage(what).hint(format!("choose one by its identity: {}", list())));
                }
                (None, _) => {}
            }
        }
        Err(Failure::new(Exit::Refused, format!("the point holds no volume {name:?}"))
            .hint(format!("it holds {}", list())))
    }
}

/// Returns a machine as it is shown: by its name, if it has one, and its identity.
pub(crate) fn machine(id: impl Display, name: &str) -> String {
    if name.is_empty() { id.to_string() } else { format!("{name} ({id})") }
}

/// What a user types to mean a machine.
#[derive(Clone, Debug)]
pub(crate) enum WhichMachine {
    Id(MachineId),
    Name(String),
}

/// Finds the machine of a vault that is called so, or the only one.
pub(crate) async fn find_machine(vault: &Vault, place: &str, name: Option<&str>) -> Outcome<MachineId> {
    let machines = vault.list_machines().await?;
    match (&machines[..], name) {
        ([], _) => {
            let what = format!("vault {place} holds no machine yet");
            return Err(Failure::new(Exit::Refused, what).hint("wait for the first recovery point"));
        }
        ([only], None) => return Ok(*only),
        _ => {}
    }
    let mut known = Vec::new();
    for id in machines.iter().take(ASKED_MAX) {
        // One whose log cannot be read goes by its identity.
        known.push((*id, vault.names(*id).await.unwrap_or_default()));
    }
    let list = |known: &[(MachineId, Names)]| {
        let shown: Vec<String> = known.iter().map(|(id, names)| machine(*id, names.machine())).collect();
        shown.join(", ")
    };
    let all = list(&known);
    if let Some(name) = name {
        known.retain(|(_, names)| names.machine() == name);
    }
    match (&known[..], name) {
        ([(id, _)], _) => Ok(*id),
        ([], name) => {
            let what = format!("vault {place} holds no machine {:?}", name.unwrap_or_default());
            Err(Failure::new(Exit::Refused, what).hint(format!("it holds {all}")))
        }
        (_, None) => Err(Failure::usage(format!("vault {place} holds several machines: {all}"))
            .hint("choose one with --machine, by its name or its 32 digits")),
        (several, Some(name)) => {
            let what = format!("vault {place} holds several machines called {name:?}: {}", list(several));
            Err(Failure::usage(what).hint("choose one with --machine, by its 32 digits"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use redoubt_core::{Marker, MarkerId, MarkerKind, Sectors, WallTime, WriteSeq};
    use redoubt_vault::{PointId, VolumeInfo};

    const MACHINE: MachineId = MachineId(7);

    fn derived(name: &str) -> VolumeId {
        VolumeSpec::new(name, "").id_in(MACHINE)
    }

    fn point(ids: &[VolumeId]) -> PointInfo {
        let marker = Marker { id: MarkerId(1), kind: MarkerKind::Crash, wall: WallTime(0) };
        let volume = |(at, id): (usize, &VolumeId)| {
            (VolumeIndex(at as u16), VolumeInfo { id: *id, sectors: Sectors(8) })
        };
        let volumes = ids.iter().enumerate().map(volume).collect();
        PointInfo { id: PointId { slot: 2, ordinal: 0 }, marker, seq: WriteSeq(3), exact: true, volumes }
    }

    fn names(volumes: &[(VolumeId, &str)]) -> Names {
        let mut names = Names::default();
        volumes.iter().for_each(|(id, name)| names.call_volume(*id, name));
        names
    }

    fn shown(known: &Known, point: &PointInfo) -> Vec<String> {
        known.volumes(point).into_iter().map(|(_, name, _)| name).collect()
    }

    #[test]
    fn a_renamed_volume_is_found_by_both_names_and_goes_by_the_new_one() {
        let known = Known::new(MACHINE, &names(&[(derived("old"), "new")]), ["old".to_owned()].into_iter());
        let point = point(&[derived("old"), VolumeId(9)]);
        assert_eq!(shown(&known, &point), ["new".to_owned(), VolumeId(9).to_string()]);
        for typed in ["new", "old", &derived("old").to_string()] {
            assert_eq!(known.find(&point, Some(typed)).unwrap(), (VolumeIndex(0), "new".to_owned()));
        }
        assert!(known.find(&point, Some("other")).is_err());
        assert!(known.find(&point, None).unwrap_err().what.contains("several volumes: new, 0000"));
    }

    #[test]
    fn volumes_that_are_called_the_same_are_never_mixed_up() {
        let (a, b) = (derived("data"), VolumeId(9));
        let known = Known::new(MACHINE, &names(&[(a, "data"), (b, "data")]), std::iter::empty());
        let both = point(&[a, b]);
        assert_eq!(shown(&known, &both), [a.to_string(), b.to_string()]);
        let failure = known.find(&both, Some("data")).unwrap_err();
        assert!(failure.what.contains("several volumes called \"data\""), "{}", failure.what);
        assert_eq!(known.find(&both, Some(&b.to_string())).unwrap(), (VolumeIndex(1), b.to_string()));
        assert_eq!(shown(&known, &point(&[b])), ["data"], "alone it needs no identity");
    }

    #[test]
    fn a_name_that_another_volume_has_now_means_that_one() {
        // "data" was renamed to "old", and another disk is called "data" since.
        let known = Known::new(
            MACHINE,
            &names(&[(derived("data"), "old"), (VolumeId(9), "data")]),
            std::iter::empty(),
        );
        let both = point(&[derived("data"), VolumeId(9)]);
        assert_eq!(known.find(&both, Some("data")).unwrap().0, VolumeIndex(1));
        assert_eq!(
            known.find(&point(&[derived("data")]), Some("data")).unwrap(),
            (VolumeIndex(0), "old".into())
        );
    }
}
