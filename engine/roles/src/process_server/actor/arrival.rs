//! Opens one machine, again and again until it works, while an agent may be waiting at the door.
//!
//! Opening claims the machine's log, which ends any other process server's right to it. Whether to claim is
//! therefore never decided by time alone: an attempt that lost the log to somebody else is repeated only when
//! the agent comes (RC-7). So is one that found a stage of another vault key: without the agent it is given up by
//! nobody (decision 0025). Any other failure is retried after a pause that doubles.
//!
//! What is *not* here: what opening is (`opening`), what an opened machine does (`actor`).

use super::ToActor;
use crate::process_server::connection::refused;
use crate::process_server::opening::{self, OpenError, Opened};
use crate::process_server::outbox::Outbox;
use crate::process_server::packer::{PAUSE_FIRST, PAUSE_MAX};
use crate::process_server::settings::PsMachineStatus;
use crate::process_server::shared::{Shared, stopped};
use redoubt_core::message::{Hello, RefusedReason};
use redoubt_core::receiver::SessionId;
use redoubt_core::{BatchPosition, Generation, MachineId};
use redoubt_vault::VaultError;
use redoubt_wire::StreamKey;
use std::sync::Arc;
use tokio::sync::mpsc;

/// An agent that proved its key and waits for its welcome.
pub(in crate::process_server) struct Caller {
    pub(in crate::process_server) session: SessionId,
    pub(in crate::process_server) hello: Hello,
    pub(in crate::process_server) outbox: Arc<Outbox>,
}

impl Caller {
    /// Tells the agent why it is not served and ends its session.
    pub(super) fn refuse(self, reason: RefusedReason, detail: String) {
        self.outbox.push(refused(reason, detail));
        self.outbox.close();
    }
}

/// Opens the machine. The newest agent waits for the end of an attempt; between attempts agents are refused.
/// `None` if the process server stops.
pub(super) async fn open(
    shared: &Arc<Shared>,
    machine: MachineId,
    key: &StreamKey,
    mailbox: &mut mpsc::Receiver<ToActor>,
    mut caller: Option<Caller>,
) -> Option<(Opened, Option<Caller>)> {
    let mut pause = PAUSE_FIRST;
    loop {
        let error = match attempt(shared, machine, key, mailbox, &mut caller).await? {
            Ok(opened) => return Some((opened, caller)),
            Err(error) => error,
        };
        if matches!(error, OpenError::OtherKey) && caller.is_some() {
            continue;
        }
        let is_fenced = matches!(error, OpenError::Vault(VaultError::Fenced { .. }));
        let waits_for_agent = is_fenced || matches!(error, OpenError::OtherKey);
        let reason = if is_fenced { RefusedReason::Fenced } else { RefusedReason::Busy };
        tracing::warn!(%machine, %error, "cannot open the machine");
        shared.publish(machine, closed(is_fenced, &error));
        if let Some(caller) = caller.take() {
            caller.refuse(reason, error.to_string());
        }
        let mut rest = std::pin::pin!(tokio::time::sleep(pause));
        pause = (pause * 2).min(PAUSE_MAX);
        loop {
            tokio::select! {
                biased;
                () = stopped(shared.stop.clone()) => return None,
                () = &mut rest, if !waits_for_agent => break,
                Some(message) = mailbox.recv() => if let ToActor::Hello(next) = message {
                    if waits_for_agent {
                        caller = Some(next);
                        break;
                    }
                    next.refuse(reason, error.to_string());
                },
            }
        }
    }
}

/// One attempt; `None` if the process server stops.
async fn attempt(
    shared: &Arc<Shared>,
    machine: MachineId,
    key: &StreamKey,
    mailbox: &mut mpsc::Receiver<ToActor>,
    caller: &mut Option<Caller>,
) -> Option<Result<Opened, OpenError>> {
    let mut opening = std::pin::pin!(opening::open(shared, machine, key, caller.is_some()));
    loop {
        tokio::select! {
            biased;
            () = stopped(shared.stop.clone()) => return None,
            outcome = &mut opening => return Some(outcome),
            Some(message) = mailbox.recv() => match message {
                ToActor::Hello(next) => {
                    if let Some(older) = caller.replace(next) {
                        older.refuse(RefusedReason::Replaced, String::new());
                    }
                }
                ToActor::Gone(session) => {
                    *caller = caller.take().filter(|waiting| waiting.session != session);
                }
                ToActor::Received(..) => {}
            },
        }
    }
}

/// The status of a machine that cannot be opened: nothing is known, so nothing is promised.
fn closed(is_fenced: bool, error: &OpenError) -> PsMachineStatus {
    PsMachineStatus {
        generation: Generation::default(),
        is_connected: false,
        staged: BatchPosition::default(),
        vaulted: BatchPosition::default(),
        stage_bytes: 0,
        is_fenced,
        last_error: Some(error.to_string()),
    }
}
