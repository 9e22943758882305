//! Runs seeds in parallel: one fresh thread per seed, so that no thread-local state of one run can
//! colour the next.
#![expect(
    clippy::disallowed_methods,
    reason = "the tool, not the engine, runs on real threads and a real clock"
)]

use super::{call, interrupt};
use crate::codes::TOOL;
use crate::cpu;
use crate::harness::{Manner, Outcome};
use crate::plan::{self, Plan};
use crate::scenario::Scenario;
use redoubt_core::planted::Bug;
use std::cell::{Cell, RefCell};
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, Once, PoisonError, mpsc};
use std::time::{Duration, Instant};

/// Stack of a run's thread: restoring and judging recurse little, but debug builds are fat.
const STACK: usize = 16 << 20;

/// Longest time of one run on a real clock, hundreds of times what the longest takes: simulated time is
/// bounded by the scenario, and one that stands still must not stop the tool. The thread is left behind.
const RUN_MAX: Duration = Duration::from_secs(10 * 60);

/// What a second of one machine may add to it: a day of hundreds of machines is no run that stands still.
const SECOND_MAX: Duration = Duration::from_micros(200);

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
    /// Whether a panic of this thread is one of a run: remembered, and told with the run.
    static LISTENS: Cell<bool> = const { Cell::new(false) };
}

/// From now on panics of this thread are remembered instead of printed; those of others stay what they are.
fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| if LISTENS.get() { remember(info) } else { usual(info) }));
    });
    LISTENS.set(true);
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

