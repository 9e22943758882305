//! The parts of the manual that are made from tables: they stand between two marks in the documents of [`DOCUMENTS`] and
//! are renewed as a whole, so that the manual never says what the reader does not do.

use super::budget;
use super::catalogue::{LOAD_WORDS, ORACLE_WORDS, WORDS};
use super::codes::Code;
use super::expect::{MEASURES, STATISTICS};
use super::keys::{
    DAY, ESTATE, EXPECT, GROUP, GUST, LOAD, MACHINE, Place, SCENARIO, SEEDS, SERVER, STEP, TIMELINE, Takes,
    WEATHER,
};
use super::quantity::{UNITS, Unit};
use super::verbs::{ENDS_ITSELF, Ends, MARKS, Target, VERBS, Verb};
use std::fmt::Write;

/// Documents with such parts, in `sim/docs`.
pub const DOCUMENTS: [&str; 2] = ["scenarios.md", "faults.md"];

const BEGIN: &str = "<!-- made from the tables of the lab: ";
const END: &str = "<!-- end -->\n";

/// Renews every part of a text that is made from a table. A part of an unknown name is told.
pub fn renew(text: &str) -> Result<String, String> {
    let mut parts = text.split(BEGIN);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = part.split_once(" -->\n").ok_or("a mark has no end")?;
        let (_, rest) = rest.split_once(END).ok_or_else(|| format!("the part {name:?} has no end"))?;
        let made = made(name).ok_or_else(|| format!("nothing is made under the name {name:?}"))?;
        let _ = write!(out, "{BEGIN}{name} -->\n{made}{END}{rest}");
    }
    Ok(out)
}

fn made(name: &str) -> Option<String> {
    let place = |place: &Place| Some(keys(place));
    match name {
        "a scenario" => place(&SCENARIO),
        "seeds" => place(&SEEDS),
        "estate" => place(&ESTATE),
        "a machine" => place(&MACHINE),
        "a process server" => place(&SERVER),
        "protect" => place(&GROUP),
        "load" => place(&LOAD),
        "day" => place(&DAY),
        "timeline" => place(&TIMELINE),
        "a step" => place(&STEP),
        "expect" => place(&EXPECT),
        "weather" => place(&WEATHER),
        "a fault of the weather" => place(&GUST),
        "units" => Some(units()),
        "faults" => Some(verbs("fault")),
        "budget" => Some(hits()),
        name if name.starts_with("faults of ") => catalogue(&name["faults of ".len()..]),
        "acts" => Some(
            verbs("do") + &verbs("check").lines().skip(2).map(|line| format!("{line}\n")).collect::<String>(),
        ),
        "loads" => Some(pairs(["model", "is"], LOAD_WORDS)),
        "oracles" => Some(pairs(["oracle", "holds when"], ORACLE_WORDS)),
        "measures" => Some(measures()),
        "marks" => {
            Some(format!("{}\n", MARKS.iter().map(|mark| format!("`{mark}`")).collect::<Vec<_>>().join(", ")))
        }
        "codes" => Some(codes()),
        _ => None,
    }
}

fn head(columns: &[&str]) -> String {
    format!("| {} |\n|{}\n", columns.join(" | "), "---|".repeat(columns.len()))
}

fn keys(place: &Place) -> String {
    let mut out = head(&["key", "takes", "is", "without it"]);
    for key in place.keys {
        let default = match key.default {
            None => "an error".to_owned(),
            Some("") => "-".to_owned(),
            Some(default) => default.to_owned(),
        };
        let _ = writeln!(out, "| `{}` | {} | {} | {default} |", key.name, takes(&key.takes), key.about);
    }
    out
}

fn words(known: &[&str]) -> String {
    known.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

fn unit(unit: Unit) -> &'static str {
    match unit {
        Unit::Millis => "a duration",
        Unit::Bytes => "a size",
        Unit::Ppm => "a share",
        Unit::Count => "a count",
    }
}

