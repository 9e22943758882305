//! `corpus`: the failures that were found and kept, each as a frozen scenario with its story. All must hold now.

use super::{call, files, paint, pool};
use crate::harness::Verdict;
use std::path::Path;

/// `corpus`.
pub(super) fn corpus(directory: &Path, jobs: usize) -> Result<u8, u8> {
    let place = directory.join(files::REGRESSIONS);
    if !place.is_dir() {
        println!("no failure is kept in {}", place.display());
        println!("  to keep one: {}", call::line("shrink RUN --keep NAME"));
        return Ok(0);
    }
    let scenarios = files::select(&place, &[])?;
    let tasks: Vec<pool::Task> =
        (0..scenarios.len()).map(|index| (index, scenarios[index].seeds.from)).collect();
    let mut table = paint::table(&["kept failure", "now", "story"]);
    let mut outcomes = vec![None; scenarios.len()];
    pool::many(&scenarios, &tasks, jobs, |index, outcome, _| {
        outcomes[index] = Some(outcome.verdict());
        true
    })?;
    let mut worst = Verdict::Held;
    for (scenario, verdict) in scenarios.iter().zip(outcomes) {
        let Some(verdict) = verdict else { continue };
        worst = worst.max(verdict);
        let told = story(&place, &scenario.name);
        let story = if told.is_empty() { scenario.why.clone() } else { told };
        table.add_row(vec![scenario.name.clone().into(), paint::verdict(verdict), story.into()]);
    }
    println!("{table}");
    Ok(worst.code())
}

/// Returns what stands above a scenario: its story.
fn story(place: &Path, name: &str) -> String {
    let text = std::fs::read_to_string(place.join(format!("{name}.toml"))).unwrap_or_default();
    let lines = text.lines().map_while(|line| line.strip_prefix('#')).map(str::trim);
    lines.collect::<Vec<_>>().join(" ")
}
