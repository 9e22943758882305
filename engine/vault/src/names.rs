//! Object names. No name is a path prefix of another, every name is created at most once, and
//! numbers are zero-padded hex, so that the order of names is the order of numbers.

use crate::reader::PointId;
use redoubt_core::MachineId;
use redoubt_ports::StoreKey;

/// The vault object.
pub(crate) const VAULT: &str = "vault";

/// Prefix of everything that belongs to machines.
pub(crate) const MACHINES: &str = "g/";

pub(crate) fn vault() -> StoreKey {
    StoreKey::new(VAULT)
}

/// What a twin's name ends with.
const TWIN: &str = ".twin";

/// The name under which an object is stored a second time (`twice`).
pub(crate) fn twin(key: &StoreKey) -> StoreKey {
    StoreKey::new(format!("{key}{TWIN}"))
}

/// Returns the name without what makes it that of a twin.
pub(crate) fn without_twin(key: &str) -> &str {
    key.strip_suffix(TWIN).unwrap_or(key)
}

/// Tells whether the name is that of a twin.
pub(crate) fn is_twin(key: &StoreKey) -> bool {
    key.as_str().ends_with(TWIN)
}

/// Returns the name of the other one of two that are stored twice.
pub(crate) fn other_twin(key: &StoreKey) -> StoreKey {
    key.as_str().strip_suffix(TWIN).map_or_else(|| twin(key), StoreKey::new)
}

/// Prefix of one probe's objects. Flat, since a local directory would stay behind when they are deleted.
pub(crate) fn probes(run: u128) -> String {
    format!("probe/{run:032x}.")
}

pub(crate) fn probe(run: u128, round: u32) -> StoreKey {
    StoreKey::new(format!("{}{round:04x}", probes(run)))
}

/// Prefix of the machine's data keys.
pub(crate) fn data_keys(machine: MachineId) -> String {
    format!("g/{machine}/key/")
}

/// A data key as its maker wrapped it.
pub(crate) fn data_key(machine: MachineId, dek: u32) -> StoreKey {
    StoreKey::new(format!("{}{dek:08x}", data_keys(machine)))
}

/// A copy of a data key, wrapped by the vault key of this number.
pub(crate) fn data_key_copy(machine: MachineId, dek: u32, by: u32) -> StoreKey {
    StoreKey::new(format!("{}{dek:08x}.{by:08x}", data_keys(machine)))
}

/// The objects that may hold a data key for the vault key of this number, in the order in which they are tried.
pub(crate) fn wraps(machine: MachineId, dek: u32, by: u32) -> [StoreKey; 4] {
    let (original, copy) = (data_key(machine, dek), data_key_copy(machine, dek, by));
    let twins = [twin(&original), twin(&copy)];
    let [twin_of_original, twin_of_copy] = twins;
    [original, copy, twin_of_original, twin_of_copy]
}

/// Sorts after all objects of a data key and before those of the next.
pub(crate) fn after_data_key(machine: MachineId, dek: u32) -> StoreKey {
    StoreKey::new(format!("{}{dek:08x}.z", data_keys(machine)))
}

/// Reads the data key's number from a name, and the vault key's if it is of a copy; a twin's is read as the other's.
pub(crate) fn data_key_of(key: &StoreKey, machine: MachineId) -> Option<(u32, Option<u32>)> {
    let text = without_twin(key.as_str()).strip_prefix(&data_keys(machine))?;
    match text.split_once('.') {
        None => Some((hex_u32(text)?, None)),
        Some((dek, by)) => Some((hex_u32(dek)?, Some(hex_u32(by)?))),
    }
}

fn hex_u32(text: &str) -> Option<u32> {
    (text.len() == 8).then(|| u32::from_str_radix(text, 16).ok())?
}

/// Prefix of the vault keys after the first.
pub(crate) const VAULT_KEYS: &str = "key/";

/// Announces the vault key of this number.
pub(crate) fn vault_key(number: u32) -> StoreKey {
    StoreKey::new(format!("{VAULT_KEYS}{number:08x}"))
}

/// Says that the vault key of this number opens everything.
pub(crate) fn vault_key_in_force(number: u32) -> StoreKey {
    StoreKey::new(format!("{VAULT_KEYS}{number:08x}.ready"))
}

/// Reads a vault key's number from a name, and whether it is in force by that.
pub(crate) fn vault_key_of(key: &StoreKey) -> Option<(u32, bool)> {
    let text = key.as_str().strip_prefix(VAULT_KEYS)?;
    match text.strip_suffix(".ready") {
        Some(number) => Some((hex_u32(number)?, true)),
        None => Some((hex_u32(text)?, false)),
    }
}

/// Who claims: the writer of the log, or the maintainer of all that is not log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Writer,
    Maintainer,
}

pub(crate) fn claims(machine: MachineId, role: Role) -> String {
    let role = if role == Role::Writer { "w" } else { "m" };
    format!("g/{machine}/claim/{role}/")
}

pub(crate) fn claim(machine: MachineId, role: Role, epoch: u64) -> StoreKey {
    StoreKey::new(format!("{}{epoch:08x}", claims(machine, role)))
}

pub(crate) fn marks(machine: MachineId) -> String {
    format!("g/{machine}/marks/")
}

pub(crate) fn disowned_marks(machine: MachineId, number: u64) -> StoreKey {
    StoreKey::new(format!("{}{number:016x}", marks(machine)))
}

/// Prefix of all that is the machine's.
pub(crate) fn machine(machine: MachineId) -> String {
    format!("g/{machine}/")
}

pub(crate) fn log(machine: MachineId) -> String {
    format!("g/{machine}/log/")
}

