//! What an agent and a process server say to each other, as values.
//!
//! Order of a session: `Challenge` (server), `Hello` (agent), `Welcome` or `Refused` (server), then
//! batches, acknowledgements, hash requests and pings until either side stops. `Bye` is a courtesy
//! that nobody relies on. The bytes are in `redoubt-wire`.

use crate::ids::{BatchPosition, Generation, MachineId, VolumeId, VolumeIndex, WriteSeq};
use crate::names::Names;
use crate::sealed::SealedBatch;
use crate::units::{Extent, Sectors};
use std::fmt;

/// Oldest and newest protocol version this build speaks.
pub const PROTOCOL_VERSIONS: Versions = Versions { min: 1, max: 1 };

/// Most volumes of one machine; bounds `Hello`.
pub const VOLUMES_MAX: usize = 256;

/// Most blocks one hash request may ask for (64 MiB of disk); bounds `HashReply`.
pub const HASH_BLOCKS_MAX: usize = 1024;

/// Sectors of one compared block (64 KiB).
pub const HASH_BLOCK_SECTORS: u64 = 128;

/// Longest explanation in a refusal.
pub const DETAIL_BYTES_MAX: usize = 512;

/// A range of protocol versions, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// Oldest.
    pub min: u16,
    /// Newest.
    pub max: u16,
}

impl Versions {
    /// Returns the newest version both sides speak.
    pub fn common(self, other: Versions) -> Option<u16> {
        let newest = self.max.min(other.max);
        (newest >= self.min.max(other.min)).then_some(newest)
    }
}

/// One volume as the agent declares it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeInfo {
    /// Ordinal in the stream.
    pub index: VolumeIndex,
    /// Lasting identity.
    pub id: VolumeId,
    /// Size.
    pub sectors: Sectors,
}

/// The agent's opening statement. The proof that it holds the stream key is added on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Protocol versions it speaks.
    pub versions: Versions,
    /// Who it is.
    pub machine: MachineId,
    /// The generation it writes in.
    pub generation: Generation,
    /// Its volumes.
    pub volumes: Vec<VolumeInfo>,
    /// What it and they are called.
    pub names: Names,
    /// First and last sequence in its spool, if it holds any batch.
    pub held: Option<(WriteSeq, WriteSeq)>,
    /// The end of its newest sealed batch.
    pub newest: BatchPosition,
    /// Keyed digest over the challenge and all fields above; zero until it is added on the wire.
    pub proof: [u8; 32],
}

/// The process server's acceptance of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// Durable in its stage or in the vault up to here.
    pub staged: BatchPosition,
    /// Durable in the vault up to here.
    pub vaulted: BatchPosition,
    /// Cumulative bytes of sealed batches the agent may send in this session.
    pub permits_total: u64,
    /// Whether the stream is exact at the staged position (no resync is open there).
    pub exact: bool,
}

/// Why a session or a batch is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum RefusedReason {
    /// A newer generation of this machine was seen; this agent must stop.
    OldGeneration = 1,
    /// The batch does not continue the staged history.
    Fork,
    /// The process server has no settings for this machine.
    UnknownMachine,
    /// No protocol version in common.
    Version,
    /// Cannot serve now; try again later.
    Busy,
    /// The vault was claimed by a newer writer; a new session claims it again.
    Fenced,
    /// The proof does not match: the agent has another stream key.
    WrongKey,
    /// The batch leaves out sequences.
    Gap,
    /// A message was malformed or out of place.
    Protocol,
    /// A newer session of the same machine took over.
    Replaced,
    /// The stage failed; try again later.
    StageFailed,
}

impl RefusedReason {
    /// Every reason.
    pub const ALL: [RefusedReason; 11] = [
        RefusedReason::OldGeneration,
        RefusedReason::Fork,
        RefusedReason::UnknownMachine,
        RefusedReason::Version,
        RefusedReason::Busy,
        RefusedReason::Fenced,
        RefusedReason::WrongKey,
        RefusedReason::Gap,
        RefusedReason::Protocol,
        RefusedReason::Replaced,
        RefusedReason::StageFailed,
    ];

