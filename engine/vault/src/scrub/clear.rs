//! What can be said of an object without any key: checksums, digests, and whether it is what its name says.
//!
//! Pure: bytes in, faults out. What is *not* here: what other objects say of it.

use crate::codec::{Malformed, Take, checked_crc};
use crate::log;
use crate::names::{self, Role};
use crate::segment::{HEADER_BYTES, SegmentId, check_unit, clear_tables};
use redoubt_core::MachineId;
use redoubt_ports::StoreKey;

/// Bytes of an object that are wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) what: String,
    /// The unit they belong to.
    pub(super) unit: Option<u32>,
}

impl Fault {
    pub(super) fn new(from: u64, to: u64, what: impl Into<String>) -> Fault {
        Fault { from, to, what: what.into(), unit: None }
    }

    pub(super) fn all(bytes: &[u8], what: impl ToString) -> Fault {
        Fault::new(0, bytes.len() as u64, what.to_string())
    }
}

/// What an object's name says that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Key(u32),
    Claim(Role, u64),
    Marks(u64),
    Pin,
    Slot(u64),
    Segment(u64, u128),
    Catalogue(u64),
    Table(u64, u128),
    Fold(u64, u128),
    /// A segment that a maintainer packed.
    Packed(u64, u128),
    Other,
}

impl Kind {
    pub(super) fn of(name: &StoreKey, machine: MachineId) -> Kind {
        let number = |prefix: String, digits| names::number(name, &prefix, digits);
        let place = name.as_str().strip_prefix(&format!("g/{machine}/")).unwrap_or_default();
        if let Some((id, _)) = names::data_key_of(name, machine) {
            Kind::Key(id)
        } else if let Some(epoch) = number(names::claims(machine, Role::Writer), 8) {
            Kind::Claim(Role::Writer, epoch)
        } else if let Some(epoch) = number(names::claims(machine, Role::Maintainer), 8) {
            Kind::Claim(Role::Maintainer, epoch)
        } else if let Some(marks) = number(names::marks(machine), 16) {
            Kind::Marks(marks)
        } else if names::pin_of(name, machine).is_some() {
            Kind::Pin
        } else if let Some(slot) = number(names::log(machine), 16) {
            Kind::Slot(slot)
        } else if let Some(inverted) = number(names::catalogues(machine), 16) {
            Kind::Catalogue(!inverted)
        } else if let Some((epoch, uuid)) = names::upload_of(name.as_str(), &names::tables(machine)) {
            Kind::Table(epoch, uuid)
        } else if let Some((epoch, uuid)) = names::upload_of(name.as_str(), &names::folds(machine)) {
            Kind::Fold(epoch, uuid)
        } else if let Some((epoch, uuid)) = names::upload_of(name.as_str(), &names::packed_segments(machine))
        {
            Kind::Packed(epoch, uuid)
        } else if let Some((epoch, uuid)) = place.strip_prefix("seg/").and_then(|at| at.split_once('/')) {
            let epoch = (epoch.len() == 8).then(|| u64::from_str_radix(epoch, 16).ok()).flatten();
            epoch.zip(id(uuid)).map_or(Kind::Other, |(epoch, uuid)| Kind::Segment(epoch, uuid))
        } else {
            Kind::Other
        }
    }
}

