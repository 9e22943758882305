//! What can go wrong with a vault, by what the caller can do about it.

use crate::admission::StoreRule;
use redoubt_core::{MachineId, VolumeIndex, WriteSeq};
use redoubt_ports::StoreError;
use thiserror::Error;

/// A store operation that gave no usable answer within its deadline and retries.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("cannot {operation} {object} ({attempts} attempts): {last}")]
pub struct StoreFailure {
    /// What was tried.
    pub operation: &'static str,
    /// The object's name.
    pub object: String,
    /// How often it was tried.
    pub attempts: u32,
    /// The last answer.
    pub last: StoreError,
}

/// Why a vault, a writer or a reader could not be opened.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum VaultError {
    /// The store gave no answer; try again later.
    #[error(transparent)]
    Store(#[from] StoreFailure),
    /// There is no vault in this store; run `init`, or look at the address.
    #[error("there is no vault in this store")]
    NoVault,
    /// Somebody made a vault here before.
    #[error("there is a vault in this store already")]
    AlreadyInitialised,
    /// The key is none that this vault ever had. Nothing was changed.
    #[error("wrong vault key: it is no key of this vault")]
    WrongKey,
    /// A re-wrap to this vault key was begun; until it has finished, the key before opens everything.
    #[error("vault key {0} is not in force yet: the re-wrap to it has not finished")]
    KeyNotInForce(u32),
    /// The vault was wrapped under a newer key since; use that one.
    #[error("vault key {number} was replaced by vault key {newest}: {what}")]
    KeyReplaced {
        /// The key in use.
        number: u32,
        /// The one to use.
        newest: u32,
        /// What needs it.
        what: String,
    },
    /// A data key was made for an older vault key and never came into use.
    #[error("data key {id} of machine {machine} is wrapped by vault key {by} only, which was replaced")]
    KeyOutdated {
        /// Whose key.
        machine: MachineId,
        /// Number of the data key.
        id: u32,
        /// Number of the vault key.
        by: u32,
    },
    /// A re-wrap to another key was begun before and has not finished.
    #[error("a re-wrap to another key, vault key {0}, was begun and has not finished")]
    RewrapUnderWay(u32),
    /// A key is taken once only, so that a number says which key it is.
    #[error("this key is vault key {0} already")]
    KeyUsedBefore(u32),
    /// A newer, incompatible format.
    #[error("{object} has format {major}.x, this program knows {known}.x: use a newer program")]
    UnknownMajor {
        /// Which object.
        object: String,
        /// What it says.
        major: u16,
        /// What this program knows.
        known: u16,
    },
    /// The vault requires features that this program does not know.
    #[error("the vault requires unknown features {0:#x}: use a newer program")]
    UnknownFeature(u64),
    /// The store does not keep the promises the protocol is built on; use another one.
    #[error("this store cannot hold a vault: it breaks the rule that {rule}: {found}")]
    NotAdmitted {
        /// The first rule that it broke.
        rule: StoreRule,
        /// What was seen.
        found: String,
    },
    /// What the store held a moment ago is not there, and what is put now stays: its content is another, or it loses
    /// objects. See who restores it, then try again.
    #[error(
        "{object} was put into the store a moment ago and is not there any more, while what is put now stays: \
         another copy of the vault took its place just now, or the store loses objects"
    )]
    WentAway {
        /// The object's name.
        object: String,
    },
    /// An object is missing, damaged or not where it belongs.
    #[error("{object} is damaged: {what}")]
    Damaged {
        /// The object's name.
        object: String,
        /// What is wrong with it.
        what: String,
    },
    /// Nobody ever wrote this machine here.
    #[error("machine {0} is not in this vault")]
    UnknownMachine(MachineId),
    /// A newer writer has claimed the machine; stop and do not acknowledge anything.
    #[error("a newer writer (epoch {by}) has claimed the machine")]
    Fenced {
        /// The newer claim.
        by: u64,
    },
    /// A newer maintainer has claimed the machine: it does what is to be done; stop.
    #[error("a newer maintainer (epoch {by}) has claimed the machine")]
    Superseded {
        /// The newer claim.
        by: u64,
    },
    /// Others took every claim number we tried; try again later.
    #[error("too many claims race for the machine")]
    ClaimRace,
    /// No such recovery point.
    #[error("there is no recovery point {slot}.{ordinal}")]
    NoPoint {
        /// Log slot asked for.
        slot: u64,
        /// Ordinal asked for.
        ordinal: u16,
    },
}

