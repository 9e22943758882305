//! Requests to the store that are under way: what they do when they land, and what their sender learns.

use redoubt_core::message::MarksRequest;
use std::rc::Rc;

/// What a request does in the vault.
#[derive(Clone)]
pub(super) enum Effect {
    /// Takes the next claim of a machine's log.
    Claim,
    /// Seals the log against older claims.
    Seal(u64),
    /// Puts the slot of a commit.
    Commit { epoch: u64, era: u64, batches: Rc<[u32]> },
    /// Looks at the newest claim.
    Look,
    /// Reads for digests.
    Hash,
    /// Looks for disowned marks, or disowns them.
    Marks(MarksRequest),
}

/// What a sender learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing.
    Unknown,
    Done,
    Fenced,
    Epoch(u64),
    Marks(MarksRequest, bool),
}

/// A request under way.
pub(super) struct Request {
    pub(super) server: u16,
    pub(super) machine: u16,
    pub(super) effect: Effect,
    pub(super) is_answered: bool,
    /// What came of it when it landed.
    pub(super) outcome: Option<Outcome>,
}

/// The requests under way, by number. One is forgotten when it has landed, or never will, and has ended.
#[derive(Default)]
pub(super) struct Requests {
    all: Vec<Option<(Request, u8)>>,
    free: Vec<u32>,
}

impl Requests {
    pub(super) fn put(&mut self, request: Request, lands: bool) -> u32 {
        let entry = Some((request, 1 + u8::from(lands)));
        match self.free.pop() {
            Some(number) => {
                self.all[number as usize] = entry;
                number
            }
            None => {
                self.all.push(entry);
                self.all.len() as u32 - 1
            }
        }
    }

    pub(super) fn get(&mut self, number: u32) -> Option<&mut Request> {
        self.all[number as usize].as_mut().map(|(request, _)| request)
    }

    fn release(&mut self, number: u32) {
        let Some((_, left)) = &mut self.all[number as usize] else { return };
        *left -= 1;
        if *left == 0 {
            self.all[number as usize] = None;
            self.free.push(number);
        }
    }

    /// It landed with this outcome.
    pub(super) fn landed(&mut self, number: u32, outcome: Outcome) {
        if let Some(request) = self.get(number) {
            request.outcome = Some(outcome);
        }
        self.release(number);
    }

    /// Its sender hears of it, or gives up.
    pub(super) fn end(&mut self, number: u32) -> Option<(Effect, Outcome)> {
        let request = self.get(number)?;
        let outcome = request.outcome.filter(|_| request.is_answered).unwrap_or(Outcome::Unknown);
        let effect = request.effect.clone();
        self.release(number);
        Some((effect, outcome))
    }
}
