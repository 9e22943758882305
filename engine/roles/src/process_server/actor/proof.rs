//! Before an agent is welcomed: is the log still ours?
//!
//! A server that the agent left does not notice that another one took the log: it has nothing to commit. Its
//! welcome would show a stage and a vault of the past, and the agent, which knows of more, would compare whole
//! disks. One request tells. If the store does not answer in time the agent is welcomed all the same: staging
//! must go on while the vault is away, and no stale server can commit what it stages then (WR-2).
//!
//! Invariants
//! - PF-1 At most one agent waits here; it waits at most [`PROOF_DEADLINE`].
//!
//! What is *not* here: what follows when the log is another's (`core::receiver`, RC-7).

use super::Caller;
use redoubt_core::receiver::SessionId;
use redoubt_vault::ClaimWatch;
use std::time::Duration;
use tokio::task::JoinHandle;

/// Well below the agent's own limit for an attempt, 15 s.
const PROOF_DEADLINE: Duration = Duration::from_secs(3);

/// The agent at the door, and the look at the store for it.
pub(super) struct Proof {
    claim: ClaimWatch,
    waiting: Option<(Caller, JoinHandle<Option<u64>>)>,
}

impl Proof {
    pub(super) fn new(claim: ClaimWatch) -> Proof {
        Proof { claim, waiting: None }
    }

    /// Begins to look for the agent; returns the one that waited before, which it replaces.
    pub(super) fn begin(&mut self, caller: Caller) -> Option<Caller> {
        let claim = self.claim.clone();
        let look = tokio::spawn(async move {
            match tokio::time::timeout(PROOF_DEADLINE, claim.newer()).await {
                Ok(Ok(newer)) => newer,
                Ok(Err(error)) => {
                    tracing::warn!(%error, "cannot look for a newer claim; the agent is welcomed unproved");
                    None
                }
                Err(_) => {
                    tracing::warn!("the store is slow to show the claims; the agent is welcomed unproved");
                    None
                }
            }
        });
        let (older, look) = self.waiting.replace((caller, look))?;
        look.abort();
        Some(older)
    }

    /// Returns the agent and the number of a newer claim. Waits for ever when nobody is at the door.
    pub(super) async fn outcome(&mut self) -> (Caller, Option<u64>) {
        let newer = match &mut self.waiting {
            // A look that panicked has shown nothing.
            Some((_, look)) => look.await.unwrap_or_default(),
            None => std::future::pending().await,
        };
        match self.waiting.take() {
            Some((caller, _)) => (caller, newer),
            None => std::future::pending().await,
        }
    }

    /// The agent of this session left.
    pub(super) fn forget(&mut self, session: SessionId) {
        if let Some((_, look)) = self.waiting.take_if(|(caller, _)| caller.session == session) {
            look.abort();
        }
    }
}

impl Drop for Proof {
    fn drop(&mut self) {
        if let Some((caller, look)) = &self.waiting {
            look.abort();
            caller.outbox.close();
        }
    }
}
