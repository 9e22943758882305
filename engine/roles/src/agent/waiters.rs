//! Guests that must know when the machine starts an operation, or completes a resize.
//!
//! Nearly every write starts in the step that submits it: it is answered on the spot, without a channel.
//!
//! What is *not* here: which operation may start ([`redoubt_core::splitter`]).

use redoubt_core::splitter::{IoFailure, IoId};
use std::collections::BTreeMap;
use tokio::sync::oneshot;

type Answer = Result<(), IoFailure>;

/// Operations with nobody's answer yet. Bounded by the requests that clients may have in flight.
#[derive(Default)]
pub(super) struct Waiters {
    waiting: BTreeMap<IoId, oneshot::Sender<Answer>>,
    /// The operation whose step is under way, and its answer once the step gave one.
    asking: Option<(IoId, Option<Answer>)>,
}

/// What a guest knows after the step that it asked with.
pub(super) enum Waiting {
    Over(Answer),
    Until(oneshot::Receiver<Answer>),
}

impl Waiters {
    /// A step begins whose effects may answer this operation; [`Waiters::asked`] follows it.
    pub(super) fn ask(&mut self, io: IoId) {
        self.asking = Some((io, None));
    }

    /// The step is over: the operation was answered, or waits from now on.
    pub(super) fn asked(&mut self, io: IoId) -> Waiting {
        match self.asking.take() {
            Some((asked, Some(answer))) if asked == io => Waiting::Over(answer),
            _ => {
                let (answer, waiting) = oneshot::channel();
                self.waiting.insert(io, answer);
                Waiting::Until(waiting)
            }
        }
    }

    /// Answers whoever waits for this operation.
    pub(super) fn answer(&mut self, io: IoId, answer: Answer) {
        match &mut self.asking {
            Some((asked, given)) if *asked == io => *given = Some(answer),
            _ => {
                if let Some(waiting) = self.waiting.remove(&io) {
                    // Its client may have left.
                    let _ = waiting.send(answer);
                }
            }
        }
    }

    /// Nobody will be answered any more; who waits is told so at once.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }
}

impl Waiting {
    /// Waits for the answer; `None` if the agent ended before there was one.
    pub(super) async fn answer(self) -> Option<Answer> {
        match self {
            Waiting::Over(answer) => Some(answer),
            Waiting::Until(waiting) => waiting.await.ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_within_the_step_and_one_after_it_reach_whoever_asked() {
        let mut waiters = Waiters::default();
        let (first, second) = (IoId(1), IoId(2));
        waiters.ask(first);
        let waiting = waiters.asked(first);
        waiters.ask(second);
        // The step of the second one ends the first one, too.
        waiters.answer(first, Err(IoFailure::Device));
        waiters.answer(second, Ok(()));
        assert_eq!(waiters.asked(second).answer().await, Some(Ok(())));
        assert_eq!(waiting.answer().await, Some(Err(IoFailure::Device)));
        assert!(waiters.waiting.is_empty());
    }

    #[tokio::test]
    async fn who_waits_for_an_agent_that_ended_is_told() {
        let mut waiters = Waiters::default();
        waiters.ask(IoId(1));
        let waiting = waiters.asked(IoId(1));
        waiters.clear();
        assert_eq!(waiting.answer().await, None);
    }
}