/// Runs work on this thread; the error is what it shouted when it panicked.
pub(super) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    listen();
    PANIC.with_borrow_mut(|slot| *slot = None);
    let silent = || "a panic without a word".to_owned();
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    LISTENS.set(false);
    result.map_err(|_| PANIC.with_borrow_mut(Option::take).unwrap_or_else(silent))
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
    let bug = Bug::known().find(|bug| bug.name() == name);
    if bug.is_none() {
        let names: Vec<String> = Bug::known().map(Bug::name).collect();
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

/// Digits of a digest in a replay line: enough to prove that the run is the same.
const PROOF: usize = 12;

/// Returns the command that plays a run again, with its digest and the planted bug that is active.
pub(super) fn replay_line(outcome: &Outcome) -> String {
    let proof = outcome.digest.get(..PROOF).map(|digest| format!("#{digest}")).unwrap_or_default();
    call::line(&format!("replay {}@{}{proof}{}", outcome.scenario, outcome.seed, bug_words()))
}

/// Returns what stands in a command for the planted bug that is active.
pub(super) fn bug_words() -> String {
    active().map(|bug| format!(" --bug {}", bug.name())).unwrap_or_default()
}

/// Returns what a run that panicked on this thread leaves: digest, beats, lines, and when it was.
#[cfg(madsim)]
fn left(outcome: &mut Outcome) {
    let left = crate::ports::Trace::left();
    (outcome.digest, outcome.beats, outcome.trace) = (left.digest, left.beats, left.lines);
    (outcome.stats.simulated, outcome.stats.events) = (left.last_ms, left.events);
    outcome.record.found_ms.get_or_insert(left.last_ms);
}

#[cfg(not(madsim))]
fn left(_outcome: &mut Outcome) {}

#[cfg(madsim)]
fn play(work: &Work) -> Outcome {
    crate::harness::play(&work.scenario, &work.plan, &work.manner)
}

#[cfg(not(madsim))]
fn play(work: &Work) -> Outcome {
    let _ = (&work.scenario, &work.manner);
    Outcome {
        scenario: work.plan.scenario.clone(),
        seed: work.plan.seed,
        panic: Some("this build has no simulator; start it as `cargo sim`".into()),
        ..Outcome::default()
    }
}

/// One run to play.
#[derive(Clone, Debug)]
pub(super) struct Work {
    /// Estate and promises.
    pub(super) scenario: Scenario,
    /// What happens.
    pub(super) plan: Plan,
    /// How it is played.
    pub(super) manner: Manner,
    /// Longest time on a real clock.
    pub(super) longest: Duration,
}

impl Work {
    /// A seed of a scenario.
    pub(super) fn of(scenario: &Scenario, seed: u64, manner: Manner) -> Work {
        Work { manner, ..Work::planned(scenario, plan::draw(scenario, seed)) }
    }

    /// A plan.
    pub(super) fn planned(scenario: &Scenario, plan: Plan) -> Work {
        let machine_seconds = scenario.estate.machines.len() as u64 * plan.length / 1000;
        let longest = RUN_MAX + SECOND_MAX * u32::try_from(machine_seconds).unwrap_or(u32::MAX);
        Work { scenario: scenario.clone(), plan, manner: Manner::default(), longest }
    }
}

/// Plays one seed on a fresh thread.
pub(super) fn one(scenario: &Scenario, seed: u64, trace: bool) -> Outcome {
    let manner = Manner { is_traced: trace, ..Manner::default() };
    play_one(&Work::of(scenario, seed, manner)).0
}

/// Plays one run on a fresh thread; also returns its CPU seconds, or those of the wall where no CPU clock is found.
pub(super) fn play_one(work: &Work) -> (Outcome, f64) {
    let owned = work.clone();
    let (sender, receiver) = mpsc::channel();
    let failed = Outcome { scenario: work.plan.scenario.clone(), seed: work.plan.seed, ..Outcome::default() };
    let mut crashed = failed.clone();
    let thread = std::thread::Builder::new().stack_size(STACK).spawn(move || {
        listen();
        let (before, began) = (cpu::seconds(), Instant::now());
        let played = std::panic::AssertUnwindSafe(|| play(&owned));
        let outcome = std::panic::catch_unwind(played).unwrap_or_else(|_| {
            let message = PANIC.with_borrow_mut(Option::take);
            crashed.panic = Some(message.unwrap_or_else(|| "a panic without a word".into()));
            left(&mut crashed);
            crashed
        });
        let wall = began.elapsed().as_secs_f64();
        let seconds = before.zip(cpu::seconds()).map_or(wall, |(before, after)| after - before);
        let _ = sender.send((outcome, seconds));
    });
    let panic = match (thread, receiver.recv_timeout(work.longest)) {
        (Ok(thread), Ok(played)) => {
            let _ = thread.join();
            return played;
        }
        (Ok(_), Err(mpsc::RecvTimeoutError::Timeout)) => {
            format!("the run did not end within {} s of real time", work.longest.as_secs())
        }
        _ => "the run's thread could not be started".into(),
    };
    (Outcome { panic: Some(panic), ..failed }, 0.0)
}

/// One thing to do: a scenario (by index) and a seed.
pub(super) type Task = (usize, u64);

/// Plays all tasks, `jobs` at once, and hands each outcome over as it comes, with its CPU seconds. The consumer returns
/// `false` to stop early; an interrupt stops early too.
pub(super) fn many(
    scenarios: &[Scenario],
    tasks: &[Task],
    jobs: usize,
    mut consume: impl FnMut(usize, Outcome, f64) -> bool,
) -> Result<(), u8> {
    let work = |index: usize| {
        let (scenario, seed) = tasks[index];
        Work::of(&scenarios[scenario], seed, Manner::default())
    };
    each(tasks.len(), jobs, work, |index, outcome, seconds| consume(tasks[index].0, outcome, seconds))
}

/// Plays `count` runs, `jobs` at once; as [`many`].
pub(super) fn each(
    count: usize,
    jobs: usize,
    work: impl Fn(usize) -> Work + Sync,
    mut consume: impl FnMut(usize, Outcome, f64) -> bool,
) -> Result<(), u8> {
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..jobs.min(count) {
            let (sender, next, stop, work) = (sender.clone(), &next, &stop, &work);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) && !interrupt::came() {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count {
                        break;
                    }
                    let (outcome, seconds) = play_one(&work(index));
                    if sender.send((index, outcome, seconds)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        for (index, outcome, seconds) in receiver {
            if !consume(index, outcome, seconds) {
                stop.store(true, Ordering::Relaxed);
                break;
            }
        }
    });
    if cfg!(madsim) { Ok(()) } else { Err(TOOL) }
}
