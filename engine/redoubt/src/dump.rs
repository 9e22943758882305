//! How an object of a vault looks on the screen and as JSON.

use crate::output::{self, Cell, Tone};
use crate::units::show_wall;
use redoubt_vault::inspect::{Dump, Finding, Part, Value};
use serde::Serialize;

/// Rows of a part that are shown unless all are asked for.
const ROWS_MAX: usize = 20;

#[derive(Serialize)]
pub(crate) struct FindingJson {
    from: u64,
    to: u64,
    what: String,
}

impl From<&Finding> for FindingJson {
    fn from(finding: &Finding) -> FindingJson {
        FindingJson { from: finding.from, to: finding.to, what: finding.what.clone() }
    }
}

/// An object in a line.
#[derive(Serialize)]
pub(crate) struct Line {
    object: String,
    bytes: u64,
    what: String,
    pub(crate) damage: Vec<FindingJson>,
}

impl Line {
    pub(crate) fn of(dump: &Dump) -> Line {
        let damage = dump.findings.iter().map(FindingJson::from).collect();
        Line { object: dump.object.clone(), bytes: dump.bytes, what: dump.summary.clone(), damage }
    }
}

/// Shows many objects.
pub(crate) fn show_list(lines: &[Line]) -> String {
    let row = |line: &Line| {
        let state = match line.damage.first() {
            None => Cell::toned("ok", Tone::Good),
            Some(first) => Cell::toned(format!("DAMAGED at {}..{}", first.from, first.to), Tone::Bad),
        };
        vec![line.object.clone().into(), line.bytes.to_string().into(), state, line.what.clone().into()]
    };
    output::table(&["OBJECT", ">BYTES", "STATE", "WHAT"], lines.iter().map(row).collect())
}

fn text(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Wall(millis) => show_wall(*millis),
    }
}

/// Shows one object in full.
pub(crate) fn show(dump: &Dump, all: bool) -> String {
    let mut shown = format!(" {}\n {} bytes, {}\n", dump.object, dump.bytes, dump.summary);
    let has_content = |part: &&Part| !part.fields.is_empty() || !part.rows.is_empty();
    for part in dump.parts.iter().filter(has_content) {
        shown += &format!("\n {}\n\n{}\n", part.title, show_part(part, all));
    }
    if dump.findings.is_empty() {
        return shown + "\n whole: every byte is as its checks say";
    }
    let row = |finding: &Finding| {
        vec![format!("{}..{}", finding.from, finding.to).into(), Cell::toned(finding.what.clone(), Tone::Bad)]
    };
    shown + "\n DAMAGED\n\n" + &output::table(&[">BYTES", "WHAT"], dump.findings.iter().map(row).collect())
}

fn show_part(part: &Part, all: bool) -> String {
    if part.columns.is_empty() {
        let row = |field: &redoubt_vault::inspect::Field| {
            let cells =
                [field.at.to_string(), field.bytes.to_string(), field.name.to_owned(), text(&field.value)];
            cells.into_iter().map(Cell::from).collect()
        };
        return output::table(
            &[">OFFSET", ">BYTES", "FIELD", "VALUE"],
            part.fields.iter().map(row).collect(),
        );
    }
    let shown = if all { part.rows.len() } else { ROWS_MAX.min(part.rows.len()) };
    let cell = |value: &Value| {
        let text = text(value);
        let tone = if text.contains("DAMAGED") { Tone::Bad } else { Tone::Plain };
        Cell::toned(text, tone)
    };
    let rows = part.rows[..shown].iter().map(|row| row.iter().map(cell).collect()).collect();
    let table = output::table(&part.columns, rows);
    match part.rows.len() - shown {
        0 => table,
        more => format!("{table}\n and {more} more; --all shows them"),
    }
}

fn value(value: &Value) -> serde_json::Value {
    match value {
        Value::Text(text) => text.clone().into(),
        Value::Number(number) | Value::Wall(number) => (*number).into(),
    }
}

