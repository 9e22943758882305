//! A segment with its key: every unit opened and unpacked, and compared with what its record says.
//!
//! Pure. What is *not* here: which points need what is damaged (`super::hits`).

use super::clear::Fault;
use crate::log::SegmentRow;
use crate::segment::{ExtentRow, HEADER_BYTES, SegmentId, Source, check_unit, open_unit, parse_tail};
use crate::shrink::Inflater;
use crate::units::HEADER_DIFFERS;
use redoubt_wire::aead::Key;

/// What a segment turned out to be.
pub(super) struct Opened {
    /// Damaged units, and bytes that are no unit's.
    pub(super) faults: Vec<Fault>,
    /// Whether the tables cannot be used: what the segment wrote is then not known from it.
    pub(super) is_closed: bool,
    pub(super) units: u64,
    /// Rows whose content is in a damaged unit.
    pub(super) extents: Vec<ExtentRow>,
}

/// Checks a segment that begins at `base` of its object.
pub(super) fn segment(bytes: &[u8], base: u64, id: &SegmentId, row: &SegmentRow, dek: &Key) -> Opened {
    let mut opened = Opened { faults: Vec::new(), is_closed: true, units: 0, extents: Vec::new() };
    let length = bytes.len() as u64;
    let at = |from: u64, to: u64, what: &str| Fault::new(base + from, base + to, what);
    if length < row.length {
        opened.faults.push(at(length, row.length, "the segment is cut short"));
        return opened;
    }
    if length > row.length {
        opened.faults.push(at(row.length, length, "the object does not end where its record says"));
    }
    let bytes = &bytes[..row.length as usize];
    let is_own = bytes.starts_with(&id.header());
    let (units, extents) = match parse_tail(id, dek, row.tail, &row.root, &bytes[row.tail as usize..]) {
        Ok((units, _)) if units.len() != row.units as usize => {
            opened.faults.push(at(row.tail, row.length, "the tables disagree with the record"));
            return opened;
        }
        Ok(tables) => tables,
        Err(what) => {
            opened.faults.push(at(row.tail, row.length, what.0));
            return opened;
        }
    };
    opened.is_closed = !is_own && units.is_empty();
    opened.units = units.len() as u64;
    if !is_own {
        // Whoever reads unit 0 compares the header, too.
        let unit = (!units.is_empty()).then_some(0);
        opened.faults.push(Fault { unit, ..at(0, HEADER_BYTES as u64, HEADER_DIFFERS) });
    }
    let (opener, mut inflater) = (id.opener(dek), Inflater::new());
    for (number, unit) in (0u32..).zip(&units) {
        let (from, to) = (unit.offset, unit.offset + u64::from(unit.sealed));
        let sealed = &bytes[from as usize..to as usize];
        let what = match open_unit(id, &opener, &mut inflater, number, unit, sealed) {
            Err(what) => what.0,
            Ok(_) if !check_unit(unit, bytes) => "the checksum of a unit differs",
            Ok(_) => continue,
        };
        opened.faults.push(Fault { unit: Some(number), ..at(from, to, what) });
    }
    if opened.faults.is_empty() && blake3::hash(bytes).as_bytes() != &row.digest {
        opened.faults.push(at(0, row.length, "the digest is not that of the record or fold"));
    }
    let is_bad = |unit: u32| opened.faults.iter().any(|fault| fault.unit == Some(unit));
    opened.extents = extents
        .into_iter()
        .filter(|row| matches!(row.source, Source::Unit { unit, .. } if is_bad(unit)))
        .collect();
    opened
}
