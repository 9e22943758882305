//! Operations of guests whose client goes away: they are run to their end by the agent. Half an operation
//! would leave the splitter waiting and the disk unlike the stream.
//!
//! What is *not* here: what an operation does ([`super::export`]).

use super::shell::Shell;
use crate::nbd_server::ExportError;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use tokio::sync::Notify;

type Operation = BoxFuture<'static, Result<(), ExportError>>;

/// Operations left by their clients. Bounded by the requests that clients may have in flight: each left one
/// is taken up at once.
pub(super) struct Orphans {
    /// `None` when nobody takes them up: before the agent works and after it ended. An operation holds the
    /// shell that holds this queue, so one left in it for ever would keep both.
    queue: Mutex<Option<VecDeque<Operation>>>,
    wake: Notify,
}

impl Orphans {
    pub(super) fn closed() -> Orphans {
        Orphans { queue: Mutex::new(None), wake: Notify::new() }
    }

    fn replace(&self, queue: Option<VecDeque<Operation>>) -> Option<VecDeque<Operation>> {
        std::mem::replace(&mut *self.queue.lock().unwrap_or_else(PoisonError::into_inner), queue)
    }

    /// Takes an operation over, or gives it back if the agent has ended.
    fn adopt(&self, operation: Operation) -> Option<Operation> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        match queue.as_mut() {
            Some(queue) => queue.push_back(operation),
            None => return Some(operation),
        }
        self.wake.notify_one();
        None
    }

    fn next(&self) -> Option<Operation> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).as_mut()?.pop_front()
    }
}

/// Opens the queue for as long as it lives: in a crash it goes with the task that holds it.
struct Opened(Arc<Shell>);

impl Drop for Opened {
    fn drop(&mut self) {
        // Operations are dropped outside the lock: they may hold the last hand on the shell.
        drop(self.0.orphans.replace(None));
    }
}

/// Runs left operations to their end. Open for them on return, before the future is polled.
pub(super) fn run_orphans(shell: Arc<Shell>) -> impl Future<Output = ()> + Send {
    shell.orphans.replace(Some(VecDeque::new()));
    let opened = Opened(shell);
    async move {
        let shell = &opened.0;
        loop {
            match shell.orphans.next() {
                Some(operation) => shell.tasks.spawn(operation.map(|_| ())),
                None => shell.orphans.wake.notified().await,
            }
        }
    }
}

/// An operation of a guest that ends even if its client does not wait for it.
pub(super) struct Guarded {
    shell: Arc<Shell>,
    operation: Option<Operation>,
}

impl Guarded {
    pub(super) fn new(
        shell: Arc<Shell>,
        operation: impl Future<Output = Result<(), ExportError>> + Send + 'static,
    ) -> Guarded {
        Guarded { shell, operation: Some(operation.boxed()) }
    }
}

impl Future for Guarded {
    type Output = Result<(), ExportError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let operation = self.operation.as_mut().expect("a finished operation is not polled again");
        let result = ready!(operation.poll_unpin(cx));
        self.operation = None;
        Poll::Ready(result)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if let Some(operation) = self.operation.take() {
            drop(self.shell.orphans.adopt(operation));
        }
    }
}
