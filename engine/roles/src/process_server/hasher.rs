//! Answers of one machine's digest questions, from the vault's newest state.
//!
//! Invariants
//! - HA-1 An answer shows everything up to the sequence asked for; until the reader sees it, it waits.
//! - HA-2 Damage in the vault is answered by a digest that no content has: the agent sends the block
//!   again, which heals it. It is never answered by "zeros".
//! - HA-3 A requested resync is answered from the store, not from what was read before it: a unit that rotted since is
//!   damaged, although some memory still holds it. Others may use that memory: they look for what the vault has not
//!   got, and a machine that is overrun converges only if their answers are quick. So that memory outlives the claim: an
//!   agent that comes back often asks for the same blocks each time.

use super::packer::{PAUSE_FIRST, PAUSE_MAX};
use redoubt_core::change::ResyncReason;
use redoubt_core::message::{HASH_BLOCK_SECTORS, HashReply, HashRequest};
use redoubt_core::receiver::SessionId;
use redoubt_core::{MachineId, VolumeIndex, WriteSeq};
use redoubt_vault::{MachineReader, PointView, ReadError, UnitMemory, Vault, VaultError};
use std::collections::VecDeque;
use std::ops::Range;
use tokio::sync::mpsc;

/// The digest of no content, as far as anybody can find one.
const MATCHES_NOTHING: [u8; 32] = [0; 32];

/// The actor's end of the task: a queue of questions, one of them at work.
pub(super) struct Hasher {
    waiting: VecDeque<(SessionId, HashRequest)>,
    questions: mpsc::Sender<(SessionId, HashRequest)>,
    answers: mpsc::Receiver<(SessionId, HashReply)>,
    task: tokio::task::JoinHandle<()>,
    is_busy: bool,
}

impl Drop for Hasher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Hasher {
    /// Starts the task; `memory` is what tasks before it read.
    pub(super) fn start(vault: Vault, machine: MachineId, memory: UnitMemory) -> Hasher {
        let (questions, question_queue) = mpsc::channel(1);
        let (answer_queue, answers) = mpsc::channel(1);
        let task = tokio::spawn(run(vault, machine, memory, question_queue, answer_queue));
        Hasher { waiting: VecDeque::new(), questions, answers, task, is_busy: false }
    }

    /// Queues a question; those of other sessions are forgotten. The receiver bounds their number.
    pub(super) fn ask(&mut self, session: SessionId, request: HashRequest) {
        self.waiting.retain(|(asker, _)| *asker == session);
        self.waiting.push_back((session, request));
        self.feed();
    }

    fn feed(&mut self) {
        if !self.is_busy
            && let Some(question) = self.waiting.pop_front()
        {
            self.is_busy = self.questions.try_send(question).is_ok();
        }
    }

    /// Returns the next answer and who asked. Waits for ever when nothing was asked.
    pub(super) async fn answer(&mut self) -> (SessionId, HashReply) {
        match self.answers.recv().await {
            Some(answer) => {
                self.is_busy = false;
                self.feed();
                answer
            }
            None => std::future::pending().await,
        }
    }
}

async fn run(
    vault: Vault,
    machine: MachineId,
    memory: UnitMemory,
    mut questions: mpsc::Receiver<(SessionId, HashRequest)>,
    answers: mpsc::Sender<(SessionId, HashReply)>,
) {
    let remembering = vault.clone().with_memory(&memory);
    let mut reader: Option<MachineReader> = None;
    let mut fresh = WriteSeq(0);
    while let Some((session, request)) = questions.recv().await {
        let mut pause = PAUSE_FIRST;
        let reply = loop {
            match answer((&vault, &remembering), machine, &mut reader, &mut fresh, &request).await {
                Ok(Some(reply)) => break reply,
                Ok(None) => tracing::debug!(%machine, "the vault does not show the sequence asked for yet"),
                Err(error) => tracing::warn!(%machine, %error, "cannot read the vault for a resync"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        };
        if answers.send((session, reply)).await.is_err() {
            return;
        }
    }
}

/// One attempt; `None` if the reader does not see far enough yet (HA-1). `fresh` is the begin of the newest requested
/// resync for which the reader was opened.
async fn answer(
    (vault, remembering): (&Vault, &Vault),
    machine: MachineId,
    slot: &mut Option<MachineReader>,
    fresh: &mut WriteSeq,
    request: &HashRequest,
) -> Result<Option<HashReply>, VaultError> {
    let reader = match slot.take() {
        Some(reader) => reader,
        None => MachineReader::open(remembering, machine).await?,
    };
    let mut reader = slot.insert(reader);
    if reader.head().position.seq < request.after {
        reader.refresh().await?;
    }
    if reader.head().resync == Some(ResyncReason::Requested) && *fresh < request.after {
        // HA-3: questions of one resync all ask for its begin.
        reader = slot.insert(MachineReader::open(vault, machine).await?);
        *fresh = request.after;
    }
    let as_of = reader.head().position.seq;
    if as_of < request.after {
        return Ok(None);
    }
    let view = reader.head_view();
    let first = request.extent.lba.0 / HASH_BLOCK_SECTORS;
    let blocks = hash(&view, request.volume, first..first + request.blocks()).await?;
    Ok(Some(HashReply { id: request.id, as_of, blocks }))
}

/// Hashes blocks; if some of them cannot be read, one by one, so that the others are spared. What the vault does not
/// know, a volume or blocks behind its end, reads as zeros.
async fn hash(
    view: &PointView,
    volume: VolumeIndex,
    blocks: Range<u64>,
) -> Result<Vec<Option<[u8; 32]>>, VaultError> {
    let count = blocks.end - blocks.start;
    let mut hashes = Vec::with_capacity(count as usize);
    match view.hash_blocks(volume, blocks.start, count).await {
        Err(ReadError::Damaged { .. } | ReadError::GivenUp { .. }) => {
            for block in blocks {
                hashes.extend(settle(view.hash_blocks(volume, block, 1).await)?);
            }
        }
        whole => hashes = settle(whole)?,
    }
    hashes.resize(count as usize, None);
    Ok(hashes)
}

/// What is answered for blocks that were read alone or together.
fn settle(read: Result<Vec<Option<[u8; 32]>>, ReadError>) -> Result<Vec<Option<[u8; 32]>>, VaultError> {
    match read {
        Ok(hashes) => Ok(hashes),
        Err(ReadError::Store(failure)) => Err(VaultError::Store(failure)),
        Err(ReadError::Damaged { object, from, to, what }) => {
            tracing::error!(
                object,
                from,
                to,
                what,
                "a unit of the vault is damaged; asking for its blocks again"
            );
            Ok(vec![Some(MATCHES_NOTHING)])
        }
        // The state compared with was folded meanwhile; the next question meets a newer one.
        Err(ReadError::GivenUp { .. }) => Ok(vec![Some(MATCHES_NOTHING)]),
        Err(ReadError::NoVolume(_) | ReadError::OutOfRange { .. } | ReadError::TooLarge(_)) => Ok(Vec::new()),
    }
}
