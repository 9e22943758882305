//! The JSON Schema of scenario files, made from the key table and the verbs, for editors and other tools.
//!
//! It judges shapes, words and units. What needs more than one place (labels, targets, circles) is for `check`.

use super::FileKind;
use super::keys::{ESTATE, GROUP, Key, PROTECT_LATER, Place, SCENARIO, Takes, WEATHER};
use super::known::KNOWN_FILE_KEYS;
use super::quantity::{UNITS, Unit};
use super::verbs::VERBS;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Returns the schema of a kind of file.
pub fn schema(kind: FileKind) -> Value {
    let (place, title) = match kind {
        FileKind::Scenario => (&SCENARIO, "A scenario of the lab"),
        FileKind::Estate => (&ESTATE, "An estate of the lab"),
        FileKind::Weather => (&WEATHER, "A weather of the lab"),
        FileKind::Known => (&KNOWN_FILE_KEYS, "Known failures of the lab"),
    };
    let mut schema = of_place(place);
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!(title);
    if kind == FileKind::Estate {
        for (key, value) in [("format", json!({ "const": 1 })), ("title", text()), ("why", text())] {
            schema["properties"][key] = value;
        }
    }
    if kind == FileKind::Scenario {
        // Who extends a file may leave to it what must be there.
        schema["required"] = json!(["format", "title", "why"]);
        schema["anyOf"] = json!([{ "required": ["timeline"] }, { "required": ["extends"] }]);
    }
    schema
}

fn text() -> Value {
    json!({ "type": "string" })
}

fn of_place(place: &Place) -> Value {
    let mut properties: Map<String, Value> =
        place.keys.iter().map(|key| (key.name.to_owned(), of_key(key))).collect();
    let is_step = place.names().contains(&"fault");
    if is_step {
        properties.extend(amounts());
    }
    let mut schema = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    let required: Vec<&str> =
        place.keys.iter().filter(|key| key.default.is_none()).map(|key| key.name).collect();
    // A table that only adds steps, and an estate over another one, need nothing.
    if !required.is_empty() && place.name != "[timeline]" {
        schema["required"] = json!(required);
    }
    if place.names().contains(&"heal") {
        let one = ["do", "fault", "heal", "check", "end"].map(|key| json!({ "required": [key] }));
        schema["oneOf"] = json!(one);
    }
    if std::ptr::eq(place, &GROUP) {
        let later = PROTECT_LATER
            .iter()
            .map(|(key, why)| ((*key).to_owned(), json!({ "not": {}, "description": why })));
        if let Some(properties) = schema["properties"].as_object_mut() {
            properties.extend(later);
        }
    }
    schema
}

/// Quantities of the verbs, by key.
fn amounts() -> Map<String, Value> {
    let units: BTreeMap<&str, Unit> =
        VERBS.iter().flat_map(|verb| verb.takes).map(|(key, unit)| (*key, *unit)).collect();
    let about = |key: &str| {
        let takers = VERBS.iter().filter(|verb| verb.takes.iter().any(|(name, _)| *name == key));
        takers.map(|verb| verb.name).collect::<Vec<_>>().join(", ")
    };
    let amount = |(key, unit): (&str, Unit)| {
        let mut schema = quantity(unit, true);
        schema["description"] = json!(format!("of {}", about(key)));
        (key.to_owned(), schema)
    };
    units.into_iter().map(amount).collect()
}

fn of_key(key: &Key) -> Value {
    let mut schema = match (key.name, key.takes) {
        ("do" | "fault" | "check", Takes::Text) => verbs(key.name),
        (_, takes) => of_takes(&takes),
    };
    schema["description"] = json!(key.about);
    if let Some(default) = key.default.filter(|default| !default.is_empty()) {
        schema["description"] = json!(format!("{}; else: {default}", key.about));
    }
    schema
}

/// Names of verbs; of faults patterns as well.
fn verbs(key: &str) -> Value {
    let names: Vec<&str> = VERBS.iter().filter(|verb| verb.key == key).map(|verb| verb.name).collect();
    match key {
        "fault" => json!({ "anyOf": [{ "enum": names }, { "type": "string", "pattern": "[*?]" }] }),
        _ => json!({ "enum": names }),
    }
}

fn of_takes(takes: &Takes) -> Value {
    match takes {
        Takes::Format => json!({ "const": 1 }),
        Takes::Text | Takes::Moment => text(),
        Takes::Texts => json!({ "type": "array", "items": text() }),
        Takes::Flag => json!({ "const": true }),
        Takes::Seed => json!({ "type": "integer", "minimum": 0 }),
        Takes::Count => json!({ "type": "integer", "minimum": 1, "maximum": 1_000_000 }),
        Takes::Amount(unit) => quantity(*unit, false),
        Takes::Ranged(unit) | Takes::Drawn(unit) => quantity(*unit, true),
        Takes::Word(known) => word(known()),
        Takes::Words(known) => json!({ "type": "array", "items": word(known()) }),
        Takes::Faults => {
            json!({ "anyOf": [{ "const": true }, { "type": "array", "items": verbs("fault") }] })
        }
        Takes::Variable => json!({ "anyOf": [
            { "type": "string", "pattern": pattern(&Unit::ALL, true) },
            { "type": "array", "items": text(), "minItems": 1 },
        ] }),
        Takes::Table(place) => of_place(place),
        Takes::FileOrTable(place) => json!({ "anyOf": [text(), of_place(place)] }),
        Takes::Named(place) => json!({ "type": "object", "additionalProperties": of_place(place) }),
        Takes::Values(takes) => json!({ "type": "object", "additionalProperties": of_takes(takes) }),
        Takes::Tables(place) => json!({ "type": "array", "items": of_place(place) }),
    }
}

/// One of these words, or a value of the matrix.
fn word(known: Vec<&str>) -> Value {
    json!({ "anyOf": [{ "enum": known }, { "type": "string", "pattern": "^\\$" }] })
}

fn quantity(unit: Unit, is_range: bool) -> Value {
    let text = json!({ "type": "string", "pattern": pattern(&[unit], is_range) });
    match unit {
        Unit::Count => json!({ "anyOf": [text, { "type": "integer" }] }),
        _ => text,
    }
}

/// Returns the pattern of quantities. `$name` stands for a variable or a value of the matrix.
fn pattern(units: &[Unit], is_range: bool) -> String {
    let names: Vec<String> = UNITS
        .iter()
        .filter(|(_, _, unit)| units.contains(unit))
        .map(|(name, ..)| name.replace('/', "\\/"))
        .collect();
    let number = "-?[0-9]+(\\.[0-9]+)?";
    let range = if is_range { format!("(\\.\\.{number})?") } else { String::new() };
    format!("^(\\$[A-Za-z0-9_-]+|{number}{range} *({}))$", names.join("|"))
}