fn takes(takes: &Takes) -> String {
    match takes {
        Takes::Format => "`1`".to_owned(),
        Takes::Text => "text".to_owned(),
        Takes::Texts => "list of texts".to_owned(),
        Takes::Flag => "`true`".to_owned(),
        Takes::Seed | Takes::Count => "number".to_owned(),
        Takes::Amount(of) => unit(*of).to_owned(),
        Takes::Ranged(of) => format!("{} or a range", unit(*of)),
        Takes::Drawn(of) => format!("{}, a range or `$name`", unit(*of)),
        Takes::Moment => "a moment".to_owned(),
        Takes::Word(known) if known().len() <= 12 => words(&known()),
        Takes::Word(_) => "a word".to_owned(),
        Takes::Words(_) => "list of names".to_owned(),
        Takes::Faults => "`true`, or list of faults and patterns".to_owned(),
        Takes::Variable => "a range, or list of names".to_owned(),
        Takes::Table(_) => "table".to_owned(),
        Takes::FileOrTable(_) => "file or table".to_owned(),
        Takes::Named(_) => "table of tables, by name".to_owned(),
        Takes::Values(_) => "table, by name".to_owned(),
        Takes::Tables(_) => "list of tables".to_owned(),
    }
}

fn units() -> String {
    let mut out = head(&["quantity", "units"]);
    for of in Unit::ALL {
        let names: Vec<&str> = UNITS
            .iter()
            .filter(|(name, _, known)| *known == of && !name.is_empty())
            .map(|(name, ..)| *name)
            .collect();
        let none = if of == Unit::Count { ", or none" } else { "" };
        let _ = writeln!(out, "| {} | {}{none} |", unit(of), words(&names));
    }
    out
}

fn verbs(key: &str) -> String {
    let mut out = head(&[&format!("`{key}`"), "`on`", "takes", "what happens"]);
    for verb in VERBS.iter().filter(|verb| verb.key == key) {
        let on = target(verb.target);
        let mut takes: Vec<String> =
            verb.takes.iter().map(|(name, of)| format!("`{name}`: {}", unit(*of))).collect();
        if verb.ends == Ends::Lasts {
            takes.push("`for`".to_owned());
        }
        let Some(words) = WORDS.iter().find(|words| words.of == (verb.key, verb.name)) else { continue };
        let own = if key == "fault" && !budget::is_drawn(verb) { "; never drawn" } else { "" };
        let itself = if ENDS_ITSELF.contains(&verb.name) { "; ends by itself" } else { "" };
        let says = words.says.replace(['{', '}'], "*");
        let row = format!(
            "| `{}` | {on} | {} | {says}: {}{itself}{own} |",
            verb.name,
            takes.join(", "),
            words.about
        );
        let _ = writeln!(out, "{row}");
    }
    out
}

/// Families of faults: a word of the catalogue, and how their names begin.
const FAMILIES: [(&str, &[&str]); 8] = [
    ("processes, hosts and sites", &["process.", "host.", "site.", "old-copy"]),
    ("links", &["link."]),
    ("the store", &["store."]),
    ("disks", &["disk."]),
    ("state directories", &["files."]),
    ("the vault at rest", &[]),
    ("the whole vault", &["vault."]),
    ("rare behaviour", &["buggify."]),
];

/// Tells whether a fault is of a family; what damages an object at rest is of the one without a name.
fn is_of(family: &[&str], fault: &Verb) -> bool {
    if fault.is_damage() {
        family.is_empty()
    } else {
        family.iter().any(|begin| fault.name.starts_with(begin))
    }
}

