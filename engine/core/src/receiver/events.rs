//! What the receiver is told, and what it wants done.
//!
//! What is *not* here: who decides (the other parts of the receiver).

use crate::ids::{BatchPosition, Generation, WriteSeq};
use crate::message::{HashReply, HashRequest, Hello, MarksReply, MarksRequest, Message};
use crate::sealed::{SealedBatch, SealedMeta};
use std::time::Duration;

/// Bounds of one machine's stage and when it is committed.
#[derive(Clone, Copy, Debug)]
pub struct ReceiverLimits {
    /// Bytes of batches that are accepted and not in the vault; the permits' bound.
    pub stage_bytes: u64,
    /// A commit starts when this much waits for one, and holds no more unless one batch does.
    pub commit_bytes: u64,
    /// A commit starts when something waited this long.
    pub commit_after: Duration,
}

impl Default for ReceiverLimits {
    fn default() -> ReceiverLimits {
        ReceiverLimits { stage_bytes: 1 << 30, commit_bytes: 32 << 20, commit_after: Duration::from_secs(5) }
    }
}

/// Number of a session; the shell gives each accepted connection a new, larger one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// What a restart found.
#[derive(Clone, Debug, Default)]
pub struct ReceiverState {
    /// Highest generation ever seen; durable.
    pub generation: Generation,
    /// Durable in the vault.
    pub vaulted: BatchPosition,
    /// In the stage above `vaulted`, in order, as scanned. The shell syncs the files it scanned first: what a
    /// crashed process wrote may be in the page cache only, and all of this counts as durable.
    pub staged: Vec<SealedMeta>,
    /// Whether the stream is exact at the end of what is staged.
    pub exact: bool,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum ReceiverEvent {
    /// A connection said `Hello`; the shell verified the proof.
    Hello {
        /// The new session.
        session: SessionId,
        /// What it said.
        hello: Hello,
        /// Whether the proof is right.
        proven: bool,
    },
    /// A message of a session after its `Hello`.
    Received(SessionId, Message),
    /// The connection ended.
    Gone(SessionId),
    /// The generation of `PersistGeneration` is durable.
    GenerationPersisted(Generation),
    /// All appends before this `StageSync` are durable.
    StageSynced {
        /// The number in the effect.
        ticket: u64,
    },
    /// An append, a sync or the generation's write failed: what is durable is unknown.
    StageFailed,
    /// Everything up to the position is in the vault.
    CommitDone {
        /// Last batch committed.
        vaulted: BatchPosition,
    },
    /// The commit failed and may be tried again.
    CommitFailed,
    /// The vault was claimed by a newer writer. This receiver never serves again (RC-7).
    Fenced,
    /// The packer opened everything up to here; tells whether the stream is exact at the end.
    Exact(bool),
    /// Digests were computed.
    Hashed(HashReply),
    /// A question about marks that this session asked has its answer.
    MarksTold(SessionId, MarksReply),
    /// Time passed; comes at or after [`Receiver::deadline`].
    Tick,
}

/// What the shell does, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReceiverEffect {
    /// Send a message.
    Transmit(SessionId, Message),
    /// Close the connection after what was transmitted.
    Close(SessionId),
    /// Make the generation durable; answer `GenerationPersisted`.
    PersistGeneration(Generation),
    /// Append the batch to the stage.
    StageAppend(SealedBatch),
    /// Sync the stage; answer `StageSynced` or `StageFailed`.
    StageSync {
        /// To be returned.
        ticket: u64,
    },
    /// Batches up to here are in the vault: remove stage files that hold nothing newer.
    StageTrim {
        /// Last sequence not needed any more.
        through: WriteSeq,
    },
    /// Commit staged batches up to here to the vault, behind those of the commits in flight; answer `CommitDone`,
    /// in their order, `CommitFailed` for all of them, or `Fenced`.
    Commit {
        /// Last batch to commit.
        through: BatchPosition,
    },
    /// A batch that opens a resync does not continue the accepted history: report it. Nothing before it
    /// is taken back.
    HistoryReplaced {
        /// The newest accepted position until then.
        at: BatchPosition,
        /// The batch that replaces what would have followed.
        by: SealedMeta,
    },
    /// Compute digests of the vault's content, which includes `after` now; answer `Hashed`.
    Hash(HashRequest),
    /// Look into the vault for disowned marks, or disown them there durably; answer `MarksTold`, or nothing
    /// if the vault is away: the agent asks again. A newer question takes the place of an older one.
    LookAtMarks(SessionId, MarksRequest),
    /// The stage failed: stop, scan it again and make a new receiver of what is found.
    Restart,
    /// The agent came to a fenced receiver (RC-7): stop, claim the log again, and hand this session's `Hello`
    /// to the receiver made of what is found.
    ClaimAgain(SessionId),
}
