//! What people call a machine and its volumes.
//!
//! Invariants
//! - NM-1 A name identifies nothing: two machines, and two volumes of one machine, may have the same. What a volume
//!   is called today is told with its lasting identity, so that its old points go by today's name.
//! - NM-2 No text is longer than [`NAME_BYTES_MAX`], and no list than [`NAMES_MAX`].

use crate::ids::VolumeId;
use std::collections::BTreeMap;

/// Longest name: what a host name may have, and a volume's.
pub const NAME_BYTES_MAX: usize = 64;

/// Volumes whose names are remembered: four times as many as a machine may have at a time. Of one that was
/// forgotten the identity is shown.
pub const NAMES_MAX: usize = 1024;

/// The names of a machine and of its volumes, as far as they are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    machine: String,
    volumes: BTreeMap<VolumeId, String>,
}

fn cut(name: &str) -> String {
    name[..name.floor_char_boundary(NAME_BYTES_MAX)].to_owned()
}

impl Names {
    /// Returns the machine's name, empty if it has none.
    pub fn machine(&self) -> &str {
        &self.machine
    }

    /// Returns the name of a volume.
    pub fn volume(&self, id: VolumeId) -> Option<&str> {
        self.volumes.get(&id).map(String::as_str)
    }

    /// Returns all volumes with a name.
    pub fn volumes(&self) -> impl ExactSizeIterator<Item = (VolumeId, &str)> {
        self.volumes.iter().map(|(id, name)| (*id, name.as_str()))
    }

    /// Names the machine; a name that is too long is cut.
    pub fn call_machine(&mut self, name: &str) {
        self.machine = cut(name);
    }

    /// Names a volume; a name that is too long is cut, an empty one is none.
    pub fn call_volume(&mut self, id: VolumeId, name: &str) {
        match name {
            "" => drop(self.volumes.remove(&id)),
            name => drop(self.volumes.insert(id, cut(name))),
        }
    }

    /// Takes over what newer names say. Volumes they do not know keep theirs: older points have them. Of too many,
    /// those that are not `in_use` are forgotten first.
    pub fn learn(&mut self, newer: &Names, in_use: impl Fn(VolumeId) -> bool) {
        if !newer.machine.is_empty() {
            self.machine.clone_from(&newer.machine);
        }
        self.volumes.extend(newer.volumes.iter().map(|(id, name)| (*id, name.clone())));
        let surplus = self.volumes.len().saturating_sub(NAMES_MAX);
        let mut forgotten: Vec<VolumeId> = self.volumes.keys().copied().collect();
        forgotten.sort_by_key(|id| in_use(*id));
        for id in &forgotten[..surplus] {
            self.volumes.remove(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(machine: &str, volumes: &[(u128, &str)]) -> Names {
        let mut names = Names::default();
        names.call_machine(machine);
        volumes.iter().for_each(|(id, name)| names.call_volume(VolumeId(*id), name));
        names
    }

    #[test]
    fn newer_names_replace_and_nothing_older_is_forgotten() {
        let mut known = names("erp", &[(1, "system"), (2, "data")]);
        known.learn(&names("erp-new", &[(2, "ledger"), (3, "data")]), |_| true);
        assert_eq!(known, names("erp-new", &[(1, "system"), (2, "ledger"), (3, "data")]));
        known.learn(&Names::default(), |_| true);
        assert_eq!(known.machine(), "erp-new", "who says nothing takes nothing back");
    }

    #[test]
    fn of_too_many_those_in_use_stay() {
        let all: Vec<(u128, &str)> = (0..NAMES_MAX as u128).map(|id| (id, "old")).collect();
        let mut known = names("", &all);
        known.learn(&names("", &[(1 << 80, "new"), (1 << 81, "new")]), |id| id.0 == 0 || id.0 >= 1 << 80);
        assert_eq!(known.volumes().len(), NAMES_MAX);
        let known = |id| known.volume(VolumeId(id));
        assert_eq!([known(0), known(1), known(2), known(3)], [Some("old"), None, None, Some("old")]);
        assert_eq!([known(1 << 80), known(1 << 81)], [Some("new"); 2]);
    }

    #[test]
    fn a_long_name_is_cut_at_a_character() {
        let long = names(&"\u{e4}".repeat(40), &[(1, ""), (2, &"x".repeat(65))]);
        assert_eq!(long.machine().len(), NAME_BYTES_MAX);
        assert_eq!(names(&format!("x{}", "\u{e4}".repeat(40)), &[]).machine().len(), NAME_BYTES_MAX - 1);
        assert_eq!((long.volume(VolumeId(1)), long.volume(VolumeId(2)).unwrap().len()), (None, 64));
    }
}
