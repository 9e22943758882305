//! Objects of the index in words: a manifest with what it names, a table's header.

use super::objects::Shown;
use super::walk::{Ended, Walk, hex};
use super::{Dump, Finding, Value};
use crate::index::{self, Manifest};
use redoubt_core::MachineId;

const HEADER_BYTES: usize = 128;

impl Shown<'_> {
    pub(super) fn manifest(&self, dump: &mut Dump, machine: MachineId, slot: u64) -> Result<(), Ended> {
        dump.summary = format!("manifest of the index up to slot {slot}");
        let mut walk = Walk::new(&self.bytes[..self.bytes.len().min(HEADER_BYTES)], 0);
        let mut fields = || {
            walk.magic(b"DRMAN1\0\0")?;
            walk.number("data key", 4)?;
            let required = walk.number("required features", 8)?;
            walk.must(required == 0, format!("features {required:#x} are unknown: use a newer program"));
            let vault = walk.id("vault")?;
            let of = walk.id("machine")?;
            walk.must(of == machine.0, "its name says another machine");
            walk.id("manifest")?;
            let found = walk.number("slot", 8)?;
            walk.must(found == slot, format!("its name says slot {slot}"));
            walk.number("sealed length", 4)?;
            walk.number("its plain length and codec", 4)?;
            walk.reserved(36)?;
            walk.crc()?;
            Ok(vault)
        };
        let vault = fields();
        dump.fields("manifest", walk);
        let (vault, Some(dek)) = (vault?, &self.dek) else {
            dump.findings.push(Finding::new(0, dump.bytes, "there is no data key to open it with"));
            return Ok(());
        };
        match index::decode(self.bytes, vault, machine, slot, dek) {
            Ok(manifest) => show(dump, &manifest),
            Err(why) => dump.findings.push(Finding::new(0, dump.bytes, why.to_string())),
        }
        Ok(())
    }

    /// Parts are opened by what a manifest says of them; alone a table only shows whose it is.
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

fn show(dump: &mut Dump, manifest: &Manifest) {
    let text = |text: String| Value::Text(text);
    let tables = manifest.tables.iter().map(|(uuid, table)| {
        vec![text(format!("{uuid:032x}")), Value::Number(table.length), text(hex(&table.digest))]
    });
    dump.rows("tables", vec!["table", "bytes", "digest"], tables.collect());
    let runs = manifest.runs.iter().map(|run| {
        let (blocks, parts) = (run.rows().len() as u64, run.points.len() as u64);
        [run.from, run.to, run.entries, blocks, parts].map(Value::Number).to_vec()
    });
    let columns = vec!["from slot", "to slot", "entries", "blocks", "parts of points"];
    dump.rows("runs", columns, runs.collect());
}
