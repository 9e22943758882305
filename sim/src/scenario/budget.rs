//! Who survives which fault: the fault budget (`sim/docs/fault-budget.md`), row by row, and which faults of the language
//! hit each. The document is for people and is read from there: what it says is written once.

use super::reader::matches;
use super::targets;
use super::verbs::Verb;

const DOCUMENT: &str = include_str!("../../docs/fault-budget.md");

/// Faults by name or pattern, and the rows of the budget that they hit. A fault takes the first that matches.
const HITS: &[(&str, &[&str])] = &[
    ("old-copy", &["identity of a machine"]),
    ("process.kill", &["agent's process", "process server"]),
    ("process.kill-at-effect", &["process server"]),
    ("host.power*", &["machine's power", "process server"]),
    ("host.freeze", &["agent's process", "process server"]),
    ("host.clock", &["clocks"]),
    ("site.power", &["machine's power", "process server", "links"]),
    ("site.lost", &["source site"]),
    ("link.*", &["links"]),
    ("store.*", &["store"]),
    ("disk.*", &["machine's disk"]),
    ("files.lost", &["process server"]),
    ("files.*", &["machine's state directory", "process server"]),
    ("vault.restored", &["the vault as a whole"]),
    ("buggify.*", &["rare behaviour of the engine"]),
];

/// The row of everything that is damaged at rest.
const AT_REST: &[&str] = &["vault's objects"];

/// Rows that acts of an operator hit, and no fault.
#[cfg(test)]
const OF_ACTS: &[&str] = &["keys"];

/// A row of the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// What is hit.
    pub hit: &'static str,
    /// What it survives.
    pub survives: &'static str,
    /// What is never planned; empty if nothing is left out.
    pub never: &'static str,
}

fn cells(line: &'static str) -> Vec<&'static str> {
    line.trim().trim_start_matches('|').trim_end_matches('|').split(" | ").map(str::trim).collect()
}

/// Returns the rows of the table that begins with these words.
fn table(head: &str) -> impl Iterator<Item = Vec<&'static str>> {
    let begin = format!("| {head} |");
    let lines = DOCUMENT.lines().skip_while(move |line| !line.starts_with(&begin));
    // The head and the line below it.
    lines.skip(2).take_while(|line| line.starts_with('|')).map(cells)
}

/// Returns the whole budget.
pub fn rows() -> Vec<Row> {
    let row = |cells: Vec<&'static str>| Row {
        hit: cells[0],
        survives: cells.get(1).copied().unwrap_or_default(),
        never: cells.get(2).copied().unwrap_or_default(),
    };
    table("what is hit").map(row).collect()
}

/// Returns the rows that a fault hits.
pub fn hit_by(fault: &Verb) -> Vec<Row> {
    let listed = HITS.iter().find(|(pattern, _)| matches(pattern, fault.name)).map(|(_, names)| *names);
    let names = if fault.is_damage() { AT_REST } else { listed.unwrap_or_default() };
    rows().into_iter().filter(|row| names.contains(&row.hit)).collect()
}

/// Returns what a fault of the store must not cost, from the budget's table of them.
pub fn must_not_cost(fault: &Verb) -> Option<&'static str> {
    let name = format!("`{}`", fault.name.strip_prefix("store.")?);
    table("fault").find(|cells| cells[0] == name).and_then(|cells| cells.get(2).copied())
}

/// Tells whether patterns, weather and swarm draw a fault.
pub fn is_drawn(fault: &Verb) -> bool {
    targets::drawable(fault.name).iter().any(|drawn| drawn.name == fault.name)
}

#[cfg(test)]
mod tests {
    use super::super::verbs::VERBS;
    use super::*;

    fn faults() -> impl Iterator<Item = &'static Verb> {
        VERBS.iter().filter(|verb| verb.key == "fault")
    }

    #[test]
    fn each_fault_hits_a_row_of_the_budget_and_each_row_is_hit() {
        let unlisted: Vec<&str> =
            faults().filter(|fault| hit_by(fault).is_empty()).map(|fault| fault.name).collect();
        assert_eq!(unlisted, Vec::<&str>::new(), "say in sim/src/scenario/budget.rs what they hit");
        let is_hit =
            |row: &Row| faults().any(|fault| hit_by(fault).contains(row)) || OF_ACTS.contains(&row.hit);
        let idle: Vec<&str> = rows().iter().filter(|row| !is_hit(row)).map(|row| row.hit).collect();
        assert_eq!(idle, Vec::<&str>::new(), "no fault of the language hits these rows");
    }

    #[test]
    fn every_name_here_is_one_of_the_document() {
        let rows = rows();
        let names = HITS.iter().flat_map(|(_, names)| *names).chain(AT_REST).chain(OF_ACTS);
        for name in names {
            assert!(
                rows.iter().any(|row| row.hit == *name),
                "{name:?} is no row of sim/docs/fault-budget.md"
            );
        }
        assert!(rows.iter().all(|row| !row.survives.is_empty()));
        for (pattern, _) in HITS {
            assert!(faults().any(|fault| matches(pattern, fault.name)), "{pattern} is no fault");
        }
    }

    #[test]
    fn the_budget_says_of_each_fault_of_the_store_what_it_must_not_cost() {
        for fault in faults().filter(|fault| fault.name.starts_with("store.")) {
            assert!(must_not_cost(fault).is_some(), "{} is not in sim/docs/fault-budget.md", fault.name);
        }
        let named = table("fault").count();
        assert_eq!(named, faults().filter(|fault| fault.name.starts_with("store.")).count());
    }
}
