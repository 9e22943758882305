//! Vault object, data key, claim, disowned marks and log record in words.

use super::walk::{Ended, Walk};
use super::{Dump, Finding, Value};
use crate::keys::VaultKeys;
use crate::log::{self, LogRecord};
use crate::names::{self, Role};
use crate::reader::PointId;
use redoubt_core::MachineId;
use redoubt_ports::StoreKey;
use redoubt_wire::aead::Key;

/// Reasons of a resync, by their code; see `crate::log`.
const REASONS: [&str; 8] = [
    "none",
    "initial replication",
    "unclean stop",
    "overflow",
    "stage lost",
    "fork",
    "untracked writes",
    "requested",
];
const POINT_KINDS: [&str; 4] = ["", "crash", "app", "planned"];

/// An object, and what is needed to open it.
pub(super) struct Shown<'a> {
    pub(super) name: &'a str,
    pub(super) bytes: &'a [u8],
    pub(super) keys: &'a VaultKeys,
    pub(super) machine: Option<MachineId>,
    pub(super) dek: Option<Key>,
    /// Whether the key in use is a vault key, but not the first.
    pub(super) is_later_key: bool,
    /// Epoch and digest of the log slot before, if there is one.
    pub(super) before: Option<(u64, [u8; 32])>,
}