/// The same for programs, always with all rows.
pub(crate) fn json(dump: &Dump) -> serde_json::Value {
    let field = |field: &redoubt_vault::inspect::Field| serde_json::json!({ "at": field.at, "bytes": field.bytes, "field": field.name, "value": value(&field.value) });
    let part = |part: &Part| {
        let names = part.columns.iter().map(|name| name.trim_start_matches('>').to_lowercase());
        let row = |row: &Vec<Value>| -> serde_json::Map<String, serde_json::Value> {
            names.clone().zip(row.iter().map(value)).collect()
        };
        let rows: Vec<_> = part.rows.iter().map(row).collect();
        let fields: Vec<_> = part.fields.iter().map(field).collect();
        serde_json::json!({ "part": part.title, "fields": fields, "rows": rows })
    };
    let damage: Vec<FindingJson> = dump.findings.iter().map(FindingJson::from).collect();
    serde_json::json!({
        "object": dump.object,
        "bytes": dump.bytes,
        "what": dump.summary,
        "parts": dump.parts.iter().map(part).collect::<Vec<_>>(),
        "damage": damage,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use redoubt_core::change::ResyncReason;
    use redoubt_core::{
        BatchPosition, Chain, Change, Extent, Generation, Lba, MachineId, Marker, MarkerId, MarkerKind,
        Record, Sectors, VolumeId, VolumeIndex, WallTime, WriteSeq,
    };
    use redoubt_ports::{Entropy, StoreKey};
    use redoubt_vault::inspect::Inspector;
    use redoubt_vault::{
        MachineWriter, Maintainer, MaintainerSettings, MemStore, Times, Vault, VaultKeys, WriterSettings,
    };
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU8, Ordering};

    const VOLUME: VolumeIndex = VolumeIndex(0);

    /// Counts, so that every dump is the same.
    struct Counting(AtomicU8);

    impl Entropy for Counting {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(self.0.fetch_add(1, Ordering::Relaxed));
        }
    }

    fn keys() -> VaultKeys {
        VaultKeys::new([5; 32])
    }

    /// A vault with a point in an inline segment and one in a segment of its own.
    async fn vault() -> Arc<MemStore> {
        let (store, entropy) = (Arc::new(MemStore::new()), Arc::new(Counting(AtomicU8::new(1))));
        let vault = Vault::init(store.clone(), keys(), &*entropy).await.unwrap();
        let marker = |id: u128, kind| {
            Change::Marker(Marker { id: MarkerId(id), kind, wall: WallTime(1_772_373_731_000) })
        };
        let write = |lba, fill| Change::Write {
            volume: VOLUME,
            lba: Lba(lba),
            payload: Bytes::from(vec![fill; 4096]),
        };
        let changes = vec![
            Change::Attach { volume: VOLUME, id: VolumeId(0xabcd), sectors: Sectors(2048) },
            Change::ResyncBegin { reason: ResyncReason::Initial },
            write(8, 1),
            Change::ResyncEnd,
            marker(0x77, MarkerKind::Crash),
            write(1024, 2),
            Change::WriteZeroes { volume: VOLUME, extent: Extent::new(8, 4) },
            marker(0x78, MarkerKind::App),
        ];
        let record = |(at, change)| Record { seq: WriteSeq(at as u64 + 1), change };
        let records: Vec<Record> = changes.into_iter().enumerate().map(record).collect();
        for (to, inline_bytes) in [(5, 1 << 20), (8, 0)] {
            let settings = WriterSettings { inline_bytes, ..WriterSettings::default() };
            let writer = MachineWriter::claim_with(&vault, MachineId(9), entropy.clone(), settings).await;
            let position =
                BatchPosition { generation: Generation(1), seq: WriteSeq(to), chain: Chain([to as u8; 32]) };
            writer.unwrap().commit(records[..to as usize].to_vec(), position).await.unwrap();
        }
        vault.disown_marks(MachineId(9), 4).await.unwrap();
        store
    }

    async fn dump(store: &Arc<MemStore>, name: &StoreKey) -> Dump {
        Inspector::new(store.clone(), keys()).dump(name).await.unwrap().unwrap()
    }

    fn find(store: &MemStore, part: &str) -> StoreKey {
        store.names().into_iter().find(|name| name.as_str().contains(part)).unwrap()
    }

    #[tokio::test]
    async fn every_kind_of_object_reads_in_words() {
        let store = vault().await;
        for (name, part) in [
            ("vault", "vault"),
            ("key", "/key/"),
            ("claim", "/claim/w/00000001"),
            ("marks", "/marks/"),
            ("seal", "/log/0000000000000001"),
            ("commit", "/log/0000000000000002"),
            ("segment", "/seg/"),
        ] {
            let dump = dump(&store, &find(&store, part)).await;
            assert_eq!(dump.findings, [], "{name}");
            insta::assert_snapshot!(format!("dump_{name}"), show(&dump, false));
        }
        let mut lines = Vec::new();
        for name in store.names() {
            lines.push(Line::of(&dump(&store, &name).await));
        }
        insta::assert_snapshot!("dump_list", show_list(&lines));
        let json = json(&dump(&store, &find(&store, "/claim/w/00000001")).await);
        insta::assert_snapshot!("dump_json", serde_json::to_string_pretty(&json).unwrap());
    }

    #[tokio::test]
    async fn a_catalogue_reads_in_words_and_says_when_it_is_damaged() {
        let (store, entropy) = (vault().await, Arc::new(Counting(AtomicU8::new(100))));
        let opened = Vault::open(store.clone(), keys()).await.unwrap();
        let mut maintainer = Maintainer::claim(
            &opened,
            MachineId(9),
            entropy,
            MaintainerSettings { every: 1, ..MaintainerSettings::default() },
        )
        .await
        .unwrap();
        assert_eq!(maintainer.round(4, Times::default()).await.unwrap(), Some(4));
        let (catalogue, table) = (find(&store, "/cat/"), find(&store, "/idx/"));
        for (name, key) in [("catalogue", &catalogue), ("table", &table)] {
            let dump = dump(&store, key).await;
            assert_eq!(dump.findings, [], "{name}");
            assert!(show(&dump, false).contains(name), "{name}");
        }
        let whole = store.peek(&catalogue).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.to_vec();
            bytes[at] ^= 0x10;
            store.tamper(&catalogue, Some(bytes.into()));
            let found = dump(&store, &catalogue).await.findings;
            let holds = |finding: &Finding| (finding.from..finding.to).contains(&(at as u64));
            assert!(found.iter().any(holds), "byte {at}: {found:?}");
        }
    }

    #[tokio::test]
    async fn damage_is_said_with_its_place() {
        let store = vault().await;
        for (name, part, at) in [
            ("claim", "/claim/w/00000001", 50),
            ("commit", "/log/0000000000000002", 200),
            ("chain", "/log/0000000000000003", 90),
            ("segment", "/seg/", 130),
            ("segment_header", "/seg/", 100),
        ] {
            let key = find(&store, part);
            let whole = store.peek(&key).unwrap();
            let mut bytes = whole.to_vec();
            bytes[at] ^= 1;
            store.tamper(&key, Some(bytes.into()));
            let found = dump(&store, &key).await;
            store.tamper(&key, Some(whole));
            let holds = |finding: &Finding| (finding.from..finding.to).contains(&(at as u64));
            assert!(found.findings.iter().any(holds), "{name}: {:?}", found.findings);
            let shown = show(&found, false);
            let damage = shown.split_once(" DAMAGED\n").unwrap().1;
            insta::assert_snapshot!(format!("damage_{name}"), damage);
        }
    }

    #[tokio::test]
    async fn any_flipped_or_missing_byte_of_any_object_is_found_where_it_is() {
        let store = vault().await;
        for name in store.names() {
            let whole = store.peek(&name).unwrap();
            for at in 0..whole.len() {
                let mut bytes = whole.to_vec();
                bytes[at] ^= 0x10;
                store.tamper(&name, Some(bytes.into()));
                let found = dump(&store, &name).await.findings;
                let holds = |finding: &Finding| (finding.from..finding.to).contains(&(at as u64));
                assert!(found.iter().any(holds), "{name} byte {at}: {found:?}");
            }
            for length in [0, whole.len() / 2, whole.len() - 1] {
                store.tamper(&name, Some(whole.slice(..length)));
                assert!(!dump(&store, &name).await.findings.is_empty(), "{name} cut at {length}");
            }
            store.tamper(&name, Some(whole));
        }
    }
}
