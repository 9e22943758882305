//! `shrink`: plays smaller and smaller runs, on all cores and within a time, and writes the smallest one that
//! fails alike as a frozen scenario.
#![expect(
    clippy::disallowed_methods,
    reason = "the tool, not the engine, runs on a real clock and writes files"
)]

use super::{build, call, capsules, files, interrupt, paint, pool, replay};
use crate::capsule::Signature;
use crate::codes::{NOTHING, TOOL, USAGE};
use crate::freeze::Frozen;
use crate::harness::{Outcome, Verdict};
use crate::plan;
use crate::shrink::{Trial, hurry, shrink as make_smaller};
use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A smaller run takes no longer than the first one did, but machines are busy: so many times as long.
const PATIENCE: u32 = 10;

/// Shortest time of a smaller run on a real clock before it is given up.
const LONGEST_MIN: Duration = Duration::from_secs(20);

/// Longest time of the frozen run itself.
const FIRST_MAX: Duration = Duration::from_secs(600);

/// What `shrink` is asked for.
pub(super) struct Wanted<'a> {
    /// The run.
    pub(super) run: &'a str,
    /// Planted bug.
    pub(super) bug: Option<&'a str>,
    /// Longest time.
    pub(super) within: Duration,
    /// Runs at once.
    pub(super) jobs: usize,
    /// Name under which it is kept among the regressions.
    pub(super) keep: Option<&'a str>,
}

/// Plays candidates.
struct Player {
    signature: Signature,
    began: Instant,
    within: Duration,
    longest: Duration,
    jobs: usize,
    played: usize,
    tried: BTreeSet<String>,
    is_terminal: bool,
}

/// Name of a candidate; nobody reads it.
const CANDIDATE: &str = "candidate";

impl Player {
    fn new(signature: Signature, began: Instant, wanted: &Wanted<'_>) -> Player {
        Player {
            signature,
            began,
            within: wanted.within,
            longest: FIRST_MAX,
            jobs: wanted.jobs,
            played: 0,
            tried: BTreeSet::new(),
            is_terminal: std::io::stderr().is_terminal(),
        }
    }

    fn work(&self, frozen: &Frozen) -> Option<pool::Work> {
        let scenario = frozen.scenario(CANDIDATE).ok()?;
        let plan = plan::draw(&scenario, frozen.seed);
        Some(pool::Work { longest: self.longest, ..pool::Work::planned(&scenario, plan) })
    }

    fn fails_alike(&self, work: &pool::Work, outcome: &Outcome) -> bool {
        outcome.signature(&capsules::hosts(&work.scenario)).as_ref() == Some(&self.signature)
    }

    fn tell(&self, pass: &str, frozen: &Frozen) {
        let line = format!(
            "  {:>4.0} s  {:>5} runs  {pass:<16} {}",
            self.began.elapsed().as_secs_f64(),
            self.played,
            size(frozen)
        );
        if self.is_terminal {
            eprint!("\r\u{1b}[K{line}");
            let _ = std::io::stderr().flush();
        } else {
            eprintln!("{line}");
        }
    }
}

impl Trial for Player {
    fn first(&mut self, pass: &'static str, mut candidates: Vec<Frozen>) -> Option<Frozen> {
        candidates.retain(|frozen| self.tried.insert(frozen.text()));
        let (mut works, mut runs) = (Vec::new(), Vec::new());
        for frozen in candidates {
            if let Some(work) = self.work(&frozen) {
                works.push(work);
                runs.push(frozen);
            }
        }
        // The first in order wins, whichever ends first: the result depends on the time only where it runs out.
        let mut open: BTreeSet<usize> = (0..works.len()).collect();
        let mut found: Option<usize> = None;
        let mut played = 0;
        let is_over = |began: Instant, within| began.elapsed() > within;
        let (began, within) = (self.began, self.within);
        let result = pool::each(
            works.len(),
            self.jobs,
            |index| works[index].clone(),
            |index, outcome, _| {
                played += 1;
                open.remove(&index);
                if self.fails_alike(&works[index], &outcome) && found.is_none_or(|best| index < best) {
                    found = Some(index);
                }
                let is_decided = found.is_some_and(|best| open.range(..best).next().is_none());
                !is_decided && !is_over(began, within)
            },
        );
        self.played += played;
        result.ok()?;
        let best = runs.into_iter().nth(found?)?;
        self.tell(pass, &best);
        Some(best)
    }

