//! Segments in words: header, units, extents, trailer.

use super::objects::Shown;
use super::walk::Walk;
use super::{Dump, Finding, Value};
use crate::log::SegmentRow;
use crate::segment::{ExtentRow, HEADER_BYTES, SegmentId, Source, TRAILER_BYTES, UnitRow};
use crate::segment::{open_unit, parse_tail};
use crate::shrink::Inflater;
use redoubt_core::{MachineId, SECTOR_BYTES};
use redoubt_wire::aead::Key;

impl Shown<'_> {
    /// A segment that is an object of its own.
    pub(super) fn segment(&self, dump: &mut Dump, machine: MachineId, epoch: u64, uuid: u128) {
        let vault = self.bytes.get(16..32).and_then(|id| id.try_into().ok()).map_or(0, u128::from_be_bytes);
        dump.summary = format!("segment of epoch {epoch}");
        let id = SegmentId { vault, machine, epoch, uuid, dek: super::names_key(self.bytes) };
        self.show_segment(dump, &id, 0, None);
    }

    /// A segment that starts at `base`; `row` is what its log record says of it, if that is at hand.
    pub(super) fn show_segment(
        &self,
        dump: &mut Dump,
        id: &SegmentId,
        base: usize,
        row: Option<&SegmentRow>,
    ) {
        let bytes = &self.bytes[base..];
        if bytes.len() < HEADER_BYTES + TRAILER_BYTES {
            let what = "is shorter than a segment's header and trailer";
            dump.findings.push(Finding::new(base as u64, dump.bytes, what));
            return;
        }
        header(dump, id, base, bytes);
        let tail = trailer_start(bytes);
        let root = row
            .map(|row| row.root)
            .or_else(|| bytes[bytes.len() - TRAILER_BYTES + 20..][..32].try_into().ok());
        let (Some(dek), Some(root)) = (&self.dek, root) else {
            let what = "cannot be opened: the machine's data key is missing or damaged";
            dump.findings.push(Finding::new(base as u64, dump.bytes, what));
            return;
        };
        let tables = bytes.get(tail as usize..).unwrap_or_default();
        let parsed = parse_tail(id, dek, tail, &root, tables);
        trailer(dump, base, bytes);
        match parsed {
            Ok((units, extents)) => {
                let damaged = show_units(dump, id, dek, base, bytes, &units);
                if row.is_none() {
                    let (units, extents) = (units.len(), extents.len());
                    dump.summary += &format!(", units: {units}, extents: {extents}");
                }
                show_extents(dump, &extents, &damaged);
            }
            Err(what) => {
                let from = (base as u64 + tail).min(dump.bytes);
                dump.findings.push(Finding::new(from, dump.bytes, what.to_string()));
            }
        }
    }
}

fn trailer_start(bytes: &[u8]) -> u64 {
    let trailer = &bytes[bytes.len() - TRAILER_BYTES..];
    trailer[..8].try_into().map_or(0, u64::from_le_bytes)
}

fn header(dump: &mut Dump, id: &SegmentId, base: usize, bytes: &[u8]) {
    let mut walk = Walk::new(&bytes[..HEADER_BYTES], base as u64);
    let mut fields = || {
        walk.magic(b"DRSEG1\0\0")?;
        walk.number("data key", 4)?;
        walk.id("vault")?;
        walk.id("machine")?;
        walk.id("segment")?;
        walk.number("epoch", 8)?;
        walk.reserved(52)?;
        walk.crc()
    };
    let _ = fields();
    let wanted = id.header();
    if let Some(odd) = bytes.iter().zip(&wanted).position(|(found, wanted)| found != wanted) {
        let at = (base + odd) as u64;
        let what = format!("is {:02x}; its place in the vault implies {:02x}", bytes[odd], wanted[odd]);
        walk.findings.push(Finding::new(at, at + 1, what));
    }
    dump.fields("segment header", walk);
}

fn trailer(dump: &mut Dump, base: usize, bytes: &[u8]) {
    let at = bytes.len() - TRAILER_BYTES;
    let mut walk = Walk::new(&bytes[at..], (base + at) as u64);
    let mut fields = || {
        walk.number("unit table at", 8)?;
        walk.number("units", 4)?;
        walk.number("sealed extent table", 4)?;
        walk.packed("its plain length and codec")?;
        walk.raw("root", 32)?;
        walk.reserved(4)?;
        walk.crc()?;
        let magic = walk.raw("magic", 4)?;
        walk.must(magic == b"DRSE", "is not DRSE");
        Ok::<(), super::walk::Ended>(())
    };
    let _ = fields();
    dump.fields("segment trailer", walk);
}

/// Shows the units and returns which of them do not open.
fn show_units(
    dump: &mut Dump,
    id: &SegmentId,
    dek: &Key,
    base: usize,
    bytes: &[u8],
    units: &[UnitRow],
) -> Vec<u32> {
    let (opener, mut damaged, mut rows) = (id.opener(dek), Vec::new(), Vec::new());
    let mut inflater = Inflater::new();
    for (number, unit) in (0u32..).zip(units) {
        let (from, to) = (unit.offset as usize, unit.offset as usize + unit.sealed as usize);
        let sealed = bytes.get(from..to).unwrap_or_default();
        let opened = match crc32c::crc32c(sealed) == unit.crc {
            true => open_unit(id, &opener, &mut inflater, number, unit, sealed).map_err(|what| what.0),
            false => Err("its checksum differs"),
        };
        let state = match opened {
            Ok(_) => "opens",
            Err(what) => {
                let what = format!("unit {number}: {what}");
                dump.findings.push(Finding::new((base + from) as u64, (base + to) as u64, what));
                damaged.push(number);
                "DAMAGED"
            }
        };
        rows.push(vec![
            Value::Number(u64::from(number)),
            Value::Number((base + from) as u64),
            Value::Number(u64::from(unit.sealed)),
            Value::Number(u64::from(unit.plain)),
            if unit.codec == 0 { "raw" } else { "zstd" }.into(),
            Value::Text(format!("{:08x}", unit.crc)),
            state.into(),
        ]);
    }
    dump.rows("units", vec![">UNIT", ">OFFSET", ">SEALED", ">PLAIN", "CODEC", "CHECKSUM", "STATE"], rows);
    damaged
}

fn show_extents(dump: &mut Dump, extents: &[ExtentRow], damaged: &[u32]) {
    let row = |extent: &ExtentRow| {
        let content = match extent.source {
            Source::Zero => "zeros".to_owned(),
            Source::Unit { unit, offset } => {
                let lost = if damaged.contains(&unit) { ", DAMAGED" } else { "" };
                format!("unit {unit} at {}{lost}", u64::from(offset) * SECTOR_BYTES)
            }
        };
        vec![
            Value::Number(u64::from(extent.volume.0)),
            Value::Number(u64::from(extent.span)),
            Value::Number(extent.first * SECTOR_BYTES),
            Value::Number(extent.sectors * SECTOR_BYTES),
            Value::Text(content),
        ]
    };
    let columns = vec![">VOLUME", ">SPAN", ">FROM BYTE", ">BYTES", "CONTENT"];
    dump.rows("extents, sealed", columns, extents.iter().map(row).collect());
}
