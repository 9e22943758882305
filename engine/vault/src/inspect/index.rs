//! Objects of a maintainer in words: a catalogue with what it names, a table's header.

use super::objects::Shown;
use super::walk::{Ended, Walk, hex};
use super::{Dump, Finding, Value};
use crate::fold::{self, Fold, Spans};
use crate::index::{self, Catalogue, PointOf, TableId, TableInfo};
use redoubt_core::MachineId;

const HEADER_BYTES: usize = 128;

impl Shown<'_> {
    pub(super) fn catalogue(&self, dump: &mut Dump, machine: MachineId, version: u64) -> Result<(), Ended> {
        dump.summary = format!("catalogue, version {version}");
        let mut walk = Walk::new(&self.bytes[..self.bytes.len().min(HEADER_BYTES)], 0);
        let mut fields = || {
            walk.magic(b"DRCAT1\0\0")?;
            walk.number("data key", 4)?;
            let required = walk.number("required features", 8)?;
            walk.must(required == 0, format!("features {required:#x} are unknown: use a newer program"));
            let vault = walk.id("vault")?;
            let of = walk.id("machine")?;
            walk.must(of == machine.0, "its name says another machine");
            walk.id("catalogue")?;
            let found = walk.number("version", 8)?;
            walk.must(found == version, format!("its name says version {version}"));
            walk.number("slot", 8)?;
            walk.number("maintainer's epoch", 8)?;
            walk.number("sealed length", 4)?;
            walk.number("its plain length and codec", 4)?;
            walk.number("first slot of the log", 8)?;
            walk.reserved(12)?;
            walk.crc()?;
            Ok(vault)
        };
        let vault = fields();
        dump.fields("catalogue", walk);
        let (vault, Some(dek)) = (vault?, &self.dek) else {
            dump.findings.push(Finding::new(0, dump.bytes, "there is no data key to open it with"));
            return Ok(());
        };
        match index::decode(self.bytes, vault, machine, version, dek) {
            Ok(catalogue) => show(dump, machine, &catalogue),
            Err(why) => dump.findings.push(Finding::new(0, dump.bytes, why.to_string())),
        }
        Ok(())
    }

    pub(super) fn fold(
        &self,
        dump: &mut Dump,
        machine: MachineId,
        (epoch, uuid): (u64, u128),
    ) -> Result<(), Ended> {
        dump.summary = "what is left of a stretch of the log".to_owned();
        let mut walk = Walk::new(&self.bytes[..self.bytes.len().min(HEADER_BYTES)], 0);
        let mut fields = || {
            walk.magic(b"DRFOLD1\0")?;
            let dek = walk.number("data key", 4)? as u32;
            let vault = walk.id("vault")?;
            let of = walk.id("machine")?;
            walk.must(of == machine.0, "its name says another machine");
            let found = walk.id("fold")?;
            walk.must(found == uuid, "its name says another fold");
            let found = walk.number("maintainer's epoch", 8)?;
            walk.must(found == epoch, "its name says another epoch");
            walk.number("sealed length", 4)?;
            walk.packed("plain length")?;
            walk.reserved(44)?;
            walk.crc()?;
            Ok(TableId { vault, machine, uuid, dek })
        };
        let id = fields();
        dump.fields("fold", walk);
        let (id, Some(dek)) = (id?, &self.dek) else {
            dump.findings.push(Finding::new(0, dump.bytes, "there is no data key to open it with"));
            return Ok(());
        };
        match fold::decode(&id, epoch, self.bytes, dek) {
            Ok(fold) => show_fold(dump, machine, &fold),
            Err(why) => dump.findings.push(Finding::new(0, dump.bytes, why.to_string())),
        }
        Ok(())
    }

    /// Parts are opened by what a catalogue says of them; alone a table only shows whose it is.
    pub(super) fn table(&self, dump: &mut Dump, machine: MachineId) -> Result<(), Ended> {
        dump.summary = "table of the index".to_owned();
        let mut walk = Walk::new(self.bytes, 0);
        let mut fields = || {
            walk.magic(b"DRIDX1\0\0")?;
            walk.number("data key", 4)?;
            walk.id("vault")?;
            let of = walk.id("machine")?;
            walk.must(of == machine.0, "its name says another machine");
            let uuid = walk.id("table")?;
            walk.must(self.name.ends_with(&format!("/{uuid:032x}")), "its name says another table");
            walk.reserved(60)?;
            walk.crc()?;
            walk.sealed("parts", self.bytes.len() - HEADER_BYTES)?;
            Ok(())
        };
        let ended = fields();
        dump.fields("table", walk);
        ended
    }
}