/// The catalogue of one family: what each fault does, on what, with what, for how long, and who survives it.
fn catalogue(family: &str) -> Option<String> {
    let (_, begins) = FAMILIES.iter().find(|(name, _)| *name == family)?;
    let mut out = head(&["fault", "on", "takes", "what happens", "lasts", "drawn", "what survives it"]);
    for fault in VERBS.iter().filter(|verb| verb.key == "fault" && is_of(begins, verb)) {
        let Some(words) = WORDS.iter().find(|words| words.of == (fault.key, fault.name)) else { continue };
        let survives: Vec<String> = budget::hit_by(fault).iter().map(|row| row.hit.to_owned()).collect();
        let cost =
            budget::must_not_cost(fault).map(|cost| format!("; must not cost {cost}")).unwrap_or_default();
        let _ = writeln!(
            out,
            "| `{}` | {} | {} | {}: {} | {} | {} | {}{cost} |",
            fault.name,
            target(fault.target),
            amounts(fault),
            words.says.replace(['{', '}'], "*"),
            words.about,
            lasts(fault),
            if budget::is_drawn(fault) { "yes" } else { "no" },
            survives.join(", "),
        );
    }
    Some(out)
}

/// How a fault ends.
fn lasts(fault: &Verb) -> &'static str {
    match fault.ends {
        Ends::AtOnce => "an instant",
        Ends::Lasts if ENDS_ITSELF.contains(&fault.name) => "`for`; ends by itself",
        Ends::Lasts => "`for`, or until `heal` or the end",
    }
}

fn amounts(verb: &Verb) -> String {
    let takes: Vec<String> = verb.takes.iter().map(|(name, of)| format!("`{name}`: {}", unit(*of))).collect();
    if takes.is_empty() { "-".to_owned() } else { takes.join(", ") }
}

fn target(target: Target) -> &'static str {
    match target {
        Target::None => "-",
        Target::Host => "host",
        Target::Machine => "machine",
        Target::Server => "process server",
        Target::Site => "site",
        Target::Link => "link",
    }
}

/// The budget with the faults of the language that spend it.
fn hits() -> String {
    let mut out = head(&["what is hit", "by", "survives", "does not survive (never planned)"]);
    for row in budget::rows() {
        let faults = VERBS.iter().filter(|verb| verb.key == "fault" && budget::hit_by(verb).contains(&row));
        let faults: Vec<String> = faults.map(|fault| format!("`{}`", fault.name)).collect();
        let by = if faults.is_empty() { "acts of the operator".to_owned() } else { faults.join(", ") };
        let never = if row.never.is_empty() { "-" } else { row.never };
        let _ = writeln!(out, "| {} | {by} | {} | {never} |", row.hit, row.survives);
    }
    out
}

fn pairs(columns: [&str; 2], rows: &[(&str, &str)]) -> String {
    let mut out = head(&columns);
    rows.iter().for_each(|(name, about)| {
        let _ = writeln!(out, "| `{name}` | {about} |");
    });
    out
}

fn measures() -> String {
    let mut out = head(&["measured", "is"]);
    for (name, _, about) in MEASURES {
        let _ = writeln!(out, "| `{name}` | {about} |");
    }
    let statistics: Vec<String> = STATISTICS.iter().map(|(name, _)| format!("`.{name}`")).collect();
    let _ = writeln!(out, "\nEach as {}.", statistics.join(", "));
    out
}

fn codes() -> String {
    let mut out = head(&["code", "what is wrong"]);
    for code in Code::ALL {
        let _ = writeln!(out, "| `{}` | {} |", code.name(), code.title());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_is_of_one_family_of_the_catalogue() {
        for fault in VERBS.iter().filter(|verb| verb.key == "fault") {
            let families = FAMILIES.iter().filter(|(_, begins)| is_of(begins, fault)).count();
            assert_eq!(families, 1, "{}", fault.name);
        }
        let document = include_str!("../../docs/faults.md");
        for (family, _) in FAMILIES {
            assert!(
                document.contains(&format!("{BEGIN}faults of {family} -->")),
                "sim/docs/faults.md lacks {family}"
            );
        }
    }
}
