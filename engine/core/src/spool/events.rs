//! What the spool is told, and what it wants done.
//!
//! What is *not* here: who decides (the other parts of the spool).

use crate::ids::WriteSeq;
use crate::sealed::SealedBatch;
use bytes::Bytes;

/// Bounds of one spool.
#[derive(Clone, Copy, Debug)]
pub struct SpoolLimits {
    /// Bytes of batches held in memory before they spill, read-backs not counted.
    pub memory_bytes: u64,
    /// Bytes of all spill files together; 0 turns spilling off.
    pub spill_bytes: u64,
}

/// Where an entry lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SpillPlace {
    /// File number, used once in the life of a process.
    pub file: u64,
    /// Offset of the entry header, in bytes.
    pub offset: u64,
    /// Bytes of the sealed batch behind the entry header.
    pub bytes: u32,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum SpoolEvent {
    /// A batch was sealed. Answered by `Accepted` or `Refused`.
    Push(SealedBatch),
    /// Everything appended before this [`SpillWork::Sync`] is durable.
    SpillSynced {
        /// The number in the effect.
        ticket: u64,
    },
    /// The sync failed, or any work before it that was not a read (no space, device error).
    ///
    /// Comes instead of `SpillSynced`: one answer for each [`SpillWork::Sync`].
    SpillFailed {
        /// The number in the effect.
        ticket: u64,
    },
    /// A read-back came in; its checksum is right and it is the batch that was asked for.
    ReadDone {
        /// First sequence of the batch.
        first: WriteSeq,
        /// The sealed batch.
        bytes: Bytes,
    },
    /// A read-back failed or is not what was written: the stream cannot go on past it.
    ReadFailed {
        /// First sequence of the batch.
        first: WriteSeq,
    },
    /// Durable at the process server up to here.
    Staged(WriteSeq),
    /// Cumulative permits of this session, in bytes.
    Permits(u64),
    /// A session started; the caller settled the resume decision and sends what follows `after`.
    SessionUp {
        /// Staged position of the process server.
        after: WriteSeq,
        /// First permits, in bytes.
        permits_total: u64,
    },
    /// The session ended.
    SessionDown,
    /// A clean stop: everything in memory goes to disk.
    SpillAll,
}

/// Work on the spill files. The shell does it in order, one after the other. After a piece that failed,
/// what follows up to the next `Sync` is of no use: the answer to that `Sync` is `SpillFailed`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpillWork {
    /// Create the file and write its header.
    Create {
        /// File number.
        file: u64,
    },
    /// Write an entry.
    Append {
        /// Where.
        place: SpillPlace,
        /// The sealed batch.
        bytes: Bytes,
    },
    /// Sync all files appended to; answer with `SpillSynced` or `SpillFailed`.
    Sync {
        /// To be returned.
        ticket: u64,
    },
    /// Read an entry and check it; answer with `ReadDone` or `ReadFailed`.
    Read {
        /// Where.
        place: SpillPlace,
        /// First sequence of the batch.
        first: WriteSeq,
    },
    /// Remove a file whose batches are all staged. If it fails, only its space is lost: report it.
    Remove {
        /// File number.
        file: u64,
    },
}

/// What the caller does, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpoolEffect {
    /// The pushed batch is held.
    Accepted,
    /// The pushed batch is not held: mark its ranges dirty and stop pushing until `Drained`.
    Refused,
    /// Work on the spill files.
    Spill(SpillWork),
    /// Send the batch.
    Send(SealedBatch),
    /// The spool stops accepting: bitmap mode begins.
    Overflow,
    /// The spool is empty after an overflow: it accepts again, and the caller begins the resync.
    Drained,
    /// A held batch cannot be read back. The caller marks the ranges of everything from `first` on, calls
    /// [`super::Spool::abandon`] and begins a resync.
    Lost {
        /// First sequence held: batches before the unreadable one may not be staged yet either.
        first: WriteSeq,
    },
}