impl Shown<'_> {
    pub(super) fn dump(&self) -> Dump {
        let mut dump = Dump::new(self.name, self.bytes);
        let place = self.machine.and_then(|machine| self.name.strip_prefix(&format!("g/{machine}/")));
        let (machine, place) = (self.machine.unwrap_or(MachineId(0)), place.unwrap_or_default());
        let number = |prefix: String, digits| names::number(&StoreKey::new(self.name), &prefix, digits);
        // An object that ends too early has said so.
        let _ = if names::without_twin(self.name) == names::VAULT {
            self.vault(&mut dump)
        } else if let Some((number, is_in_force)) = names::vault_key_of(&StoreKey::new(self.name)) {
            self.vault_key(&mut dump, number, is_in_force)
        } else if place.starts_with("key/") {
            self.key(&mut dump, machine)
        } else if let Some(epoch) = number(names::claims(machine, Role::Writer), 8) {
            self.claim(&mut dump, machine, "writer", epoch)
        } else if let Some(epoch) = number(names::claims(machine, Role::Maintainer), 8) {
            self.claim(&mut dump, machine, "maintainer", epoch)
        } else if let Some(marks) = number(names::marks(machine), 16) {
            self.marks(&mut dump, machine, marks)
        } else if let Some((point, uuid)) = names::pin_of(&StoreKey::new(self.name), machine) {
            self.pin(&mut dump, machine, point, uuid)
        } else if let Some(slot) = number(names::log(machine), 16) {
            self.log(&mut dump, machine, slot)
        } else if let Some(inverted) = number(names::catalogues(machine), 16) {
            self.catalogue(&mut dump, machine, !inverted)
        } else if place.starts_with("idx/") {
            self.table(&mut dump, machine)
        } else if let Some(id) = names::upload_of(self.name, &names::folds(machine)) {
            self.fold(&mut dump, machine, id)
        } else if let Some((epoch, uuid)) = segment_name(place) {
            self.segment(&mut dump, machine, epoch, uuid);
            Ok(())
        } else {
            dump.summary = "no object of this format has this name".to_owned();
            let what = "nothing of format 1.0 has this name; a newer program may know it";
            dump.findings.push(Finding::new(0, dump.bytes, what));
            Ok(())
        };
        if names::without_twin(self.name) != self.name {
            dump.summary.push_str(", stored a second time");
        }
        dump
    }

    fn vault(&self, dump: &mut Dump) -> Result<(), Ended> {
        dump.summary = "vault".to_owned();
        let mut walk = Walk::new(self.bytes, 0);
        let mut fields = || {
            walk.magic(b"DRVAULT1")?;
            let required = walk.number("required features", 8)?;
            walk.must(required == 0, format!("features {required:#x} are unknown: use a newer program"));
            walk.number("optional features", 8)?;
            let uuid = walk.id("vault")?;
            let check = walk.raw("key check", 16)?;
            // With a later key of the vault it differs; then that one's object says so.
            let is_first = check == self.keys.check(uuid);
            walk.must(is_first || self.is_later_key, "the key is not that of this vault");
            walk.crc()?;
            walk.end();
            Ok(())
        };
        let ended = fields();
        dump.fields("vault object", walk);
        ended
    }

    fn vault_key(&self, dump: &mut Dump, number: u32, is_in_force: bool) -> Result<(), Ended> {
        let (what, magic) = match is_in_force {
            true => ("in force", crate::vault_keys::IN_FORCE),
            false => ("announced", crate::vault_keys::ANNOUNCED),
        };
        dump.summary = format!("vault key {number} is {what}");
        let mut walk = Walk::new(self.bytes, 0);
        let mut fields = || {
            walk.magic(magic)?;
            let found = walk.number("vault key", 4)?;
            walk.must(found == u64::from(number), "its name says another vault key");
            walk.id("vault")?;
            walk.raw("key check", 16)?;
            walk.crc()?;
            walk.end();
            Ok(())
        };
        let ended = fields();
        dump.fields("vault key", walk);
        ended
    }

    fn key(&self, dump: &mut Dump, machine: MachineId) -> Result<(), Ended> {
        dump.summary = "wrapped data key".to_owned();
        let mut walk = Walk::new(self.bytes, 0);
        let mut fields = || {
            walk.magic(b"DRKEY1\0\0")?;
            let id = walk.number("data key", 4)?;
            walk.must(self.name.contains(&format!("/{id:08x}")), "its name says another data key");
            walk.id("vault")?;
            let of = walk.id("machine")?;
            walk.must(of == machine.0, "its name says another machine");
            walk.id("wrap")?;
            let by = walk.number("vault key", 4)?;
            let name = names::without_twin(self.name);
            let named = name.rsplit_once('.').is_none_or(|(_, name)| name == format!("{by:08x}"));
            walk.must(named, "its name says another vault key");
            walk.reserved(4)?;
            walk.sealed("sealed key", 32)?;
            walk.must(self.dek.is_some(), "does not open with this vault's key");
            walk.raw("tag", 16)?;
            walk.crc()?;
            walk.end();
            Ok(())
        };
        let ended = fields();
        dump.fields("data key", walk);
        ended
    }

    fn pin(&self, dump: &mut Dump, machine: MachineId, point: PointId, uuid: u128) -> Result<(), Ended> {
        dump.summary = format!("pin of point {}.{}", point.slot, point.ordinal);
        let mut walk = Walk::new(self.bytes, 0);
        let mut fields = || {
            walk.magic(b"DRPIN1\0\0")?;
            let ordinal = walk.number("ordinal of the point", 4)?;
            walk.id("vault")?;
            let of = walk.id("machine")?;
            walk.must(of == machine.0, "its name says another machine");
            let slot = walk.number("slot of the point", 8)?;
            let is_same = (slot, ordinal) == (point.slot, u64::from(point.ordinal));
            walk.must(is_same, "its name says another point");
            let found = walk.id("pin")?;
            walk.must(found == uuid, "its name says another pin");
            walk.crc()?;
            walk.end();
            Ok(())
        };
        let ended = fields();
        dump.fields("pin", walk);
        ended
    }

    fn claim(&self, dump: &mut Dump, machine: MachineId, who: &str, epoch: u64) -> Result<(), Ended> {
        dump.summary = format!("claim of epoch {epoch} by a {who}");
        let mut walk = Walk::new(self.bytes, 0);
        let mut fields = || {
            walk.magic(b"DRCLAIM1")?;
            walk.reserved(4)?;
            walk.id("vault")?;
            let of = walk.id("machine")?;
            walk.must(of == machine.0, "its name says another machine");
            let found = walk.number("epoch", 8)?;
            walk.must(found == epoch, format!("its name says epoch {epoch}"));
            walk.id("writer")?;
            walk.crc()?;
            walk.end();
            Ok(())
        };
        let ended = fields();
        dump.fields("claim", walk);
        ended
    }

    fn marks(&self, dump: &mut Dump, machine: MachineId, number: u64) -> Result<(), Ended> {
        dump.summary = format!("disowned marks, number {number}");
        let mut walk = Walk::new(self.bytes, 0);
        let mut fields = || {
            walk.magic(b"DRMARKS1")?;
            walk.reserved(4)?;
            walk.id("vault")?;
            let of = walk.id("machine")?;
            walk.must(of == machine.0, "its name says another machine");
            let found = walk.number("number", 8)?;
            walk.must(found == number, format!("its name says number {number}"));
            walk.crc()?;
            walk.end();
            Ok(())
        };
        let ended = fields();
        dump.fields("disowned marks", walk);
        ended
    }

    fn log(&self, dump: &mut Dump, machine: MachineId, slot: u64) -> Result<(), Ended> {
        dump.summary = format!("log record of slot {slot}");
        let header = &self.bytes[..self.bytes.len().min(log::HEADER_BYTES)];
        let mut walk = Walk::new(header, 0);
        let mut fields = || {
            walk.magic(b"DRLOG1\0\0")?;
            walk.code("kind", &["", "seal", "commit"])?;
            walk.reserved(3)?;
            walk.id("vault")?;
            let of = walk.id("machine")?;
            walk.must(of == machine.0, "its name says another machine");
            let found = walk.number("slot", 8)?;
            walk.must(found == slot, format!("its name says slot {slot}"));
            let epoch = walk.number("epoch", 8)?;
            walk.id("writer")?;
            let digest = walk.raw("digest of the slot before", 32)?;
            // A record of an older epoch is void: nothing it says counts.
            let before = self.before.filter(|(before, _)| *before <= epoch);
            let follows = before.is_none_or(|(_, before)| digest == before);
            walk.must(follows, "is not the digest of the slot before: one of the two changed");
            walk.number("data key", 4)?;
            let length = walk.number("length of the body", 4)? as usize;
            walk.reserved(20)?;
            walk.crc()?;
            Ok(length)
        };
        let ended = fields();
        dump.fields("header", walk);
        let length = ended?;
        let Some(dek) = &self.dek else {
            let what = "cannot be opened: the machine's data key is missing or damaged";
            let from = log::HEADER_BYTES as u64;
            dump.findings.push(Finding::new(from, from + length as u64, what));
            return Ok(());
        };
        let plain = log::open_body(self.bytes, dek);
        let from = log::HEADER_BYTES as u64;
        match plain {
            Ok(plain) => body(dump, slot, &plain),
            Err(what) => {
                let to = (from + length as u64).min(dump.bytes);
                dump.findings.push(Finding::new(from, to, format!("the body: {what}")));
                return Ok(());
            }
        }
        match log::decode(self.bytes, dek) {
            Ok(record) => self.inline(dump, &record),
            Err(what) => dump.findings.push(Finding::new(from, dump.bytes, what.to_string())),
        }
        Ok(())
    }

    fn inline(&self, dump: &mut Dump, record: &LogRecord) {
        let (points, segments) = (record.body.points.len(), record.body.segments.len());
        let kind = if record.header.kind == log::Kind::Seal { "seal" } else { "commit" };
        let (from, to) = (record.body.from.0, record.body.head.position.seq.0);
        let state = if record.body.head.exact { "exact" } else { "not exact" };
        dump.summary = format!(
            "{kind} of slot {}: changes after {from} up to {to}, {state}, points: {points}, segments: {segments}",
            record.header.slot
        );
        let row = record.body.segments.iter().find(|row| row.inline);
        let end = record.inline_at + row.map_or(0, |row| row.length);
        if end != dump.bytes {
            let (from, to) = (end.min(dump.bytes), end.max(dump.bytes));
            dump.findings.push(Finding::new(from, to, "the object does not end where its record says"));
        }
        if let Some(row) = row {
            self.show_segment(dump, &record.segment_id(row), record.inline_at as usize, Some(row));
        }
    }
}

