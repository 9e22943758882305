//! Brings one machine up: its log claimed and sealed, its stage settled, again and again until it works.
//!
//! What is *not* here: what an opened machine does (`actor`).

use super::actor::Open;
use super::{Caller, PAUSE_FIRST, PAUSE_MAX, ServerHost, State};
use crate::core_tier::common::Common;
use crate::core_tier::dice::MILLI;
use crate::core_tier::event::ActorWork;
use crate::core_tier::request::{Effect, Outcome};
use redoubt_core::Generation;
use redoubt_core::message::RefusedReason;
use redoubt_core::receiver::{Receiver, ReceiverLimits, ReceiverState};

/// Requests before the claim: vault, key, a trial of the store's promises, the end of the log. On a bad line it is they that
/// make an opening late, and let another server be first.
const LOOKS: u32 = 10;
/// Attempts of one request before the opening counts as failed.
const TRIES: u32 = 4;

impl ServerHost {
    /// An agent says hello.
    pub(super) fn hello(&mut self, c: &mut Common, machine: u16, caller: Caller) {
        let host = usize::from(self.host);
        c.say(host, || format!("hears hello of generation {}", caller.hello.generation));
        match &mut self.machines[usize::from(machine)].state {
            State::Closed | State::Resting { waits_for_agent: true, .. } => {
                self.open(c, machine, Some(caller))
            }
            State::Resting { reason, .. } => {
                let reason = *reason;
                self.refuse(c, &caller, reason);
            }
            State::Opening { caller: waiting, .. } => {
                if let Some(older) = waiting.replace(Box::new(caller)) {
                    self.refuse(c, &older, RefusedReason::Replaced);
                }
            }
            State::Open(_) => self.prove(c, machine, caller),
        }
    }

    /// Begins to open a machine.
    pub(super) fn open(&mut self, c: &mut Common, machine: u16, caller: Option<Caller>) {
        let owned = &mut self.machines[usize::from(machine)];
        owned.actor += 1;
        let caller = caller.map(Box::new);
        owned.state = State::Opening { caller, looks: LOOKS, tries: 0, pause: PAUSE_FIRST };
        self.ask_opening(c, machine, Effect::Look);
    }

    fn ask_opening(&mut self, c: &mut Common, machine: u16, effect: Effect) {
        self.ask(c, machine, 200, !matches!(effect, Effect::Look), effect);
    }

    /// A pause is over: another attempt, or the next request of this one.
    pub(super) fn open_again(&mut self, c: &mut Common, machine: u16) {
        match &self.machines[usize::from(machine)].state {
            State::Resting { waits_for_agent: false, pause, .. } => {
                let pause = *pause;
                self.open(c, machine, None);
                if let State::Opening { pause: next, .. } = &mut self.machines[usize::from(machine)].state {
                    *next = (pause * 2).min(PAUSE_MAX);
                }
            }
            State::Opening { .. } => self.ask_opening(c, machine, Effect::Claim),
            _ => {}
        }
    }

    /// A request of an opening ended.
    pub(super) fn opening_answered(
        &mut self,
        c: &mut Common,
        machine: u16,
        effect: Effect,
        outcome: Outcome,
    ) {
        let State::Opening { looks, tries, .. } = &mut self.machines[usize::from(machine)].state else {
            return;
        };
        match (effect, outcome) {
            (Effect::Look, Outcome::Done) => {
                (*looks, *tries) = (looks.saturating_sub(1), 0);
                let next = if *looks == 0 { Effect::Claim } else { Effect::Look };
                self.ask_opening(c, machine, next);
            }
            (Effect::Claim, Outcome::Epoch(epoch)) => {
                *tries = 0;
                self.ask_opening(c, machine, Effect::Seal(epoch));
            }
            (Effect::Seal(epoch), Outcome::Done) => self.opened(c, machine, epoch),
            (Effect::Seal(_), Outcome::Fenced) => self.rest(c, machine, true, RefusedReason::Fenced),
            (effect, _) => {
                *tries += 1;
                if *tries >= TRIES {
                    return self.rest(c, machine, false, RefusedReason::Busy);
                }
                match effect {
                    // A claim whose answer was lost is another's for all the claimer knows: it takes the next one.
                    Effect::Claim => self.after(c, 200 * MILLI, machine, ActorWork::Open),
                    effect => self.ask_opening(c, machine, effect),
                }
            }
        }
    }

    fn rest(&mut self, c: &mut Common, machine: u16, waits_for_agent: bool, reason: RefusedReason) {
        let host = usize::from(self.host);
        c.say(host, || format!("cannot open the machine: {reason}"));
        let owned = &mut self.machines[usize::from(machine)];
        let State::Opening { caller, pause, .. } = &mut owned.state else { return };
        let (caller, pause) = (caller.take(), *pause);
        owned.state = State::Resting { waits_for_agent, pause, reason };
        if let Some(caller) = caller {
            self.refuse(c, &caller, reason);
        }
        self.after(c, pause, machine, ActorWork::Open);
    }

    /// Claimed and sealed: the stage is put together with the vault.
    fn opened(&mut self, c: &mut Common, machine: u16, epoch: u64) {
        if self.directory.hang_until > c.now || !self.directory.sync(&mut c.dice) {
            return self.rest(c, machine, false, RefusedReason::Busy);
        }
        let vault = &c.truths[usize::from(machine)].vault;
        let (vaulted, is_exact, era) = (vault.head, vault.is_exact, vault.era);
        let owned = &mut self.machines[usize::from(machine)];
        let State::Opening { caller, .. } = &mut owned.state else { return };
        let caller = caller.take();
        owned.stage.settle(vaulted);
        let staged: Vec<_> = owned.stage.entries.iter().map(|staged| staged.meta).collect();
        let seen = staged.iter().map(|meta| meta.generation).max().unwrap_or_default();
        let generation = Generation(owned.stage.generation).max(seen).max(vaulted.generation);
        let host = usize::from(self.host);
        c.say(host, || {
            format!("opens in epoch {epoch}: {} batches staged behind {}", staged.len(), vaulted.seq)
        });
        let state = ReceiverState { generation, vaulted, staged, exact: is_exact };
        let bytes = owned.stage.bytes();
        let receiver = Receiver::new(c.instant(), super::actor::id(machine), self.limits(bytes), state);
        let owned = &mut self.machines[usize::from(machine)];
        owned.state = State::Open(Box::new(Open::new(receiver, epoch, era)));
        if let Some(caller) = caller {
            self.admit(c, machine, *caller);
        }
        self.step_nothing(c, machine);
    }

    pub(super) fn limits(&self, staged: u64) -> ReceiverLimits {
        ReceiverLimits {
            stage_bytes: self.stage_bytes.max(staged),
            commit_bytes: super::actor::COMMIT_BYTES,
            commit_after: super::actor::COMMIT_DELAY,
        }
    }
}