    /// Tells whether trying again without a change by a person or by the caller can help.
    ///
    /// A gap and a fork are settled by the resume decision of the next session, so they count; so does a
    /// fenced process server, which claims the vault again for the next session.
    pub fn is_retryable(self) -> bool {
        !matches!(
            self,
            RefusedReason::OldGeneration
                | RefusedReason::UnknownMachine
                | RefusedReason::Version
                | RefusedReason::WrongKey
        )
    }
}

impl fmt::Display for RefusedReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RefusedReason::OldGeneration => "a newer generation of this machine was seen",
            RefusedReason::Fork => "the batch does not continue the staged history",
            RefusedReason::UnknownMachine => "the process server does not know this machine",
            RefusedReason::Version => "no protocol version in common",
            RefusedReason::Busy => "the process server cannot serve now",
            RefusedReason::Fenced => "a newer writer claimed the vault",
            RefusedReason::WrongKey => {
                "the stream key differs from the process server's: start the agent with a copy of the vault's key"
            }
            RefusedReason::Gap => "the batch leaves out sequences",
            RefusedReason::Protocol => "a message was malformed or out of place",
            RefusedReason::Replaced => "a newer session of this machine took over",
            RefusedReason::StageFailed => "the stage failed",
        })
    }
}

/// A question for the digests of the vault's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashRequest {
    /// Chosen by the agent, repeated in the reply.
    pub id: u64,
    /// Volume.
    pub volume: VolumeIndex,
    /// Sectors, starting at a multiple of [`HASH_BLOCK_SECTORS`]; at most [`HASH_BLOCKS_MAX`] blocks.
    pub extent: Extent,
    /// The answer must include everything up to this sequence.
    pub after: WriteSeq,
}

impl HashRequest {
    /// Returns the number of blocks asked for.
    pub fn blocks(&self) -> u64 {
        self.extent.sectors.0.div_ceil(HASH_BLOCK_SECTORS)
    }

    /// Tells whether the extent is aligned, non-empty and small enough.
    pub fn is_valid(&self) -> bool {
        self.extent.lba.0.is_multiple_of(HASH_BLOCK_SECTORS)
            && self.extent.lba.0.checked_add(self.extent.sectors.0).is_some()
            && (1..=HASH_BLOCKS_MAX as u64).contains(&self.blocks())
    }
}

/// The digests asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashReply {
    /// Id of the request.
    pub id: u64,
    /// The vault's content was taken at this sequence.
    pub as_of: WriteSeq,
    /// BLAKE3 of each block; `None` for a block that reads as zeros.
    pub blocks: Vec<Option<[u8; 32]>>,
}

/// A question about the marks of an agent's activity logs, or the statement that they are void.
///
/// Marks have a number, which grows each time the logs hold every mark again after they may not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarksRequest {
    /// The number of the marks.
    pub number: u64,
    /// Whether they are disowned: durably so before the reply.
    pub disown: bool,
}

/// What is known of an agent's marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarksReply {
    /// The number asked for.
    pub number: u64,
    /// Whether marks of this number, or of a later one, were disowned.
    pub is_disowned: bool,
}

/// One message of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// First word of the process server: a nonce for the agent's proof.
    Challenge([u8; 32]),
    /// First word of the agent.
    Hello(Hello),
    /// The session is accepted.
    Welcome(Welcome),
    /// The session ends.
    Refused {
        /// Why.
        reason: RefusedReason,
        /// More words for a person, at most [`DETAIL_BYTES_MAX`] bytes.
        detail: String,
    },
    /// A sealed batch.
    Batch(SealedBatch),
    /// Durable watermarks and permits.
    Ack {
        /// Durable in the stage or in the vault up to here.
        staged: BatchPosition,
        /// Durable in the vault up to here.
        vaulted: BatchPosition,
        /// Cumulative bytes the agent may send in this session.
        permits_total: u64,
    },
    /// Question about the vault's content.
    HashRequest(HashRequest),
    /// Answer about the vault's content.
    HashReply(HashReply),
    /// Question or statement about the marks of the agent's activity logs.
    MarksRequest(MarksRequest),
    /// Answer to it; none comes while the vault is away.
    MarksReply(MarksReply),
    /// Sign of life with a number to be returned.
    Ping(u64),
    /// The returned number.
    Pong(u64),
    /// The sender stops on purpose.
    Bye,
}
