//! Tasks that end with their owner: dropping the set aborts all of them, as a crash would.

use std::future::Future;
use std::sync::{Mutex, PoisonError};
use tokio::task::JoinHandle;

/// Finished handles are swept when the set grows by this many, so that it stays bounded by what runs.
const SWEEP_EVERY: usize = 64;

/// Tasks owned by one value.
#[derive(Default)]
pub(crate) struct Tasks(Mutex<Vec<JoinHandle<()>>>);

impl Tasks {
    /// Starts a task.
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tasks.len().is_multiple_of(SWEEP_EVERY) {
            tasks.retain(|task| !task.is_finished());
        }
        tasks.push(tokio::spawn(future));
    }

    /// Ends all tasks.
    pub(crate) fn abort(&self) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.drain(..).for_each(|task| task.abort());
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.abort();
    }
}
