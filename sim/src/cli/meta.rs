//! `meta`: the lab judges itself. Each seed is played in two processes; equal digests or it is a bug.

use super::{TOOL, files, interrupt, paint};
use crate::harness::Verdict;
use std::path::Path;
use std::process::{Command, Stdio};

/// `meta`.
pub(super) fn meta(directory: &Path, names: &[String], seeds: u64, jobs: usize) -> Result<u8, u8> {
    let scenarios = files::select(directory, names)?;
    let mut table = paint::table(&["run", "verdict", "digest", "second process"]);
    let mut worst = Verdict::Held;
    let runs: Vec<String> = scenarios
        .iter()
        .flat_map(|scenario| {
            let from = scenario.seeds.from;
            (from..from + seeds).map(move |seed| format!("{}@{seed}", scenario.name))
        })
        .collect();
    for group in runs.chunks(jobs.div_ceil(2).max(1)) {
        if interrupt::came() {
            break;
        }
        let pairs: Vec<_> = group
            .iter()
            .map(|run| Ok((run, start(directory, run)?, start(directory, run)?)))
            .collect::<Result<_, u8>>()?;
        for (run, first, second) in pairs {
            let (first, second) = (answer(first)?, answer(second)?);
            let verdict = judge(&first, &second);
            worst = worst.max(verdict);
            let short = |digest: &str| digest.chars().take(20).collect::<String>();
            table.add_row(vec![
                run.clone().into(),
                paint::verdict(verdict),
                short(&first).into(),
                comfy_table::Cell::new(short(&second)),
            ]);
        }
    }
    println!("{table}");
    Ok(worst.code())
}

/// Judges two answers to one seed: verdict and digest, both.
fn judge(first: &str, second: &str) -> Verdict {
    if first == second { Verdict::Held } else { Verdict::NotDeterministic }
}

fn start(directory: &Path, run: &str) -> Result<std::process::Child, u8> {
    let failed = |error: std::io::Error| {
        eprintln!("cannot start a second process: {error}");
        TOOL
    };
    Command::new(std::env::current_exe().map_err(failed)?)
        .arg("--scenarios")
        .arg(directory)
        .args(["replay", "--digest", run])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)
}

fn answer(child: std::process::Child) -> Result<String, u8> {
    let output = child.wait_with_output().map_err(|_| TOOL)?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if text.is_empty() { Err(TOOL) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_with_two_outcomes_is_24() {
        assert_eq!(judge("0 ab", "0 ab").code(), 0);
        assert_eq!(judge("0 ab", "0 ac").code(), 24);
        assert_eq!(judge("0 ab", "20 ab").code(), 24);
    }
}
