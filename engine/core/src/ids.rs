//! Names and numbers that identify: machines, volumes, markers, positions in a stream.
//!
//! Invariants
//! - ID-1 A `WriteSeq` is never used twice in the life of a machine, across any crash.
//! - ID-2 A `Generation` only grows.
//! - ID-3 Equal `(seq, chain)` means equal history: the chain digests every byte before it.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub u128);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:032x})"), self.0)
            }
        }
    };
}

uuid_id! {
    /// Identity of a protected machine: the unit of ordering, of fencing and of recovery points.
    MachineId
}
uuid_id! {
    /// Identity of one volume, kept for its whole life whatever it is called.
    VolumeId
}
uuid_id! {
    /// Identity of a marker. The upper 48 bits are the wall time in milliseconds (as in a ULID),
    /// the rest is random; only equality and display rely on it.
    MarkerId
}

/// Ordinal of a volume within its machine; stable for the life of the machine's stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VolumeIndex(pub u16);

/// Total order of all changes of one machine, over all its volumes. Starts at 1; 0 means "none".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WriteSeq(pub u64);

impl WriteSeq {
    /// Returns the next sequence.
    pub fn next(self) -> WriteSeq {
        WriteSeq(self.0 + 1)
    }
}

impl fmt::Display for WriteSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Incarnation of the right to write a machine's stream; only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Generation(pub u64);

impl Generation {
    /// What an import writes in, before any agent: agents begin with 1.
    pub const SEED: Generation = Generation(0);
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// BLAKE3 digest over the whole stream up to a batch; see [`crate::change::Batch`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Chain(pub [u8; 32]);

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chain(")?;
        self.0[..6].iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, ")")
    }
}

/// The end of a batch in a machine's stream: everything up to and including `seq`, with its proof.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchPosition {
    /// Generation in which the last record was stamped.
    pub generation: Generation,
    /// Last sequence included; zero before the first.
    pub seq: WriteSeq,
    /// Chain digest at that sequence.
    pub chain: Chain,
}

/// No sequence and no generation ever gets here: at a million a second it takes 146,000 years. What a peer
/// says beyond it is a mistake or a lie, and is refused before arithmetic overflows.
pub const NUMBER_MAX: u64 = 1 << 62;

impl BatchPosition {
    /// Tells whether a stream can have such a position.
    pub fn is_possible(&self) -> bool {
        self.seq.0 <= NUMBER_MAX && self.generation.0 <= NUMBER_MAX
    }
}
