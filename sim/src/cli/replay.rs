//! `replay`: the same run again, proved by its digest.

use super::{capsules, complaint, files, paint, pool};
use crate::capsule::{Capsule, EXTENSION};
use crate::codes::{NOT_THE_RUN, USAGE};
use crate::harness::{Manner, Outcome, Verdict};
use crate::plan::{self, Plan};
use crate::scenario::{Scenario, Unit, parse_in};
use redoubt_core::planted::Bug;
use std::path::Path;

/// A run that somebody named: `SCENARIO@SEED`, with `#DIGEST` behind it if it is to be proved, or a capsule.
pub(super) struct Named {
    /// Estate and promises.
    pub(super) scenario: Scenario,
    /// What happens.
    pub(super) plan: Plan,
    /// The capsule it comes from.
    pub(super) capsule: Option<Capsule>,
    /// How its digest begins.
    pub(super) digest: Option<String>,
    /// The planted bug it needs.
    pub(super) bug: Option<Bug>,
}

/// Finds a run by what somebody wrote.
pub(super) fn find(directory: &Path, run: &str, bug: Option<&str>) -> Result<Named, u8> {
    let bug = bug.map(|name| pool::find_bug(name).ok_or(USAGE)).transpose()?;
    let path = Path::new(run);
    if path.extension().is_some_and(|extension| extension == EXTENSION) {
        let capsule = capsules::read(path)?;
        if bug.is_some() {
            eprintln!("a capsule knows its planted bug; leave out --bug");
            return Err(USAGE);
        }
        let scenario = capsules::scenario(path, &capsule)?;
        let own = capsule.bug.as_deref();
        let bug = own.map(|name| pool::find_bug(name).ok_or(USAGE)).transpose()?;
        let plan = capsule.plan.clone();
        return Ok(Named { scenario, plan, capsule: Some(capsule), digest: None, bug });
    }
    let (run, digest) =
        run.split_once('#').map_or((run, None), |(run, digest)| (run, Some(digest.to_owned())));
    let (scenario, seed) = files::select_run(directory, run)?;
    let plan = plan::draw(&scenario, seed);
    Ok(Named { scenario, plan, capsule: None, digest, bug })
}

/// Reads a time of a run, such as `12 s` or `12.5`.
pub(super) fn time(text: &str) -> Result<u64, u8> {
    let text = if text.parse::<f64>().is_ok() { format!("{text} s") } else { text.to_owned() };
    parse_in(&text, Unit::Millis).map(|range| range.low.max(0) as u64).map_err(|error| {
        eprintln!("{error}");
        USAGE
    })
}

/// What `replay` is asked for.
pub(super) struct Wanted<'a> {
    /// The run.
    pub(super) run: &'a str,
    /// Prints only code and digest.
    pub(super) is_digest_only: bool,
    /// Stops there.
    pub(super) until: Option<&'a str>,
    /// Planted bug.
    pub(super) bug: Option<&'a str>,
}

/// `replay`.
pub(super) fn replay(directory: &Path, wanted: &Wanted<'_>) -> Result<u8, u8> {
    let named = find(directory, wanted.run, wanted.bug)?;
    let until_ms = wanted.until.map(time).transpose()?;
    pool::activate(named.bug);
    let doubt = named.capsule.as_ref().and_then(capsules::doubt);
    let is_loud = !wanted.is_digest_only;
    if let Some(doubt) = doubt.as_ref().filter(|_| is_loud) {
        eprintln!("{} {doubt}", paint::paint("warning:", Verdict::NeverSeen));
    }
    let manner = Manner { is_traced: is_loud, until_ms, fork: None };
    let work = pool::Work { manner, ..pool::Work::planned(&named.scenario, named.plan.clone()) };
    let (outcome, _) = pool::play_one(&work);
    if wanted.is_digest_only {
        println!("{} {}", outcome.verdict().code(), outcome.digest);
        return Ok(outcome.verdict().code());
    }
    print!("{}", named.plan);
    outcome.trace.iter().for_each(|line| println!("{line}"));
    complaint::print(&outcome, &[], None, None);
    let is_whole = until_ms.is_none_or(|until| outcome.stats.simulated < until);
    if let Some(what) = not_the_run(&named, &outcome, is_whole) {
        println!("{} {what}", paint::paint("NOT THE RECORDED RUN:", Verdict::Broken));
        let next = doubt.unwrap_or_else(|| {
            "the commit is the same, so the lab is not deterministic: try cargo sim meta".into()
        });
        println!("    {next}");
        return Ok(NOT_THE_RUN);
    }
    let verdict = outcome.verdict();
    let word = if is_whole { verdict.word() } else { "stopped" };
    let proof = if named.capsule.is_some() || named.digest.is_some() { ", as recorded" } else { "" };
    println!("{} digest {}{proof}", paint::paint(word, verdict), outcome.digest);
    Ok(verdict.code())
}

/// Returns where a replay parts from what was recorded; none if it does not, or nothing was.
fn not_the_run(named: &Named, outcome: &Outcome, is_whole: bool) -> Option<String> {
    if let Some(capsule) = &named.capsule {
        return capsules::parted(capsule, outcome, is_whole);
    }
    let digest = named.digest.as_ref().filter(|_| is_whole)?;
    (!outcome.digest.starts_with(digest.as_str()))
        .then(|| format!("its digest began with {digest}, this one is {}", outcome.digest))
}
