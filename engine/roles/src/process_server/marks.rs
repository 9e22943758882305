//! Looks into the vault for disowned marks, and disowns them there, beside the actor.
//!
//! One question at a time: a repeated one finds the attempt under way, another one takes its place. A
//! statement that was cut short may still arrive, which costs a comparison and nothing else.
//!
//! What is *not* here: what marks are (`core::agent`), how a statement is kept (vault).

use redoubt_core::MachineId;
use redoubt_core::message::{MarksReply, MarksRequest};
use redoubt_core::receiver::SessionId;
use redoubt_vault::{Vault, VaultError};
use tokio::task::JoinHandle;

type Attempt = JoinHandle<Result<MarksReply, VaultError>>;

/// The actor's end of the work.
pub(super) struct Marks {
    vault: Vault,
    machine: MachineId,
    running: Option<(SessionId, MarksRequest, Attempt)>,
}

impl Marks {
    pub(super) fn new(vault: Vault, machine: MachineId) -> Marks {
        Marks { vault, machine, running: None }
    }

    /// Begins to answer a question.
    pub(super) fn begin(&mut self, session: SessionId, request: MarksRequest) {
        if self.running.as_ref().is_some_and(|(asker, asked, _)| (*asker, *asked) == (session, request)) {
            return;
        }
        let task = tokio::spawn(answer(self.vault.clone(), self.machine, request));
        if let Some((_, _, older)) = self.running.replace((session, request, task)) {
            older.abort();
        }
    }

    /// Returns the end of an attempt, with its answer if there is one. Waits for ever when nothing was asked.
    pub(super) async fn outcome(&mut self) -> (SessionId, Option<MarksReply>) {
        let ended = match &mut self.running {
            Some((_, _, task)) => task.await,
            None => std::future::pending().await,
        };
        let Some((session, request, _)) = self.running.take() else { return std::future::pending().await };
        let reply = match ended {
            Ok(Ok(reply)) => Some(reply),
            Ok(Err(error)) => {
                let (machine, number) = (self.machine, request.number);
                tracing::warn!(%machine, number, %error, "cannot look at the agent's marks; it asks again");
                None
            }
            // A task that panicked has told nothing.
            Err(_) => None,
        };
        (session, reply)
    }
}

impl Drop for Marks {
    fn drop(&mut self) {
        if let Some((_, _, task)) = &self.running {
            task.abort();
        }
    }
}

async fn answer(vault: Vault, machine: MachineId, request: MarksRequest) -> Result<MarksReply, VaultError> {
    let MarksRequest { number, disown } = request;
    if disown {
        vault.disown_marks(machine, number).await?;
        return Ok(MarksReply { number, is_disowned: true });
    }
    Ok(MarksReply { number, is_disowned: vault.are_marks_disowned(machine, number).await? })
}
