//! What is made from the tables of the language is current: the manual, the layout of all files, the schemas. And the
//! schemas say the same as the reader.
//!
//! `UPDATE_DOCS=1` renews the manual instead of complaining.
#![expect(clippy::disallowed_methods, reason = "the manual is written if somebody asks for it")]

use redoubt_sim::scenario::{self, Directories, FileKind, manual};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every file of scenarios with its kind.
fn files() -> Vec<(PathBuf, FileKind, String)> {
    let kinds = [
        ("", FileKind::Scenario),
        ("bench", FileKind::Scenario),
        ("large", FileKind::Scenario),
        ("regressions", FileKind::Scenario),
        ("estates", FileKind::Estate),
        ("weather", FileKind::Weather),
    ];
    let mut files = Vec::new();
    for (below, kind) in kinds {
        for entry in std::fs::read_dir(top().join("scenarios").join(below)).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                let text = std::fs::read_to_string(&path).unwrap();
                files.push((path, kind, text));
            }
        }
    }
    assert!(files.len() > 30);
    files
}

#[test]
fn the_manual_says_what_the_tables_say() {
    for name in manual::DOCUMENTS {
        let path = top().join("sim/docs").join(name);
        let text = std::fs::read_to_string(&path).unwrap();
        let renewed = manual::renew(&text).unwrap();
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, &renewed).unwrap();
            continue;
        }
        assert!(text == renewed, "sim/docs/{name} is not current: run this test with UPDATE_DOCS=1");
    }
}

#[test]
fn the_examples_of_the_manual_are_good_and_laid_out() {
    let text = std::fs::read_to_string(top().join("sim/docs/scenarios.md")).unwrap();
    let whole = text.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    if let Err(problems) = scenario::load("manual.toml", "manual", whole) {
        panic!("{}", problems.render(false));
    }
    assert_eq!(scenario::layout(whole, FileKind::Scenario).as_deref(), Ok(whole));
}

#[test]
fn the_example_of_known_failures_is_good_laid_out_and_what_the_schema_says() {
    let text = std::fs::read_to_string(top().join("ci/README.md")).unwrap();
    let whole = text.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    if let Err(problems) = scenario::load_known("known-failures.toml", whole) {
        panic!("{}", problems.render(false));
    }
    assert_eq!(scenario::layout(whole, FileKind::Known).as_deref(), Ok(whole));
    let validator = validator(FileKind::Known);
    assert!(validator.is_valid(&json(whole)));
    for (from, to) in [("says", "sais"), ("mount-holds", "mount-hold"), ("format = 1", "format = 2")] {
        assert!(!validator.is_valid(&json(&whole.replacen(from, to, 1))), "the schema accepts {to}");
    }
}

#[test]
fn every_file_is_laid_out_as_everybody_writes() {
    for (path, kind, text) in files() {
        let laid =
            scenario::layout(&text, kind).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(laid == text, "{} is laid out otherwise; `cargo sim fmt` does it", path.display());
    }
}

#[test]
fn every_shared_file_is_good() {
    let library = Directories(vec![top().join("scenarios")]);
    for (path, kind, text) in files() {
        let shown = path.display().to_string();
        let result = match kind {
            FileKind::Scenario => scenario::load_scenarios(&shown, "x", &text, &library).map(drop),
            FileKind::Estate => scenario::load_estate(&shown, &text, &library).map(drop),
            FileKind::Weather => scenario::load_weather(&shown, "x", &text).map(drop),
            FileKind::Known => scenario::load_known(&shown, &text).map(drop),
        };
        result.unwrap_or_else(|problems| panic!("{}", problems.render(false)));
    }
}

fn json(text: &str) -> Value {
    serde_json::to_value(toml::from_str::<toml::Table>(text).unwrap()).unwrap()
}

fn validator(kind: FileKind) -> jsonschema::Validator {
    let schema = scenario::schema(kind);
    assert!(jsonschema::meta::is_valid(&schema));
    jsonschema::validator_for(&schema).unwrap()
}

#[test]
fn the_schemas_accept_every_file() {
    let validators =
        [FileKind::Scenario, FileKind::Estate, FileKind::Weather].map(|kind| (kind, validator(kind)));
    for (path, kind, text) in files() {
        let (_, validator) = validators.iter().find(|(known, _)| *known == kind).unwrap();
        let errors: Vec<String> =
            validator.iter_errors(&json(&text)).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{}: {errors:?}", path.display());
    }
}

#[test]
fn the_schema_knows_every_key_of_the_reader_and_no_other() {
    // Each key of the tables with its own example is read by both.
    let base = "format = 1\ntitle = \"x\"\nwhy = \"x\"\n[timeline]\nsteps = [{ at = \"9 s\", end = true }]\n";
    let validator = validator(FileKind::Scenario);
    for key in scenario::keys::ESTATE.keys.iter().filter(|key| key.name != "extends") {
        let text = format!("{base}[estate]\n{} = {}\n", key.name, key.example);
        assert!(validator.is_valid(&json(&text)), "{text}");
        scenario::load("x.toml", "x", &text).unwrap_or_else(|problems| panic!("{}", problems.render(false)));
    }
    for key in scenario::keys::EXPECT.keys {
        let text = format!("{base}[expect]\n{} = {}\n", key.name, key.example);
        assert!(validator.is_valid(&json(&text)), "{text}");
        scenario::load("x.toml", "x", &text).unwrap_or_else(|problems| panic!("{}", problems.render(false)));
    }
    for (from, to) in [
        ("title", "titel"),
        ("steps", "stepz"),
        ("end = true", "end = false"),
        ("end = true", "fault = \"link.cutt\", on = \"wan\""),
        ("end = true", "fault = \"link.cut\", on = \"wan\", for = \"5 MiB\""),
        ("end = true", "fault = \"link.cut\", heal = \"x\""),
        ("format = 1", "format = 2"),
        ("why = \"x\"", "why = \"x\"\nseeds = { pr = 0 }"),
        ("why = \"x\"", "why = \"x\"\n[estate]\nstage = \"2 s\""),
        ("why = \"x\"", "why = \"x\"\n[estate]\nlink = \"wam\""),
        ("why = \"x\"", "why = \"x\"\n[protect.erp]\nmachines = [\"*\"]\nrto = \"5 s\""),
    ] {
        let text = base.replacen(from, to, 1);
        assert!(!validator.is_valid(&json(&text)), "the schema accepts {to}");
        assert!(scenario::load("x.toml", "x", &text).is_err(), "the reader accepts {to}");
    }
}
