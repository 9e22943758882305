//! Serialises overlapping changes of one disk.
//!
//! - RL-1 Of two overlapping extents the one that asked first goes first; an extent that overlaps
//!   nothing goes at once.
//!
//! Needed because a write that covers a sector in part reads it first: without order it would put
//! old bytes over a neighbour's acknowledged ones.

use redoubt_core::Extent;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// The extents that are being changed, or wait for it, in the order in which they asked.
#[derive(Default)]
pub(super) struct RangeLock {
    queue: Mutex<Queue>,
    released: Notify,
}

#[derive(Default)]
struct Queue {
    next: u64,
    entries: Vec<(u64, Extent)>,
}

/// A place in the queue; dropped, it lets the next one go.
pub(super) struct RangeGuard<'a> {
    lock: &'a RangeLock,
    ticket: u64,
    extent: Extent,
}

impl RangeLock {
    /// Waits until nothing that asked earlier overlaps the extent.
    pub(super) async fn acquire(&self, extent: Extent) -> RangeGuard<'_> {
        let guard = {
            let mut queue = self.queue();
            let ticket = queue.next;
            queue.next += 1;
            queue.entries.push((ticket, extent));
            RangeGuard { lock: self, ticket, extent }
        };
        while !guard.is_first() {
            // The future is armed before the second look, so that no release is missed.
            let mut released = std::pin::pin!(self.released.notified());
            released.as_mut().enable();
            if guard.is_first() {
                break;
            }
            released.await;
        }
        guard
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RangeGuard<'_> {
    fn is_first(&self) -> bool {
        let queue = self.lock.queue();
        let mut earlier = queue.entries.iter().filter(|(ticket, _)| *ticket < self.ticket);
        !earlier.any(|(_, extent)| extent.overlaps(self.extent))
    }
}

impl Drop for RangeGuard<'_> {
    fn drop(&mut self) {
        let alone = {
            let mut queue = self.lock.queue();
            queue.entries.retain(|(ticket, _)| *ticket != self.ticket);
            queue.entries.is_empty()
        };
        if !alone {
            self.lock.released.notify_waiters();
        }
    }
}
