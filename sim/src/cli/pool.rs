//! Runs seeds in parallel: one fresh thread per seed, so that no thread-local state of one run can
//! colour the next.
#![expect(
    clippy::disallowed_methods,
    reason = "the tool, not the engine, runs on real threads and a real clock"
)]

use super::TOOL;
use crate::harness::Outcome;
use crate::plan;
use crate::scenario::Scenario;
use redoubt_core::planted::Bug;
use std::cell::RefCell;
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

/// Stack of a run's thread: restoring and judging recurse little, but debug builds are fat.
const STACK: usize = 16 << 20;

/// Longest time of one run on a real clock, hundreds of times what the longest takes: simulated time is
/// bounded by the scenario, and one that stands still must not stop the tool. The thread is left behind.
const RUN_MAX: Duration = Duration::from_secs(10 * 60);

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

fn remember(info: &PanicHookInfo<'_>) {
    let text = info.payload().downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| info.payload().downcast_ref::<String>().cloned()).unwrap_or_default();
    let place =
        info.location().map(|place| format!(" at {}:{}", place.file(), place.line())).unwrap_or_default();
    PANIC.with_borrow_mut(|slot| {
        slot.get_or_insert(format!("{text}{place}"));
    });
}

/// Returns the number of cores.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Runs with a planted bug active; the error is a usage error.
pub(super) fn with_bug(name: Option<&str>, work: impl FnOnce() -> Result<u8, u8>) -> Result<u8, u8> {
    let Some(name) = name else { return work() };
    let Some(bug) = find_bug(name) else { return Err(2) };
    activate(Some(bug));
    let result = work();
    activate(None);
    result
}

/// Finds a planted bug by name, or says what is near.
pub(super) fn find_bug(name: &str) -> Option<Bug> {
    let bug = Bug::ALL.into_iter().find(|bug| bug.name() == name);
    if bug.is_none() {
        let names: Vec<String> = Bug::ALL.iter().map(|bug| bug.name()).collect();
        let known: Vec<&str> = names.iter().map(String::as_str).collect();
        eprintln!("unknown planted bug {name:?}; {}", crate::scenario::advice(name, &known));
    }
    bug
}

static ACTIVE: Mutex<Option<Bug>> = Mutex::new(None);

/// Activates a planted bug for the whole process.
pub(super) fn activate(bug: Option<Bug>) {
    *ACTIVE.lock().unwrap_or_else(PoisonError::into_inner) = bug;
    #[cfg(madsim)]
    redoubt_core::planted::activate(bug);
}

/// Returns the planted bug that is active.
pub(super) fn active() -> Option<Bug> {
    *ACTIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the command that plays a run again, with the planted bug that is active.
pub(super) fn replay_line(outcome: &Outcome) -> String {
    let bug = active().map(|bug| format!(" --bug {}", bug.name())).unwrap_or_default();
    format!("cargo sim replay {}@{}{bug}", outcome.scenario, outcome.seed)
}

/// Returns the trace of a run that panicked on this thread.
#[cfg(madsim)]
fn lines_left() -> Vec<String> {
    crate::ports::Trace::take_lines()
}

#[cfg(not(madsim))]
fn lines_left() -> Vec<String> {
    Vec::new()
}

#[cfg(madsim)]
fn play(scenario: &Scenario, seed: u64, trace: bool) -> Outcome {
    crate::harness::play(scenario, &plan::draw(scenario, seed), trace)
}

#[cfg(not(madsim))]
fn play(scenario: &Scenario, seed: u64, _trace: bool) -> Outcome {
    let plan = plan::draw(scenario, seed);
    Outcome {
        scenario: plan.scenario,
        seed,
        panic: Some("this build has no simulator; start it as `cargo sim`".into()),
        ..Outcome::default()
    }
}

/// CPU seconds of this thread so far; `None` where the system does not tell.
fn cpu_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(text.split_whitespace().next()?.parse::<u64>().ok()? as f64 / 1e9)
}

/// Plays one seed on a fresh thread.
pub(super) fn one(scenario: &Scenario, seed: u64, trace: bool) -> Outcome {
    timed(scenario, seed, trace).0
}

/// As [`one`]; also returns the CPU seconds of the run, or those of the wall where no CPU clock is found.
fn timed(scenario: &Scenario, seed: u64, trace: bool) -> (Outcome, f64) {
    let scenario_owned = scenario.clone();
    let (sender, receiver) = mpsc::channel();
    let thread = std::thread::Builder::new().stack_size(STACK).spawn(move || {
        let (before, began) = (cpu_seconds(), Instant::now());
        let work = std::panic::AssertUnwindSafe(|| play(&scenario_owned, seed, trace));
        let result = std::panic::catch_unwind(work);
        let wall = began.elapsed().as_secs_f64();
        let seconds = before.zip(cpu_seconds()).map_or(wall, |(before, after)| after - before);
        let message = PANIC.with_borrow_mut(Option::take).unwrap_or_else(|| "a panic without a word".into());
        let _ = sender.send((result.map_err(|_| (message, lines_left())), seconds));
    });
    let (panic, trace) = match (thread, receiver.recv_timeout(RUN_MAX)) {
        (Ok(thread), Ok((result, seconds))) => {
            let _ = thread.join();
            match result {
                Ok(outcome) => return (outcome, seconds),
                Err(crash) => crash,
            }
        }
        (Ok(_), Err(mpsc::RecvTimeoutError::Timeout)) => {
            (format!("the run did not end within {} min of real time", RUN_MAX.as_secs() / 60), Vec::new())
        }
        _ => ("the run's thread could not be started".into(), Vec::new()),
    };
    (Outcome { scenario: scenario.name.clone(), seed, panic: Some(panic), trace, ..Outcome::default() }, 0.0)
}

/// One thing to do: a scenario (by index) and a seed.
pub(super) type Task = (usize, u64);

/// Plays all tasks, `jobs` at once, and hands each outcome over as it comes, with its CPU seconds. The consumer returns
/// `false` to stop early.
pub(super) fn many(
    scenarios: &[Scenario],
    tasks: &[Task],
    jobs: usize,
    mut consume: impl FnMut(usize, Outcome, f64) -> bool,
) -> Result<(), u8> {
    std::panic::set_hook(Box::new(remember));
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let (sender, receiver) = mpsc::channel();
    let sender = Mutex::new(sender);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            let sender = sender.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let (next, stop) = (&next, &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let Some((scenario, seed)) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) else {
                        break;
                    };
                    let (outcome, seconds) = timed(&scenarios[*scenario], *seed, false);
                    if sender.send((*scenario, outcome, seconds)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        for (scenario, outcome, seconds) in receiver {
            if !consume(scenario, outcome, seconds) {
                stop.store(true, Ordering::Relaxed);
                break;
            }
        }
    });
    let _ = std::panic::take_hook();
    if cfg!(madsim) { Ok(()) } else { Err(TOOL) }
}
