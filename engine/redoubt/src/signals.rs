//! The two signals that ask a service to stop, and the one that must not end it.

use crate::failure::{Exit, Failure, Outcome};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// From now on a file that may not grow (`ulimit -f`) is an error of the write that wanted it, as a full disk is. Without
/// this it is the end of the process, without a word. Must be called within the runtime.
pub(crate) fn survive_limits() {
    // The handler stays when this value goes. Where it cannot be had, nothing is worse than before.
    let _ = signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()));
}

/// SIGTERM and SIGINT, caught from the moment this value exists.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(crate) fn catch() -> Outcome<Signals> {
        let catch = |kind| {
            signal(kind).map_err(|error| Failure::new(Exit::Tool, format!("cannot catch signals: {error}")))
        };
        Ok(Signals { terminate: catch(SignalKind::terminate())?, interrupt: catch(SignalKind::interrupt())? })
    }

    /// Returns when the process is asked to stop.
    pub(crate) async fn stop(&mut self) {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Returns a value that becomes true when the process is asked to stop.
    pub(crate) fn watch(mut self) -> watch::Receiver<bool> {
        let (sender, receiver) = watch::channel(false);
        tokio::spawn(async move {
            self.stop().await;
            let _ = sender.send(true);
            // A second signal while draining means: now.
            self.stop().await;
            std::process::exit(Exit::Failed as i32);
        });
        receiver
    }
}
