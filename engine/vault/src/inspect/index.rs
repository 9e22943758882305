//! Objects of a maintainer in words: a catalogue with what it names, a table's header.

use super::objects::Shown;
use super::walk::{Ended, Walk, hex};
use super::{Dump, Finding, Value};
use crate::index::{self, Catalogue, PointOf, TableInfo};
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
            walk.reserved(20)?;
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
        [run.from, run.to, run.entries, blocks].map(Value::Number).to_vec()
    });
    dump.rows("runs", vec![">FROM SLOT", ">TO SLOT", ">ENTRIES", ">BLOCKS"], runs.collect());
    let garbage = catalogue.garbage.iter();
    let garbage =
        garbage.map(|(object, since)| vec![text(object.name(machine).to_string()), Value::Number(*since)]);
    dump.rows("garbage", vec!["OBJECT", ">SINCE VERSION"], garbage.collect());
}