fn segment_name(place: &str) -> Option<(u64, u128)> {
    let place = place.strip_prefix("seg/").or_else(|| place.strip_prefix("cseg/"))?;
    let (epoch, uuid) = place.split_once('/')?;
    let right = epoch.len() == 8 && uuid.len() == 32;
    right.then_some((u64::from_str_radix(epoch, 16).ok()?, u128::from_str_radix(uuid, 16).ok()?))
}

/// The opened body; what it says of places is relative to the object, as a seal keeps lengths.
fn body(dump: &mut Dump, slot: u64, plain: &[u8]) {
    let mut walk = Walk::new(plain, log::HEADER_BYTES as u64);
    let mut state = Vec::new();
    let mut called = Vec::new();
    let mut points = Vec::new();
    let mut segments = Vec::new();
    let mut fields = || {
        walk.number("state before ends with", 8)?;
        walk.number("generation", 8)?;
        walk.number("sequence", 8)?;
        walk.raw("chain of the stream", 32)?;
        walk.code("exact", &["no", "yes"])?;
        walk.code("running resync", &REASONS)?;
        state = volumes(&mut walk)?;
        called = names(&mut walk)?;
        let shown = walk.fields.len();
        for ordinal in 0..walk.number("points", 2)? {
            points.push(point(&mut walk, slot, ordinal)?);
        }
        let count = walk.number("segments", 2)?;
        let counts = [walk.fields[shown].clone(), walk.fields[walk.fields.len() - 1].clone()];
        for _ in 0..count {
            segments.push(segment_row(&mut walk)?);
        }
        walk.number("units sealed with the data key", 8)?;
        let sealed = walk.fields.pop();
        walk.end();
        // Points and segments are shown as rows.
        walk.fields.truncate(shown);
        walk.fields.extend(counts.into_iter().chain(sealed));
        Ok::<(), Ended>(())
    };
    let _ = fields();
    dump.fields("body, sealed", walk);
    dump.rows("volumes", vec![">ORDINAL", "VOLUME", ">SECTORS"], state);
    dump.rows("names", vec!["VOLUME", "NAME"], called);
    let columns = vec!["POINT", "MARKER", "KIND", "TAKEN (UTC)", ">SEQUENCE", "EXACT", ">VOLUMES"];
    dump.rows("points", columns, points);
    let columns = vec!["SEGMENT", ">BYTES", ">TABLES AT", ">UNITS", "PLACE", "ROOT"];
    dump.rows("segments", columns, segments);
}

