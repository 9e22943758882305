//! Kits: read back, refused when damaged or guessed, and silent about what they hold.

use super::*;
use crate::key::KeySource;

/// Cheap, for tests only: a kit records its cost, so it is read as any other.
const CHEAP: Cost = Cost(64, 1, 1);
const KEY: [u8; KEY_BYTES] = [0xA7; KEY_BYTES];

/// Entropy that shows what a kit looks like.
struct Fixed;

impl Entropy for Fixed {
    fn fill(&self, buffer: &mut [u8]) {
        buffer.fill(5);
    }
}

fn kit() -> Kit {
    let url = StoreUrl::parse("s3://backups/erp").unwrap();
    let store =
        StoreSettings { endpoint: Some("https://minio.example:9000".to_owned()), ..StoreSettings::new(url) };
    Kit::new(store, 0x1234, 2, 1_700_000_000_000, &KEY)
}

fn passphrase(text: &str) -> Passphrase {
    Zeroizing::new(text.to_owned())
}

fn text() -> String {
    kit().text(&passphrase("correct horse"), CHEAP, &Fixed).unwrap()
}

fn read(text: &str, phrase: &str) -> Outcome<Kit> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    Kit::read(file.path(), || Ok(passphrase(phrase)))
}

#[test]
fn a_kit_reads_well_and_reads_back() {
    insta::assert_snapshot!(text());
    let kit = read(&text(), "correct horse").unwrap();
    assert_eq!((kit.vault, kit.number, kit.made_ms), (0x1234, 2, 1_700_000_000_000));
    assert_eq!((kit.key(), kit.store.url.to_string()), (&KEY, "s3://backups/erp".to_owned()));
    assert_eq!(kit.store.endpoint.as_deref(), Some("https://minio.example:9000"));
}

#[test]
fn a_typed_kit_needs_only_the_lines_between_its_markers() {
    let text = text();
    let typed = text[text.find(BEGIN).unwrap()..].to_lowercase();
    let typed = typed.replace(&BEGIN.to_lowercase(), BEGIN).replace(&END.to_lowercase(), END);
    assert_eq!(read(&typed, "correct horse").unwrap().key(), &KEY);
}

#[test]
fn a_wrong_passphrase_a_slip_and_a_missing_line_are_told_apart() {
    let wrong = read(&text(), "correct house").unwrap_err();
    assert!(wrong.what.contains("does not open") && wrong.exit == Exit::Refused, "{}", wrong.what);
    let text = text();
    let lines: Vec<&str> = text.lines().collect();
    let begin = lines.iter().position(|line| *line == BEGIN).unwrap();
    let mut slip: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
    slip[begin + 3] = slip[begin + 3].replacen(|c: char| c.is_ascii_uppercase(), "7", 1);
    let slip = read(&slip.join("\n"), "correct horse").unwrap_err();
    assert!(slip.what.contains("line 3"), "{}", slip.what);
    let end = lines.iter().position(|line| *line == END).unwrap();
    let mut cut = lines.clone();
    cut.remove(end - 1);
    assert!(read(&cut.join("\n"), "correct horse").unwrap_err().what.contains("missing"));
    assert!(read("nothing", "correct horse").unwrap_err().what.contains("BEGIN"));
}

#[test]
fn whatever_is_in_the_clear_is_bound_to_the_seal() {
    let kit = kit();
    let phrase = passphrase("correct horse");
    let whole = kit.encode(&phrase, CHEAP, &Fixed).unwrap();
    for at in 24..whole.len() - 4 {
        let mut forged = whole[..whole.len() - 4].to_vec();
        forged[at] ^= 1;
        forged.extend(crc32c::crc32c(&forged).to_le_bytes());
        let text = format!("{BEGIN}\n{}{END}\n", armour::encode(&forged));
        assert!(read(&text, "correct horse").is_err(), "byte {at}");
    }
}

#[test]
fn a_kit_that_asks_for_too_much_is_refused_before_anything_is_tried() {
    let mut bytes = kit().encode(&passphrase("correct horse"), CHEAP, &Fixed).unwrap();
    bytes.truncate(bytes.len() - 4);
    bytes[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
    let text = format!("{BEGIN}\n{}{END}\n", armour::encode(&bytes));
    assert!(read(&text, "correct horse").unwrap_err().what.contains("cost"));
}

#[test]
fn neither_key_nor_passphrase_is_in_the_kit_or_in_what_is_said_of_it() {
    let phrase = "correct horse battery";
    let text = kit().text(&passphrase(phrase), CHEAP, &Fixed).unwrap();
    let hex: String = KEY.iter().map(|byte| format!("{byte:02x}")).collect();
    let said = [
        text.clone(),
        armour::encode(&KEY),
        format!("{:?}", kit()),
        format!("{:?}", KeySource::Kit(Box::new(kit()))),
        read(&text, "another one").unwrap_err().what,
    ];
    let plain = armour::encode(&KEY).lines().next().unwrap()[5..20].to_owned();
    for (at, said) in said.iter().enumerate() {
        assert!(!said.contains(phrase) && !said.contains(&hex), "{at}");
        assert!(at == 1 || !said.contains(&plain), "{at}");
    }
}

#[test]
fn the_cost_of_a_guess_is_what_the_standard_recommends() {
    assert_eq!(COST, Cost(64 << 10, 3, 4));
}
