//! One schedule: who runs when, who freezes, who dies, what the store does; all from one seed.

use crate::Mutant;
use crate::maintainer::maintain;
use crate::oracle::Oracle;
use crate::reader::read;
use crate::store::{Faults, Rng, Store};
use crate::world::{Port, World};
use crate::writer::write;
use redoubt_core::Instant;
use redoubt_core::maintenance::{Ladder, Rule, Which};
use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;

/// Actors at once.
const ACTORS_MAX: usize = 6;
/// Steps of a schedule with faults, and of one whose actors sleep long.
const STEPS: u32 = 260;
const STEPS_WITH_SLEEP: u32 = 700;
/// An actor that falls asleep early does so within so many requests: its claim and what it loads, and some more.
const NAP_WITHIN: u32 = 16;
/// Steps without faults in which everything must come to rest.
const STEPS_TO_REST: u32 = 4000;

struct Actor {
    future: Pin<Box<dyn Future<Output = ()>>>,
    frozen_until: u32,
    /// Requests until it falls asleep for long; 0: it does not.
    awake: u32,
}

/// What a schedule came to.
pub(crate) struct Outcome {
    pub(crate) violation: Option<String>,
    pub(crate) counts: [u64; 3],
    pub(crate) acknowledged: u32,
}

/// How the schedule treats its actors, per thousand steps.
struct Plan {
    crash: u32,
    freeze: u32,
    freeze_steps: u32,
    spawn: u32,
    haunt: u32,
    /// Of ten new actors so many are writers, so many maintainers; the rest reads.
    writers: u32,
    maintainers: u32,
    minutes: u64,
    steps: u32,
    /// How often of eight rounds a maintainer goes on from what it published itself.
    own: u32,
    /// How many of a thousand actors fall asleep early, on what they have just read.
    naps: u32,
}

/// Returns one of a few rates: a schedule without a fault finds what one with all of them hides.
fn rate(rng: &mut Rng, high: u32) -> u32 {
    [0, high / 4, high][rng.below(3) as usize]
}

fn faults(rng: &mut Rng) -> Faults {
    Faults {
        lost_reply: rate(rng, 80),
        late_put: rate(rng, 60),
        false_exists: rate(rng, 50),
        lost_delete: rate(rng, 100),
        undone_delete: rate(rng, 100),
        claim_or_pin: rate(rng, 500),
    }
}

fn plan(rng: &mut Rng) -> Plan {
    Plan {
        crash: rate(rng, 20),
        freeze: rate(rng, 40),
        freeze_steps: [10, 60, 150][rng.below(3) as usize],
        spawn: [60, 150][rng.below(2) as usize],
        haunt: [10, 60][rng.below(2) as usize],
        writers: 2 + rng.below(3),
        maintainers: 3 + rng.below(2),
        // In some schedules pins grow old.
        minutes: [1, 1, 5, 40][rng.below(4) as usize],
        steps: STEPS,
        own: 4,
        naps: 0,
    }
}

/// A plan in which some sleep while the others do all that makes them forgotten.
fn plan_with_sleep(rng: &mut Rng) -> Plan {
    Plan {
        crash: 4,
        freeze: 12,
        freeze_steps: 500,
        spawn: 60,
        minutes: 1,
        steps: STEPS_WITH_SLEEP,
        own: [4, 8][rng.below(2) as usize],
        naps: [0, 600][rng.below(2) as usize],
        ..plan(rng)
    }
}

fn ladder(rng: &mut Rng) -> Ladder {
    let newest = Rule::Newest { count: rng.below(3), which: Which::Any };
    Ladder::new(match rng.below(4) {
        0 => vec![Rule::All { within: Duration::from_mins(60) }],
        1 => vec![newest, Rule::Newest { count: 1, which: Which::App }],
        _ => vec![newest],
    })
}

/// Plays a schedule; in one that `sleeps` actors are away for long; `settle` ends it with a check that everything comes to rest.
pub(crate) fn play(seed: u64, mutant: Option<Mutant>, sleeps: bool, settle: bool) -> Outcome {
    let mut rng = Rng::new(seed);
    let (faults, ladder) = (faults(&mut rng), ladder(&mut rng));
    let plan = if sleeps { plan_with_sleep(&mut rng) } else { plan(&mut rng) };
    let store = Store { faults, ..Store::default() };
    let world = World {
        store,
        oracle: Oracle::default(),
        rng,
        mutant,
        ladder,
        minutes: 0,
        next_id: 1000,
        counts: [0; 3],
        own: plan.own,
    };
    let port = Port(Rc::new(RefCell::new(world)));
    let mut schedule = Schedule { port, plan, actors: Vec::new(), step: 0, readers: 0 };
    schedule.begin();
    while schedule.step < schedule.plan.steps && schedule.is_sound() {
        schedule.stir();
        schedule.run_one();
    }
    if settle && schedule.is_sound() {
        schedule.settle();
    }
    schedule.actors.clear();
    let world = schedule.port.0.borrow();
    Outcome {
        violation: world.oracle.violation.clone(),
        counts: world.counts,
        acknowledged: world.oracle.acknowledged(),
    }
}

