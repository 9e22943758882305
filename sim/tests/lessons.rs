//! `sim/docs/field-lessons.md` is honest: each entry has one state, what proves it exists, and scenarios and the page
//! name each other.

use redoubt_sim::scenario::{self, Directories};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// One row of a table of entries.
struct Entry {
    id: String,
    /// What a scenario that proves it says under `lessons`.
    lesson: String,
    state: String,
}

fn page() -> String {
    std::fs::read_to_string(top().join("sim/docs/field-lessons.md")).unwrap()
}

fn entries(page: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut is_inside = false;
    for line in page.lines() {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        match cells[..] {
            ["entry", "reference", "rule", "state"] => is_inside = true,
            [id, reference, _, state] if is_inside && !id.starts_with('-') => {
                let lesson = if reference == "-" { id.to_owned() } else { format!("{id}: {reference}") };
                entries.push(Entry { id: id.to_owned(), lesson, state: state.to_owned() });
            }
            [_, _, _, _] => {}
            _ => is_inside = false,
        }
    }
    entries
}

/// What stands between backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The lessons of each scenario file.
fn told() -> BTreeMap<String, BTreeSet<String>> {
    let directory = top().join("scenarios");
    let library = Directories(vec![directory.clone()]);
    let mut told = BTreeMap::new();
    for file in std::fs::read_dir(&directory).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let shown = path.display().to_string();
        let scenarios = scenario::load_scenarios(&shown, &name, &text, &library)
            .unwrap_or_else(|problems| panic!("{}", problems.render(false)));
        told.insert(name, scenarios.into_iter().flat_map(|scenario| scenario.lessons).collect());
    }
    told
}

#[test]
fn each_entry_is_there_once_and_in_one_state() {
    let page = page();
    let entries = entries(&page);
    let mut known = BTreeSet::new();
    let mut proved = 0;
    for Entry { id, state, .. } in &entries {
        assert!(known.insert(id), "{id} is there twice");
        assert!(id.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'), "{id}");
        match state.split_once(": ") {
            Some(("proved", by)) => {
                proved += 1;
                assert!(!quoted(by).is_empty(), "{id}: nothing is named");
            }
            Some(("waits", what)) => assert!(!what.trim().is_empty(), "{id}: for what?"),
            _ => panic!("{id}: {state:?} is no state"),
        }
    }
    let counted = format!("{proved} of {} entries are proved", entries.len());
    assert!(page.contains(&counted), "the page should say: {counted}");
}

#[test]
fn what_is_named_exists() {
    let page = page();
    let told = told();
    for line in page.lines().filter(|line| line.starts_with("| ")) {
        for name in quoted(line) {
            if let Some((file, test)) = name.split_once("::") {
                let text = std::fs::read_to_string(top().join(file)).unwrap_or_default();
                assert!(text.contains(&format!("fn {test}(")), "there is no test {name}");
            } else if name.contains('-') {
                assert!(told.contains_key(name), "there is no scenario {name}");
            }
        }
    }
}

#[test]
fn scenarios_and_the_page_name_each_other() {
    let mut wanted: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for Entry { lesson, state, .. } in entries(&page()) {
        let Some(by) = state.strip_prefix("proved: ") else { continue };
        for name in quoted(by).into_iter().filter(|name| !name.contains("::")) {
            wanted.entry(name.to_owned()).or_default().insert(lesson.clone());
        }
    }
    for (name, lessons) in told() {
        assert_eq!(lessons, wanted.remove(&name).unwrap_or_default(), "lessons of {name} (left: the file)");
    }
    assert!(wanted.is_empty(), "{wanted:?}");
}
