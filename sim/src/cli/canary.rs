//! `canary`: a failure that is certain to be there must come out at the other end. A story whose planted bug bites in
//! one seed of a hundred is played as a job would play it, and looked for wherever a person would see it.
//!
//! A lab that never fails is either about a good engine or about a chain with a link missing; this tells which.

use super::{TOOL, capsules, files, paint};
use crate::codes::{BROKEN, USAGE};
use crate::harness::Verdict;
use crate::scenario::Scenario;
use redoubt_reports::RunSet;
use redoubt_reports::model;
use std::path::Path;
use std::process::{Command, Output};

/// The planted bug, and the story.
const NAME: &str = "canary";

/// Fewer runs may well have no failure among them.
const SEEDS_MIN: u64 = 400;

/// One run of so many fails. A quarter as often or four times as often is another rate.
const RARITY: u64 = 100;
const TIMES: u64 = 4;

/// What must be true of a link of the chain.
type Link = (&'static str, Result<String, String>);

/// `canary`.
pub(super) fn canary(directory: &Path, seeds: u64, jobs: usize) -> Result<u8, u8> {
    if seeds < SEEDS_MIN {
        eprintln!("one seed of {RARITY} fails: at least {SEEDS_MIN} show it");
        return Err(USAGE);
    }
    let scenario = files::select(directory, &[NAME.to_owned()])?.swap_remove(0);
    let out = capsules::usual_place().join(NAME);
    let _ = std::fs::remove_dir_all(&out);
    let job = job(directory, &out, seeds, jobs)?;
    let links = links(directory, &scenario, seeds, &out, &job)?;
    let mut table = paint::table(&["link of the chain", "verdict", "what was seen"]);
    let mut verdict = Verdict::Held;
    for (link, seen) in links {
        let (own, words) = match seen {
            Ok(words) => (Verdict::Held, words),
            Err(words) => (Verdict::Broken, words),
        };
        verdict = verdict.max(own);
        table.add_row(vec![link.into(), paint::verdict(own), words.into()]);
    }
    println!("{table}");
    let words = match verdict {
        Verdict::Held => "the canary sings: a failure comes out at every end",
        _ => "the canary is silent: a failure may go unseen",
    };
    println!("{}", paint::paint(words, verdict));
    Ok(verdict.code())
}

fn tool(directory: &Path, arguments: &[&str]) -> Result<Output, u8> {
    let failed = |error: std::io::Error| {
        eprintln!("cannot start this tool again: {error}");
        TOOL
    };
    let program = std::env::current_exe().map_err(failed)?;
    let mut command = Command::new(program);
    command.arg("--scenarios").arg(directory).args(arguments);
    // Not into the summary of the job that asks.
    command.env_remove("GITHUB_STEP_SUMMARY");
    command.output().map_err(failed)
}

/// Plays the story as a job of GitHub's.
fn job(directory: &Path, out: &Path, seeds: u64, jobs: usize) -> Result<Output, u8> {
    let (seeds, jobs, out) = (seeds.to_string(), jobs.to_string(), out.display().to_string());
    let words = ["--jobs", &jobs, "run", NAME, "--bug", NAME, "--from", "1", "--seeds", &seeds];
    tool(directory, &[&words[..], &["--ci", "github", "--out", &out]].concat())
}

fn links(
    directory: &Path,
    scenario: &Scenario,
    seeds: u64,
    out: &Path,
    job: &Output,
) -> Result<Vec<Link>, u8> {
    let read =
        |name: &str| std::fs::read_to_string(out.join(name)).map_err(|error| format!("{name}: {error}"));
    let set = read("run.json")
        .and_then(|text| redoubt_reports::read("run.json", &text).map_err(|error| error.to_string()));
    let failed = set.as_ref().map(|set| failures(set)).unwrap_or_default();
    let replay = failed.first().map(|run| run.replay.clone()).unwrap_or("no failure".into());
    let holds = |name: &str, what: &str, times: usize| {
        let found = read(name)?.matches(what).count();
        if found >= times && times > 0 {
            Ok(format!("{what}, {found} times"))
        } else {
            Err(format!("{what} is there {found} times, not {times}"))
        }
    };
    let capsule =
        out.join(format!("capsules/{NAME}@{}+{NAME}.rdrun", failed.first().map_or(0, |run| run.seed)));
    Ok(vec![
        (
            "seeds fail as seldom as they must",
            set.as_ref().map_err(String::clone).and_then(|_| rate(failed.len() as u64, seeds)),
        ),
        (
            "exit code",
            match job.status.code() {
                Some(code) if code == i32::from(BROKEN) => Ok(code.to_string()),
                code => Err(format!("{code:?} instead of {BROKEN}")),
            },
        ),
        (
            "the oracle speaks",
            match failed.iter().all(|run| is_secrets(run)) && !failed.is_empty() {
                true => Ok("secrets".into()),
                false => Err("another one did".into()),
            },
        ),
        ("annotation", annotation(&String::from_utf8_lossy(&job.stdout), &scenario.name)),
        ("summary", holds("summary.md", &replay, 1)),
        ("report", holds("report.html", &replay, 1)),
        ("JUnit", holds("junit.xml", "<failure", failed.len())),
        (
            "code quality",
            holds("gl-code-quality-report.json", "redoubt-lab", usize::from(is_in_a_file(directory)))
                .or_else(|what| {
                    if is_in_a_file(directory) {
                        Err(what)
                    } else {
                        Ok("the story is in no file here".into())
                    }
                }),
        ),
        ("capsule and replay", replayed(directory, &capsule)?),
    ])
}

fn is_in_a_file(directory: &Path) -> bool {
    directory.join(format!("{NAME}.toml")).is_file()
}

fn failures(set: &RunSet) -> Vec<&model::Run> {
    let runs = set.scenarios.iter().flat_map(|scenario| &scenario.runs);
    runs.filter(|run| run.verdict != model::Verdict::Held).collect()
}

fn is_secrets(run: &model::Run) -> bool {
    run.findings.first().is_some_and(|finding| finding.oracle == "secrets")
}

fn rate(failed: u64, seeds: u64) -> Result<String, String> {
    let words = format!("{failed} of {seeds}");
    let is_seldom = failed * RARITY <= seeds * TIMES;
    let is_there = failed * RARITY * TIMES >= seeds;
    if is_seldom && is_there { Ok(words) } else { Err(format!("{words}, not about one of {RARITY}")) }
}

/// Looks for the annotation behind the line that lets commands be commands again.
fn annotation(printed: &str, scenario: &str) -> Result<String, String> {
    let word = printed.lines().find_map(|line| line.strip_prefix("::stop-commands::"));
    let word = word.ok_or("commands were never stopped")?;
    let (_, after) = printed.rsplit_once(&format!("::{word}::\n")).ok_or("commands are stopped for ever")?;
    let line = after.lines().find(|line| line.starts_with("::error ") && line.contains(scenario));
    let line = line.ok_or("there is none")?;
    Ok(line.split("::").nth(1).unwrap_or_default().to_owned())
}

fn replayed(directory: &Path, capsule: &Path) -> Result<Result<String, String>, u8> {
    let output = tool(directory, &["replay", &capsule.display().to_string()])?;
    let said = String::from_utf8_lossy(&output.stdout);
    let is_same = output.status.code() == Some(i32::from(BROKEN)) && said.contains(", as recorded");
    Ok(if is_same { Ok("the same failure, as recorded".into()) } else { Err("another run, or none".into()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_may_be_off_by_four_and_no_more() {
        for (failed, seeds, is_good) in [
            (10, 1000, true),
            (3, 1000, true),
            (40, 1000, true),
            (2, 1000, false),
            (41, 1000, false),
            (0, 400, false),
        ] {
            assert_eq!(rate(failed, seeds).is_ok(), is_good, "{failed} of {seeds}");
        }
    }

    #[test]
    fn an_annotation_counts_only_where_commands_are_commands() {
        let good = "::stop-commands::abc\nx\n::abc::\n::error file=a,line=1,title=canary::x\n";
        assert!(annotation(good, "canary").is_ok());
        for bad in [
            "::error title=canary::x\n",
            "::stop-commands::abc\n::error title=canary::x\n",
            "::stop-commands::abc\n::error title=canary::x\n::abc::\n",
            "::stop-commands::abc\n::abc::\n::warning title=canary::x\n",
        ] {
            assert!(annotation(bad, "canary").is_err(), "{bad}");
        }
    }
}
