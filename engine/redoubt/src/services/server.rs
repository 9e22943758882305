//! A process server on its own thread, so that compression never delays a guest's write.

use crate::failure::{Exit, Failure, Outcome};
use redoubt_ports::{Endpoint, RawStore};
use redoubt_roles::process_server::{ProcessServer, PsSettings, PsStatus};
use redoubt_vault::VaultKeys;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Questions at once; each is one client of the control socket.
const QUESTIONS_MAX: usize = 16;

/// A running process server.
pub(crate) struct ServerThread {
    pub(crate) endpoint: Endpoint,
    questions: mpsc::Sender<oneshot::Sender<PsStatus>>,
    stop: Option<oneshot::Sender<()>>,
    ended: oneshot::Receiver<()>,
}

impl ServerThread {
    /// Starts it with its state in `state`, which must exist.
    pub(crate) async fn start(
        settings: PsSettings,
        state: PathBuf,
        store: Arc<dyn RawStore>,
        keys: VaultKeys,
    ) -> Outcome<ServerThread> {
        let (report, started) = oneshot::channel();
        let (stop, mut stopped) = oneshot::channel::<()>();
        let (questions, mut asked) = mpsc::channel::<oneshot::Sender<PsStatus>>(QUESTIONS_MAX);
        let (end, ended) = oneshot::channel();
        let work = async move {
            let start = async {
                let world = redoubt_host::world(&state)?;
                Ok(ProcessServer::start(settings, world, store, keys).await?)
            };
            match start.await {
                Ok(server) => {
                    let _ = report.send(Ok(server.endpoint()));
                    loop {
                        tokio::select! {
                            biased;
                            // A dropped sender means that the owner is gone: stop as well.
                            _ = &mut stopped => break,
                            Some(answer) = asked.recv() => {
                                let _ = answer.send(server.status());
                            }
                        }
                    }
                    server.stop().await;
                }
                Err(failure) => {
                    let _ = report.send(Err::<Endpoint, Failure>(failure));
                }
            }
            let _ = end.send(());
        };
        let failed =
            |why: String| Failure::new(Exit::Tool, format!("cannot start the process server: {why}"));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| failed(error.to_string()))?;
        std::thread::Builder::new()
            .name("process-server".to_owned())
            .spawn(move || runtime.block_on(work))
            .map_err(|error| failed(error.to_string()))?;
        let endpoint = started.await.map_err(|_| failed("it ended at once".to_owned()))??;
        Ok(ServerThread { endpoint, questions, stop: Some(stop), ended })
    }

    /// Returns every machine as its actor last described it.
    pub(crate) async fn status(&self) -> Outcome<PsStatus> {
        let gone = || Failure::new(Exit::Unreachable, "the process server is stopping");
        let (answer, status) = oneshot::channel();
        self.questions.send(answer).await.map_err(|_| gone())?;
        status.await.map_err(|_| gone())
    }

    /// Stops it and waits until it has ended.
    pub(crate) async fn stop(mut self) {
        drop(self.stop.take());
        let _ = (&mut self.ended).await;
    }
}