fn id(text: &str) -> Option<u128> {
    (text.len() == 32).then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

/// Reads the vault's identity, if the object's checksum holds.
pub(super) fn vault(bytes: &[u8]) -> Result<u128, Malformed> {
    let mut take = Take::new(checked_crc(bytes)?);
    if take.array()? != *b"DRVAULT1" {
        return Err(Malformed("not a vault object"));
    }
    take.bytes(2 + 2 + 8 + 8)?;
    take.u128()
}

/// Checks an object that is a header and little else: magic, machine and number where the format has them.
pub(super) fn small(bytes: &[u8], machine: MachineId, kind: Kind, vault: u128) -> Option<Fault> {
    let fields = || {
        let mut take = Take::new(checked_crc(bytes)?);
        let (magic, _, _) = (take.array::<8>()?, take.u16()?, take.u16()?);
        let (word, of, whose) = (take.u32()?, take.u128()?, take.u128()?);
        let matches = match kind {
            Kind::Key(dek) => magic == *b"DRKEY1\0\0" && word == dek,
            Kind::Claim(_, epoch) => magic == *b"DRCLAIM1" && take.u64()? == epoch,
            Kind::Marks(number) => magic == *b"DRMARKS1" && take.u64()? == number,
            Kind::Pin => magic == *b"DRPIN1\0\0",
            _ => true,
        };
        let ours = matches && of == vault && whose == machine.0;
        if ours { Ok(()) } else { Err(Malformed("it belongs elsewhere")) }
    };
    fields().err().map(|what| Fault::all(bytes, what))
}

/// Checks the clear header of a table, a catalogue or a fold.
pub(super) fn index_header(bytes: &[u8], length: usize, magic: &[u8; 8]) -> Option<Fault> {
    let header = bytes.get(..length).ok_or(Malformed("shorter than its header")).and_then(checked_crc);
    match header {
        Ok(header) if header.starts_with(magic) => None,
        Ok(_) => Some(Fault::new(0, length as u64, "not what its name says")),
        Err(what) => Some(Fault::new(0, length.min(bytes.len()) as u64, what.to_string())),
    }
}

/// A slot as far as it can be read without a key.
pub(super) struct ClearSlot {
    pub(super) faults: Vec<Fault>,
    /// Digest of the record, the digest that it names, its epoch; if its header is whole.
    pub(super) links: Option<([u8; 32], [u8; 32], u64)>,
    /// Where a segment behind it would begin.
    pub(super) inline_at: usize,
}

/// Checks a slot's header.
pub(super) fn slot(bytes: &[u8], vault: u128, machine: MachineId, slot: u64) -> ClearSlot {
    let mut faults = Vec::new();
    let wrong = |what: &str| Fault::new(0, bytes.len().min(log::HEADER_BYTES) as u64, what);
    let peeked = log::peek(bytes);
    let links = match &peeked {
        Err(what) => {
            faults.push(wrong(what.0));
            None
        }
        Ok((header, _)) if (header.vault, header.machine, header.slot) != (vault, machine, slot) => {
            faults.push(wrong("the record belongs elsewhere"));
            None
        }
        Ok((header, _)) => match log::peek_digest(bytes) {
            Some(digest) => Some((digest, header.prev, header.epoch)),
            None => {
                faults.push(Fault::new(bytes.len() as u64, bytes.len() as u64, "the record is cut short"));
                None
            }
        },
    };
    let body = peeked.map_or(0, |(_, length)| length as usize);
    ClearSlot { faults, links, inline_at: log::HEADER_BYTES + body }
}

/// Checks a segment by what it says of itself; returns how many units it looked at.
pub(super) fn segment(bytes: &[u8], base: u64, id: Option<SegmentId>) -> (Vec<Fault>, u64) {
    let length = bytes.len() as u64;
    let at = |from: u64, to: u64, what: &str| Fault::new(base + from, base + to, what);
    let Some(header) = bytes.get(..HEADER_BYTES) else {
        return (vec![at(0, length, "shorter than its header")], 0);
    };
    let Some(found) = SegmentId::read(header) else {
        return (vec![at(0, HEADER_BYTES as u64, "the segment's header is damaged")], 0);
    };
    // The data key's number is not in the name.
    if id.is_some_and(|id| SegmentId { dek: found.dek, ..id } != found) {
        return (vec![at(0, HEADER_BYTES as u64, "the segment belongs elsewhere")], 0);
    }
    let (_, units) = match clear_tables(&found, bytes) {
        Ok(tables) => tables,
        Err(what) => return (vec![at(HEADER_BYTES as u64, length, what.0)], 0),
    };
    let bad = (0u32..).zip(&units).filter(|(_, row)| !check_unit(row, bytes));
    let bad = bad.map(|(number, row)| {
        let what = format!("the checksum of unit {number} differs");
        let to = row.offset + u64::from(row.sealed);
        Fault { unit: Some(number), ..at(row.offset, to, &what) }
    });
    (bad.collect(), units.len() as u64)
}
