//! Tasks that end with their owner: dropping the set aborts all of them, as a crash would.

use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
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

    /// Waits until all tasks ended by themselves, at most this long; then ends them.
    pub(crate) async fn ended(&self, longest: Duration) {
        let tasks: Vec<_> = self.0.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect();
        let aborts = Tasks(Mutex::new(Vec::new()));
        let all = async {
            let mut tasks = tasks.into_iter();
            while let Some(mut task) = tasks.next() {
                tokio::select! {
                    biased;
                    _ = &mut task => {}
                    () = tokio::time::sleep(longest) => {
                        let mut left = aborts.0.lock().unwrap_or_else(PoisonError::into_inner);
                        left.push(task);
                        left.extend(tasks.by_ref());
                    }
                }
            }
        };
        all.await;
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
