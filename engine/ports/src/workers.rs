//! Threads for work that only computes: compression, encryption, digests.
//!
//! What is *not* here: anything that waits. A job has no clock, no file and no socket, so where it runs changes
//! nothing but the time it takes.

use async_trait::async_trait;
use std::sync::{Arc, Mutex, PoisonError};

/// Work that runs once.
pub type Job = Box<dyn FnOnce() + Send>;

/// Where jobs run.
#[async_trait]
pub trait Workers: Send + Sync {
    /// Runs the job and returns after its end. Jobs run at the same time up to a bound of the host; more wait.
    /// Dropping the future may or may not stop a job that has not begun (P-3).
    async fn run(&self, job: Job);
}

/// Runs each job at once, in the task that asks for it.
#[derive(Clone, Copy, Debug, Default)]
pub struct InPlace;

#[async_trait]
impl Workers for InPlace {
    async fn run(&self, job: Job) {
        job();
    }
}

/// Computes a value on the workers.
///
/// # Panics
/// If the workers dropped the job without running it.
pub async fn compute<T: Send + 'static>(
    workers: &dyn Workers,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let place = Arc::new(Mutex::new(None));
    let result = Arc::clone(&place);
    let job = move || *result.lock().unwrap_or_else(PoisonError::into_inner) = Some(work());
    workers.run(Box::new(job)).await;
    let value = place.lock().unwrap_or_else(PoisonError::into_inner).take();
    value.expect("workers return after the job has run")
}
