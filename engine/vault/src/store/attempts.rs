//! One operation on a store: attempts with a deadline each, pauses between them, one deadline for all.

use crate::error::StoreFailure;
use redoubt_ports::{StoreError, within};
use std::pin::Pin;
use std::time::Duration;
use tokio::time::{Sleep, sleep};

/// One attempt; 32 MiB at 1 MiB/s.
pub(super) const ATTEMPT_DEADLINE: Duration = Duration::from_secs(32);
/// All attempts of one operation together; longer outages are the caller's to wait for.
const OPERATION_DEADLINE: Duration = Duration::from_secs(60);
/// First pause; doubles up to the limit below.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
/// Longest pause, also the longest wish of a throttling store that is obeyed in full.
const PAUSE_LIMIT: Duration = Duration::from_secs(5);

/// The attempts of one operation.
pub(super) struct Attempts<'a> {
    operation: &'static str,
    key: &'a str,
    /// Ends at [`OPERATION_DEADLINE`].
    deadline: Pin<Box<Sleep>>,
    pause: Duration,
    count: u32,
}

impl<'a> Attempts<'a> {
    pub(super) fn new(operation: &'static str, key: &'a str) -> Attempts<'a> {
        let deadline = Box::pin(sleep(OPERATION_DEADLINE));
        Attempts { operation, key, deadline, pause: PAUSE_FIRST, count: 0 }
    }

    /// Runs one attempt under its deadline; silence is an ambiguous answer.
    pub(super) async fn run<T>(
        &mut self,
        call: impl std::future::Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        self.count += 1;
        match within(ATTEMPT_DEADLINE, call).await {
            Ok(answer) => answer,
            Err(_) => Err(StoreError::Ambiguous("no answer in time".to_owned())),
        }
    }

    /// Waits before the next attempt, or gives up.
    pub(super) async fn pause(&mut self, error: StoreError) -> Result<(), StoreFailure> {
        let wish = match &error {
            StoreError::Throttled { retry_after } => retry_after.unwrap_or(self.pause).min(PAUSE_LIMIT),
            StoreError::NoSpace | StoreError::Denied(_) => return Err(self.failure(error)),
            _ => self.pause,
        };
        self.pause = (self.pause * 2).min(PAUSE_LIMIT);
        tokio::select! {
            biased;
            () = &mut self.deadline => Err(self.failure(error)),
            () = sleep(wish) => Ok(()),
        }
    }

    fn failure(&self, last: StoreError) -> StoreFailure {
        StoreFailure { operation: self.operation, object: self.key.to_owned(), attempts: self.count, last }
    }
}