fn volumes(walk: &mut Walk<'_>) -> Result<Vec<Vec<Value>>, Ended> {
    let count = walk.number("volumes", 2)?;
    let shown = walk.fields.len();
    let mut rows = Vec::new();
    for _ in 0..count {
        let (ordinal, id) = (walk.number("ordinal", 2)?, walk.id("volume")?);
        let sectors = walk.number("sectors", 8)?;
        rows.push(vec![Value::Number(ordinal), Value::Text(format!("{id:032x}")), Value::Number(sectors)]);
    }
    walk.fields.truncate(shown);
    Ok(rows)
}

fn names(walk: &mut Walk<'_>) -> Result<Vec<Vec<Value>>, Ended> {
    walk.text("name of the machine")?;
    let count = walk.number("names of volumes", 2)?;
    let shown = walk.fields.len();
    let mut rows = Vec::new();
    for _ in 0..count {
        let (id, name) = (walk.id("volume")?, walk.text("name of the volume")?);
        rows.push(vec![Value::Text(format!("{id:032x}")), Value::Text(name)]);
    }
    walk.fields.truncate(shown);
    Ok(rows)
}

fn point(walk: &mut Walk<'_>, slot: u64, ordinal: u64) -> Result<Vec<Value>, Ended> {
    let marker = walk.id("marker")?;
    let kind = walk.code("kind of marker", &POINT_KINDS)?;
    let (wall, seq, exact) = (walk.wall("taken")?, walk.number("sequence", 8)?, walk.number("exact", 1)?);
    let volumes = volumes(walk)?.len() as u64;
    Ok(vec![
        Value::Text(format!("{slot}.{ordinal}")),
        Value::Text(format!("{marker:032x}")),
        POINT_KINDS.get(kind).copied().unwrap_or("unknown").into(),
        Value::Wall(wall),
        Value::Number(seq),
        if exact == 1 { "yes" } else { "no" }.into(),
        Value::Number(volumes),
    ])
}

fn segment_row(walk: &mut Walk<'_>) -> Result<Vec<Value>, Ended> {
    let uuid = walk.id("segment")?;
    let (length, tail, units) =
        (walk.number("length", 8)?, walk.number("tables", 8)?, walk.number("units", 4)?);
    let root = super::walk::hex(walk.raw("root", 32)?);
    walk.raw("digest", 32)?;
    let place = if walk.number("inline", 1)? == 1 { "inline" } else { "object" };
    Ok(vec![
        Value::Text(format!("{uuid:032x}")),
        Value::Number(length),
        Value::Number(tail),
        Value::Number(units),
        place.into(),
        Value::Text(root),
    ])
}
