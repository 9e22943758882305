//! Takes connections, one task each, and ends them cleanly.
//!
//! - SV-1 After the stop no new connection is taken, and every request that was taken is answered
//!   before its connection closes, unless that lasts beyond [`DRAIN_DEADLINE`].

use super::connection::serve_connection;
use super::export::ExportDirectory;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use redoubt_ports::Listener;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Connections at once; clients open at most a handful each, and each may hold tens of MiB.
const MAX_CONNECTIONS: usize = 64;
/// How long a stop waits for requests in flight: longer than a disk's own time-out (30 s).
const DRAIN_DEADLINE: Duration = Duration::from_secs(45);
/// Pause after a failed accept (such as too many open files), so that it is no busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves the directory's exports until `stop` holds `true` or its sender is gone. Returns when
/// every connection has ended; those that outlast the drain deadline are cut.
pub async fn serve(
    listener: Box<dyn Listener>,
    directory: Arc<dyn ExportDirectory>,
    stop: watch::Receiver<bool>,
) {
    let mut connections: FuturesUnordered<JoinHandle<()>> = FuturesUnordered::new();
    let mut stopping = std::pin::pin!(stopped(stop.clone()));
    loop {
        tokio::select! {
            biased;
            () = &mut stopping => break,
            Some(_) = connections.next(), if !connections.is_empty() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, peer)) => {
                    let (directory, stop) = (Arc::clone(&directory), stop.clone());
                    connections.push(tokio::spawn(async move {
                        match serve_connection(stream, directory, stop).await {
                            Ok(end) => tracing::debug!(%peer, %end, "NBD client left"),
                            Err(error) => tracing::info!(%peer, %error, "NBD client was cut off"),
                        }
                    }));
                    if connections.len() == MAX_CONNECTIONS {
                        tracing::warn!(MAX_CONNECTIONS, "no more NBD clients are taken until one leaves");
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot take NBD connections");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let drained = tokio::time::timeout(DRAIN_DEADLINE, async { while connections.next().await.is_some() {} });
    if drained.await.is_err() {
        tracing::error!(
            left = connections.len(),
            "requests outlasted the drain deadline; cutting clients off"
        );
        connections.iter().for_each(JoinHandle::abort);
    }
}

/// Returns once the value is `true` or nobody can make it so any more.
pub(super) async fn stopped(mut stop: watch::Receiver<bool>) {
    while !*stop.borrow_and_update() {
        if stop.changed().await.is_err() {
            return;
        }
    }
}