    fn is_over(&self) -> bool {
        interrupt::came() || self.began.elapsed() > self.within
    }
}

/// Returns the size of a run in words.
fn size(frozen: &Frozen) -> String {
    let operations: u32 = frozen.guests.values().map(|guest| guest.rate).sum();
    let many = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    format!(
        "{}, {} s, {}, {}, {operations} op/s",
        many(frozen.steps.len(), "step"),
        frozen.length as f64 / 1000.0,
        many(frozen.estate.machines.len(), "machine"),
        many(frozen.estate.servers.len(), "server")
    )
}

/// What is to be kept: how the run failed, in a signature and in full.
struct Failure {
    signature: Signature,
    said: String,
    found_ms: Option<u64>,
}

/// Returns how a run failed; a capsule that has it spares playing it, which of a long run is most of the time.
fn failure(named: &replay::Named) -> Option<Failure> {
    if let Some(capsule) = &named.capsule {
        let signature = capsule.signature.clone()?;
        return Some(Failure { signature, said: capsule.said.clone(), found_ms: capsule.found_ms });
    }
    let (outcome, _) = pool::play_one(&pool::Work::planned(&named.scenario, named.plan.clone()));
    let signature = outcome.signature(&capsules::hosts(&named.scenario))?;
    let said = outcome.cause().map(|(_, what)| what).unwrap_or_default();
    Some(Failure { signature, said, found_ms: outcome.record.found_ms })
}

/// `shrink`.
pub(super) fn shrink(directory: &Path, wanted: &Wanted<'_>) -> Result<u8, u8> {
    let named = replay::find(directory, wanted.run, wanted.bug)?;
    pool::activate(named.bug);
    let began = Instant::now();
    let Some(failure) = failure(&named) else {
        eprintln!("{} holds: there is nothing to shrink", wanted.run);
        return Err(NOTHING);
    };
    let Signature { oracle, hits } = &failure.signature;
    println!("{} {hits}", paint::paint(&format!("{oracle}:"), Verdict::Broken));
    let frozen = Frozen::new(&named.scenario, &named.plan);
    let before = size(&frozen);
    eprintln!("  {before}");
    let mut player = Player::new(failure.signature.clone(), began, wanted);
    // Of a long run the whole is played only if no part of it fails alike.
    let shorter = hurry(&frozen, failure.found_ms, &mut player);
    let Some(mut frozen) = shorter.or_else(|| player.first("whole", vec![frozen])) else {
        eprintln!("the run does not fail alike when it is frozen: what it needs, no scenario file can say");
        eprintln!("  is it the run of another commit? {}", call::line(&format!("replay {}", wanted.run)));
        return Err(TOOL);
    };
    player.longest = (began.elapsed() * PATIENCE).max(LONGEST_MIN);
    while let Some(shorter) = hurry(&frozen, None, &mut player) {
        frozen = shorter;
    }
    frozen = make_smaller(frozen, &mut player);
    if player.is_terminal {
        eprintln!();
    }
    let name =
        wanted.keep.map_or_else(|| name(&named.scenario.name, &frozen, &player.signature), str::to_owned);
    tell_story(&mut frozen, &named, &failure, &before, &name);
    let path = place(directory, wanted.keep, &name);
    write(&path, &frozen)?;
    println!("{}", paint::faint(&frozen.text()));
    let took = player.began.elapsed().as_secs_f64();
    println!(
        "{} after {} runs, {took:.0} s: {}",
        paint::paint("smaller", Verdict::Held),
        player.played,
        size(&frozen)
    );
    println!("  before: {before}");
    println!("  wrote {}", path.display());
    let bug = named.bug.map(|bug| format!(" --bug {}", bug.name())).unwrap_or_default();
    let parent = path.parent().unwrap_or(Path::new("."));
    match wanted.keep {
        Some(_) => println!("  {}", call::line(&format!("run {name}{bug}"))),
        None => {
            println!("  {}", call::line_in(parent, &format!("run {name}{bug}")));
            let bug = wanted.bug.map(|bug| format!(" --bug {bug}")).unwrap_or_default();
            let keep = call::line(&format!("shrink {}{bug} --keep NAME", wanted.run));
            println!("  to keep it for ever: {keep}");
        }
    }
    Ok(0)
}