struct Schedule {
    port: Port,
    plan: Plan,
    actors: Vec<Actor>,
    step: u32,
    readers: u32,
}

impl Schedule {
    fn begin(&mut self) {
        self.spawn(Box::pin(write(self.port.clone())));
        self.spawn(Box::pin(maintain(self.port.clone())));
    }

    fn spawn(&mut self, future: Pin<Box<dyn Future<Output = ()>>>) {
        let awake = if self.chance(self.plan.naps) { 1 + self.port.below(NAP_WITHIN) } else { 0 };
        self.actors.push(Actor { future, frozen_until: 0, awake });
    }

    fn is_sound(&self) -> bool {
        self.port.0.borrow().oracle.violation.is_none()
    }

    fn chance(&self, per_mille: u32) -> bool {
        self.port.0.borrow_mut().rng.chance(per_mille)
    }

    /// Starts, freezes and kills actors; lets the store do what it still owes.
    fn stir(&mut self) {
        let plan = &self.plan;
        let (crash, freeze, spawn) = (plan.crash, plan.freeze, plan.spawn);
        let count = self.actors.len() as u32;
        if count > 0 && self.chance(crash) {
            let at = self.port.below(count) as usize;
            // An actor that died promised nothing any more; its pins stay.
            self.actors.swap_remove(at);
        } else if count > 0 && self.chance(freeze) {
            let at = self.port.below(count) as usize;
            self.actors[at].frozen_until = self.step + self.port.below(self.plan.freeze_steps);
        }
        if self.actors.len() < ACTORS_MAX && self.chance(spawn) {
            let kind = self.port.below(10);
            let future: Pin<Box<dyn Future<Output = ()>>> = match kind {
                kind if kind < self.plan.writers => Box::pin(write(self.port.clone())),
                kind if kind < self.plan.writers + self.plan.maintainers => {
                    Box::pin(maintain(self.port.clone()))
                }
                _ => {
                    self.readers += 1;
                    Box::pin(read(self.port.clone(), self.readers % 2))
                }
            };
            self.spawn(future);
        }
        if self.chance(self.plan.haunt) {
            let world = &mut *self.port.0.borrow_mut();
            world.store.haunt(&mut world.rng);
        }
    }

    /// Lets one actor go on to its next request, then asks the oracles.
    fn run_one(&mut self) {
        self.step += 1;
        let count = self.actors.len() as u32;
        if count > 0 {
            let at = self.port.below(count) as usize;
            if self.actors[at].frozen_until <= self.step {
                let mut context = Context::from_waker(Waker::noop());
                if self.actors[at].future.as_mut().poll(&mut context).is_ready() {
                    self.actors.swap_remove(at);
                } else {
                    self.nap(at);
                }
            }
        }
        let world = &mut *self.port.0.borrow_mut();
        world.minutes += self.plan.minutes;
        let now = Instant(world.minutes * 60_000_000_000);
        world.oracle.observe(&mut world.store, now);
    }

    fn nap(&mut self, at: usize) {
        let awake = self.actors[at].awake;
        self.actors[at].awake = awake.saturating_sub(1);
        if awake == 1 {
            self.actors[at].frozen_until = self.step + self.port.below(self.plan.freeze_steps);
        }
    }

    /// Everybody is gone and nothing fails any more: a new writer commits, and new maintainers clean up.
    fn settle(&mut self) {
        self.actors.clear();
        self.plan.naps = 0;
        {
            let world = &mut *self.port.0.borrow_mut();
            while world.store.has_ghosts() {
                world.store.haunt(&mut world.rng);
            }
            world.store.faults = Faults::default();
        }
        let acknowledged = self.port.0.borrow().oracle.acknowledged();
        self.spawn(Box::pin(write(self.port.clone())));
        self.run_until(|world| world.oracle.acknowledged() >= acknowledged + 2, "no new commit");
        self.actors.clear();
        // A day passes: pins of the dead are dead.
        self.plan.minutes = 30;
        for _ in 0..2 {
            self.spawn(Box::pin(maintain(self.port.clone())));
            self.run_until(
                |world| world.oracle.left(&world.store).is_empty() && world.oracle.retired() == 0,
                "",
            );
            self.actors.clear();
        }
        let world = &mut *self.port.0.borrow_mut();
        let (left, retired) = (world.oracle.left(&world.store), world.oracle.retired());
        if world.oracle.violation.is_none() && !(left.is_empty() && retired == 0) {
            world.oracle.violation = Some(format!("left behind: {left:?}, {retired} retired points"));
        }
    }

    fn run_until(&mut self, is_done: impl Fn(&World) -> bool, what: &str) {
        let end = self.step + STEPS_TO_REST;
        while self.is_sound() && self.step < end {
            if is_done(&self.port.0.borrow()) {
                return;
            }
            self.run_one();
        }
        let world = &mut *self.port.0.borrow_mut();
        if !what.is_empty() && world.oracle.violation.is_none() {
            world.oracle.violation = Some(what.to_owned());
        }
    }
}
