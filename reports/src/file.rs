//! `run.json`: reading, writing, and making one set of several.

use crate::model::{FORMAT, RunSet, Scenario};
use serde::Deserialize;

/// A file that is no set of runs, or sets that do not belong together.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// It is not JSON, or a field is missing or has another type. Make it again with `cargo sim run --json`.
    #[error("{file} is no run.json: {detail}; `cargo sim run --json FILE` makes one")]
    Invalid {
        /// Its name.
        file: String,
        /// What the reader met.
        detail: String,
    },
    /// It is of another format. Make it again with this version, or read it with the one that made it.
    #[error(
        "{file} has format {found}; this version reads {FORMAT}. Make it again, or use the version that made it"
    )]
    Format {
        /// Its name.
        file: String,
        /// Its format.
        found: u64,
    },
    /// A seed means nothing without its commit. Compare the sets with `--baseline` instead.
    #[error(
        "{file} was made from {found}, the ones before it from {first}: compare them with --baseline, or make both from one commit"
    )]
    Source {
        /// Its name.
        file: String,
        /// What it was made from.
        found: String,
        /// What the ones before it were made from.
        first: String,
    },
    /// A run would count twice. Leave one of the files out.
    #[error("{file} has {run} again: leave out one of the files that have it")]
    Again {
        /// Its name.
        file: String,
        /// Scenario and seed.
        run: String,
    },
}

/// Reads a set; `file` is only for words.
pub fn read(file: &str, text: &str) -> Result<RunSet, FileError> {
    /// All that every format has.
    #[derive(Deserialize)]
    struct Any {
        format: u64,
    }
    let invalid =
        |error: serde_json::Error| FileError::Invalid { file: file.to_owned(), detail: error.to_string() };
    let any: Any = serde_json::from_str(text).map_err(invalid)?;
    if any.format != u64::from(FORMAT) {
        return Err(FileError::Format { file: file.to_owned(), found: any.format });
    }
    serde_json::from_str(text).map_err(invalid)
}

/// Writes a set.
pub fn write(set: &RunSet) -> String {
    // Only maps with keys that are no text could fail, and there are none.
    let mut text = serde_json::to_string(set).expect("a set of runs has a text");
    text.push('\n');
    text
}

/// Says what a set was made from.
pub(crate) fn source(set: &RunSet) -> String {
    let build = &set.build;
    let commit = build.commit.as_deref().map_or("an unknown commit".to_owned(), |id| format!("commit {id}"));
    let bug = build.planted_bug.as_deref().map(|bug| format!(" with the planted bug {bug}"));
    format!("version {}, {commit}{}", build.version, bug.unwrap_or_default())
}

/// Makes one set of several, each with the name of its file.
pub fn merge(sets: Vec<(String, RunSet)>) -> Result<Option<RunSet>, FileError> {
    let mut sets = sets.into_iter();
    let Some((_, mut all)) = sets.next() else { return Ok(None) };
    for (file, set) in sets {
        if set.build != all.build {
            return Err(FileError::Source { file, found: source(&set), first: source(&all) });
        }
        all.command = format!("{}; {}", all.command, set.command);
        all.marks.extend(set.marks);
        all.faults.extend(set.faults);
        all.oracles.extend(set.oracles);
        for scenario in set.scenarios {
            match all.scenarios.iter_mut().find(|known| known.name == scenario.name) {
                Some(known) => add(known, scenario, &file)?,
                None => all.scenarios.push(scenario),
            }
        }
    }
    all.scenarios.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Some(all))
}

fn add(known: &mut Scenario, more: Scenario, file: &str) -> Result<(), FileError> {
    let again = more.runs.iter().find(|run| known.runs.iter().any(|other| other.seed == run.seed));
    if let Some(run) = again {
        return Err(FileError::Again { file: file.to_owned(), run: format!("{}@{}", more.name, run.seed) });
    }
    let (sum, totals) = (&mut known.totals, more.totals);
    sum.runs += totals.runs;
    sum.held += totals.held;
    sum.simulated_ms += totals.simulated_ms;
    sum.operations += totals.operations;
    sum.points += totals.points;
    for (mark, runs) in more.reached {
        *known.reached.entry(mark).or_default() += runs;
    }
    for (fault, met) in more.faults {
        let sum = known.faults.entry(fault).or_default();
        (sum.turned, sum.bit) = (sum.turned + met.turned, sum.bit + met.bit);
    }
    for (measure, samples) in &more.measured {
        known.measured.entry(*measure).or_default().add(samples);
    }
    known.capacity = known.capacity.take().or(more.capacity);
    known.runs.extend(more.runs);
    known.runs.sort_by_key(|run| run.seed);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Build, Run, Totals};
    use std::collections::{BTreeMap, BTreeSet};

    fn set(commit: &str, seeds: &[u64]) -> RunSet {
        let runs: Vec<Run> = seeds.iter().map(|seed| Run { seed: *seed, ..Run::default() }).collect();
        let totals = Totals { runs: runs.len() as u64, ..Totals::default() };
        let scenario = Scenario { name: "wan".into(), totals, runs, ..Scenario::default() };
        RunSet {
            format: FORMAT,
            command: "cargo sim run".into(),
            build: Build { commit: Some(commit.into()), ..Build::default() },
            marks: BTreeSet::new(),
            faults: BTreeSet::new(),
            oracles: BTreeMap::new(),
            scenarios: vec![scenario],
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        let set = set("a", &[1, 2]);
        assert_eq!(read("x", &write(&set)), Ok(set));
    }

    #[test]
    fn a_file_that_is_none_or_of_another_format_says_so() {
        assert!(matches!(read("x", "{}"), Err(FileError::Invalid { .. })));
        let newer = write(&set("a", &[])).replace("\"format\":1", "\"format\":2");
        let error = read("x.json", &newer).unwrap_err();
        assert_eq!(error, FileError::Format { file: "x.json".into(), found: 2 });
    }

    #[test]
    fn sets_of_one_commit_become_one_and_no_run_counts_twice() {
        let named = |seeds: &[u64], commit: &str| ("f".to_owned(), set(commit, seeds));
        let merged = merge(vec![named(&[2], "a"), named(&[1], "a")]).unwrap().unwrap();
        let seeds: Vec<u64> = merged.scenarios[0].runs.iter().map(|run| run.seed).collect();
        assert_eq!((seeds, merged.scenarios[0].totals.runs), (vec![1, 2], 2));
        let other = merge(vec![named(&[2], "a"), named(&[1], "b")]);
        assert!(matches!(other, Err(FileError::Source { .. })));
        let twice = merge(vec![named(&[2], "a"), named(&[2], "a")]);
        assert_eq!(twice, Err(FileError::Again { file: "f".into(), run: "wan@2".into() }));
        assert_eq!(merge(Vec::new()), Ok(None));
    }
}