fn name(scenario: &str, frozen: &Frozen, signature: &Signature) -> String {
    format!("{}-{}-{}", scenario.replace('/', "-"), frozen.seed, signature.oracle)
}

fn place(directory: &Path, keep: Option<&str>, name: &str) -> PathBuf {
    let parent = match keep {
        Some(_) => directory.join(files::REGRESSIONS),
        None => capsules::usual_place().join("shrunk"),
    };
    parent.join(format!("{name}.toml"))
}

fn write(path: &Path, frozen: &Frozen) -> Result<(), u8> {
    let parent = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).and_then(|()| std::fs::write(path, frozen.text())).map_err(|error| {
        eprintln!("cannot write {}: {error}", path.display());
        TOOL
    })
}

/// Words of an oracle in a title.
const TITLE: usize = 60;

/// Columns of a story.
const COLUMNS: usize = 110;

fn tell_story(frozen: &mut Frozen, named: &replay::Named, failure: &Failure, before: &str, name: &str) {
    let Failure { signature, said, .. } = failure;
    let commit = match &named.capsule {
        Some(capsule) => capsule.commit.clone(),
        None => build::build().commit,
    };
    let commit = commit.map(|commit| format!(", commit {commit}")).unwrap_or_default();
    let bug = named.bug.map(|bug| format!(", planted bug {}", bug.name())).unwrap_or_default();
    frozen.title = format!("{}: {}", signature.oracle, short(&signature.hits));
    frozen.why = format!("{} broke {} with seed {}.", named.scenario.name, signature.oracle, named.plan.seed);
    frozen.tags = vec!["regression".into()];
    let mut story = vec![format!("Shrunk from {}@{}{commit}{bug}:", named.scenario.name, named.plan.seed)];
    story.push(format!("{before} became {}.", size(frozen)));
    story.extend(wrap(&format!("{}: {}", signature.oracle, said.lines().next().unwrap_or_default())));
    story.push(format!("Of the story {:?}.", named.scenario.title));
    story.push(format!("Play it: cargo sim run {name}"));
    frozen.story = story;
}

/// Cuts a sentence behind a word.
fn short(text: &str) -> String {
    let mut short = String::new();
    for word in text.split_inclusive(' ') {
        if short.chars().count() + word.chars().count() > TITLE {
            let kept = if short.is_empty() { text.chars().take(TITLE).collect() } else { short };
            return format!("{}…", kept.trim_end());
        }
        short.push_str(word);
    }
    short
}

/// Breaks a sentence into lines.
fn wrap(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().filter(|line| line.len() + word.len() < COLUMNS);
        match line {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) => {
                line.push(' ');
                line.push_str(word);
            }
            None => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Checks a name under which a run is kept.
pub(super) fn check_name(name: &str) -> Result<(), u8> {
    let is_plain = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
    if !name.is_empty() && name.chars().all(is_plain) {
        return Ok(());
    }
    eprintln!("{name:?} is no name of a scenario; write small letters, figures and -");
    Err(USAGE)
}