pub(crate) fn slot(machine: MachineId, slot: u64) -> StoreKey {
    StoreKey::new(format!("{}{slot:016x}", log(machine)))
}

pub(crate) fn segment(machine: MachineId, epoch: u64, uuid: u128) -> StoreKey {
    StoreKey::new(format!("{}{epoch:08x}/{uuid:032x}", segments(machine)))
}

/// Prefix of the segments that writers put.
pub(crate) fn segments(machine: MachineId) -> String {
    format!("g/{machine}/seg/")
}

/// Prefix of the segments that maintainers packed.
pub(crate) fn packed_segments(machine: MachineId) -> String {
    format!("g/{machine}/cseg/")
}

pub(crate) fn packed_segment(machine: MachineId, epoch: u64, uuid: u128) -> StoreKey {
    StoreKey::new(format!("{}{epoch:08x}/{uuid:032x}", packed_segments(machine)))
}

/// Prefix of the machine's folds.
pub(crate) fn folds(machine: MachineId) -> String {
    format!("g/{machine}/fold/")
}

pub(crate) fn fold(machine: MachineId, epoch: u64, uuid: u128) -> StoreKey {
    StoreKey::new(format!("{}{epoch:08x}/{uuid:032x}", folds(machine)))
}

/// Prefix of the machine's catalogues.
pub(crate) fn catalogues(machine: MachineId) -> String {
    format!("g/{machine}/cat/")
}

/// A version of the catalogue. Numbers count down, so that a listing begins with the newest.
pub(crate) fn catalogue(machine: MachineId, version: u64) -> StoreKey {
    StoreKey::new(format!("{}{:016x}", catalogues(machine), !version))
}

/// Reads the version from a catalogue's name.
pub(crate) fn catalogue_version(key: &StoreKey, machine: MachineId) -> Option<u64> {
    number(key, &catalogues(machine), 16).map(|number| !number)
}

/// Prefix of the machine's tables.
pub(crate) fn tables(machine: MachineId) -> String {
    format!("g/{machine}/idx/")
}

pub(crate) fn table(machine: MachineId, epoch: u64, uuid: u128) -> StoreKey {
    StoreKey::new(format!("{}{epoch:08x}/{uuid:032x}", tables(machine)))
}

/// Reads epoch and identity from the name of an upload: a table, a fold or a segment, by its prefix.
pub(crate) fn upload_of(name: &str, prefix: &str) -> Option<(u64, u128)> {
    let (epoch, uuid) = name.strip_prefix(prefix)?.split_once('/')?;
    let epoch = (epoch.len() == 8).then(|| u64::from_str_radix(epoch, 16).ok())??;
    let uuid = (uuid.len() == 32).then(|| u128::from_str_radix(uuid, 16).ok())??;
    Some((epoch, uuid))
}

/// Prefix of the machine's pins.
pub(crate) fn pins(machine: MachineId) -> String {
    format!("g/{machine}/pin/")
}

/// A pin of a point.
pub(crate) fn pin(machine: MachineId, point: PointId, uuid: u128) -> StoreKey {
    let PointId { slot, ordinal } = point;
    StoreKey::new(format!("{}{slot:016x}.{ordinal:04x}.{uuid:032x}", pins(machine)))
}

/// Reads point and identity from a pin's name.
pub(crate) fn pin_of(key: &StoreKey, machine: MachineId) -> Option<(PointId, u128)> {
    let mut parts = key.as_str().strip_prefix(&pins(machine))?.splitn(3, '.');
    let mut number = |digits| parts.next().filter(|text| text.len() == digits);
    let (slot, ordinal, uuid) = (number(16)?, number(4)?, number(32)?);
    let (slot, ordinal) = (u64::from_str_radix(slot, 16).ok()?, u16::from_str_radix(ordinal, 16).ok()?);
    Some((PointId { slot, ordinal }, u128::from_str_radix(uuid, 16).ok()?))
}

/// Sorts after every object of the machine; lets a listing skip to the next machine.
pub(crate) fn after_machine(machine: MachineId) -> StoreKey {
    StoreKey::new(format!("g/{machine}/zz"))
}

/// Reads the hex number after `prefix`, refusing any other spelling of it.
pub(crate) fn number(key: &StoreKey, prefix: &str, digits: usize) -> Option<u64> {
    let text = key.as_str().strip_prefix(prefix)?;
    (text.len() == digits).then(|| u64::from_str_radix(text, 16).ok())?
}

/// Reads the machine from any of its object names.
pub(crate) fn machine_of(key: &StoreKey) -> Option<MachineId> {
    let text = key.as_str().strip_prefix(MACHINES)?.split('/').next()?;
    (text.len() == 32).then(|| u128::from_str_radix(text, 16).ok().map(MachineId))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_names_is_the_order_of_numbers() {
        const NUMBERS: [u64; 9] = [0, 1, 9, 10, 11, 15, 16, 99, 100];
        const OF: MachineId = MachineId(7);
        let small = |number: u64| number as u32;
        let kinds: [&dyn Fn(u64) -> StoreKey; 7] = [
            &|number| slot(OF, number),
            &|number| claim(OF, Role::Writer, number),
            &|number| data_key(OF, small(number)),
            &|number| vault_key(small(number)),
            &|number| disowned_marks(OF, number),
            &|number| pin(OF, PointId { slot: number, ordinal: 0 }, 1),
            // These count down.
            &|number| catalogue(OF, 100 - number),
        ];
        for name in kinds {
            let names = NUMBERS.map(name);
            assert!(names.is_sorted() && names[0] < names[1], "{names:?}");
        }
    }
}