impl VaultError {
    pub(crate) fn damaged(object: impl ToString, what: impl ToString) -> VaultError {
        VaultError::Damaged { object: object.to_string(), what: what.to_string() }
    }
}

/// Why a commit was not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CommitError {
    /// A newer writer owns the machine: drop this writer, acknowledge nothing.
    #[error("a newer writer (epoch {by}) has claimed the machine")]
    Fenced {
        /// The newer epoch.
        by: u64,
    },
    /// What this writer's newest slot rests on is gone, or another's: an old copy took the vault's place, or the store
    /// lost it. Drop this writer, acknowledge nothing; who claims anew sees what there is.
    #[error(
        "{gone} is not in the vault any more: the vault was restored from an old copy, or lost objects{}",
        told(behind)
    )]
    WentBack {
        /// The name of the slot, or of the segment.
        gone: String,
        /// A slot that was put behind the gap and is acknowledged nowhere.
        behind: Option<String>,
    },
    /// The store gave no answer. Deliver the same records again to the same writer (or to a new
    /// one); what had landed is recognised by its position.
    #[error("retry: {0}")]
    Retry(StoreFailure),
    /// The store has no room: show it, make room, then deliver the same records again to the same
    /// writer. Nothing is lost and nothing was acknowledged.
    #[error("the store is full: {0}")]
    StoreFull(StoreFailure),
    /// The store does not let us: show it, mend credentials or policy, then deliver the same again.
    #[error("the store refuses: {0}")]
    Denied(StoreFailure),
    /// Records are missing: deliver from `expected` on.
    #[error("sequence {found} follows {after}; records are missing")]
    Gap {
        /// Last sequence before the gap.
        after: WriteSeq,
        /// Sequence found.
        found: WriteSeq,
    },
    /// The records do not belong to the history that the vault holds: a resync is needed.
    #[error("the stream and the vault hold different histories at sequence {0}")]
    Fork(WriteSeq),
    /// A record that no correct source sends.
    #[error("record {seq} is illegal: {why}")]
    BadRecord {
        /// Which record.
        seq: WriteSeq,
        /// What is wrong.
        why: &'static str,
    },
    /// Too many markers or bytes for one commit: deliver fewer batches at once.
    #[error("a commit may have at most {limit} {what}")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
}

fn told(behind: &Option<String>) -> String {
    let Some(behind) = behind else { return String::new() };
    format!(
        "; {behind} was put behind the gap, acknowledged by nobody: delete it, or nobody can write this log"
    )
}

impl From<StoreFailure> for CommitError {
    fn from(failure: StoreFailure) -> CommitError {
        match failure.last {
            StoreError::NoSpace => CommitError::StoreFull(failure),
            StoreError::Denied(_) => CommitError::Denied(failure),
            _ => CommitError::Retry(failure),
        }
    }
}

/// Why a read failed. Never retried into wrong or stale bytes.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReadError {
    /// The store gave no answer; try again.
    #[error(transparent)]
    Store(#[from] StoreFailure),
    /// The stored bytes are missing or damaged; the range cannot be read from this vault.
    #[error("{object} bytes {from}..{to}: {what}")]
    Damaged {
        /// Object's name.
        object: String,
        /// First byte of the damaged unit in the object.
        from: u64,
        /// Byte after it.
        to: u64,
        /// What is wrong.
        what: String,
    },
    /// The point, or state, is no recovery point any more and its stretch of the log was folded: what is left would
    /// show a mixture. Use a point that is listed.
    #[error("the state after slot {slot} was given up by retention: use a point that is listed")]
    GivenUp {
        /// Log slot of the state asked for.
        slot: u64,
    },
    /// No such volume at this point.
    #[error("volume {0:?} does not exist at this point")]
    NoVolume(VolumeIndex),
    /// The extent ends beyond the volume's size at this point.
    #[error("the extent ends at sector {end}, the volume has {size}")]
    OutOfRange {
        /// End asked for.
        end: u64,
        /// Size at this point.
        size: u64,
    },
    /// One read is bounded by [`crate::reader::READ_BYTES_MAX`].
    #[error("a read may have at most {0} bytes")]
    TooLarge(u64),
}