fn show(dump: &mut Dump, machine: MachineId, catalogue: &Catalogue) {
    let text = |text: String| Value::Text(text);
    let with = |state: &'static str| {
        move |PointOf { info, .. }: &PointOf| {
            let id = text(format!("{}.{}", info.id.slot, info.id.ordinal));
            let kind = text(format!("{:?}", info.marker.kind).to_lowercase());
            vec![id, Value::Wall(info.marker.wall.0), kind, Value::from(state)]
        }
    };
    let points = catalogue.live.iter().map(with("live")).chain(catalogue.retired.iter().map(with("retired")));
    dump.rows("points", vec!["POINT", "TAKEN (UTC)", "KIND", "STATE"], points.collect());
    let tables = catalogue.tables.iter().map(|(uuid, table)| {
        let TableInfo { epoch, length, digest, .. } = *table;
        vec![Value::Number(epoch), text(format!("{uuid:032x}")), Value::Number(length), text(hex(&digest))]
    });
    dump.rows("tables", vec![">EPOCH", "TABLE", ">BYTES", "DIGEST"], tables.collect());
    let runs = catalogue.runs.iter().map(|run| {
        let blocks = run.rows().len() as u64;
        [run.from, run.to, run.entries, blocks, run.folds.len() as u64].map(Value::Number).to_vec()
    });
    dump.rows("runs", vec![">FROM SLOT", ">TO SLOT", ">ENTRIES", ">BLOCKS", ">FOLDS"], runs.collect());
    let folds = catalogue.folds().map(|fold| {
        let sizes = [fold.length, fold.stored, fold.live].map(Value::Number);
        let mut row = vec![Value::Number(fold.epoch), text(format!("{:032x}", fold.uuid))];
        row.extend(sizes);
        row
    });
    dump.rows("folds", vec![">EPOCH", "FOLD", ">BYTES", ">STORED", ">LIVE"], folds.collect());
    let garbage = catalogue.garbage.iter();
    let garbage = garbage.map(|(object, since)| {
        let mut names = object.names(machine);
        let first = names.next().map(|name| name.to_string()).unwrap_or_default();
        vec![text(first), Value::Number(object.count()), Value::Number(*since)]
    });
    dump.rows("garbage", vec!["OBJECT", ">COUNT", ">SINCE VERSION"], garbage.collect());
}

fn show_fold(dump: &mut Dump, machine: MachineId, fold: &Fold) {
    let (rows, zeros) = (fold.rows.len(), fold.zeros.len());
    dump.summary =
        format!("what is left of slots {} to {}: segments: {rows}, zeros: {zeros}", fold.from, fold.to);
    if let Some(end) = &fold.end {
        let points = end.live.len() + end.retired.len();
        dump.summary += &format!(", the last of its run, points: {points}");
    }
    let versions = |spans: &Spans| match spans {
        Spans::Of(slot) => format!("{slot}"),
        Spans::Each(all) => {
            let ends = all.first().zip(all.last());
            ends.map_or(String::new(), |(first, last)| format!("{}..{}", first.slot(), last.slot()))
        }
    };
    let segments = fold.rows.iter().map(|row| {
        let object = row.place.object(machine).0.to_string();
        let numbers = [row.length, u64::from(row.units)].map(Value::Number);
        let mut shown = vec![Value::Text(object), Value::Text(versions(&row.spans))];
        shown.extend(numbers);
        shown
    });
    dump.rows("segments", vec!["OBJECT", "SLOTS", ">BYTES", ">UNITS"], segments.collect());
    let zeros = fold.zeros.iter().map(|zeros| {
        let (slot, span) = (zeros.version.slot(), zeros.version.0 & 0xffff);
        let numbers = [u64::from(zeros.volume.0), zeros.first, zeros.sectors].map(Value::Number);
        let mut shown = vec![Value::Text(format!("{slot}.{span}"))];
        shown.extend(numbers);
        shown
    });
    dump.rows("zeros", vec!["VERSION", ">VOLUME", ">FIRST", ">SECTORS"], zeros.collect());
}
