//! Messages on their way to one agent.
//!
//! The machine's actor never waits for a slow peer: it leaves messages here and goes on.
//!
//! Invariants
//! - OB-1 At most one acknowledgement waits: a newer one says everything an older one said.
//! - OB-2 After [`Outbox::close`] nothing is added; what waits is still handed out.

use redoubt_wire::Message;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Messages that may wait for one peer: a full window of digests (64) and some pongs. A peer that
/// lets more pile up does not read, and is cut off.
const OUTBOX_MESSAGES_MAX: usize = 256;

#[derive(Default)]
struct State {
    queue: VecDeque<Message>,
    is_closed: bool,
}

/// A bounded queue with one consumer.
#[derive(Default)]
pub(super) struct Outbox {
    state: Mutex<State>,
    changed: Notify,
}

impl Outbox {
    /// Adds a message, unless the box is closed. Never waits.
    pub(super) fn push(&self, message: Message) {
        let mut state = self.lock();
        if state.is_closed {
            return;
        }
        if matches!(message, Message::Ack { .. }) {
            state.queue.retain(|waiting| !matches!(waiting, Message::Ack { .. }));
        }
        state.queue.push_back(message);
        if state.queue.len() > OUTBOX_MESSAGES_MAX {
            state.queue.clear();
            state.is_closed = true;
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Lets the consumer end after what waits.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_one();
    }

    /// Returns the next message, or `None` when the box is closed and empty.
    pub(super) async fn next(&self) -> Option<Message> {
        loop {
            {
                let mut state = self.lock();
                if let Some(message) = state.queue.pop_front() {
                    return Some(message);
                }
                if state.is_closed {
                    return None;
                }
            }
            self.changed.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
