//! The recovery vault: format, writer and reader over any [`redoubt_ports::RawStore`].
//!
//! One commit log per machine: put-if-absent slots, dense writer claims as fencing tokens, immutable
//! segments of sealed 64 KiB units, records chained by BLAKE3. Beside it a maintainer keeps a catalogue, and an index
//! that says the same by place: a reader loads of it what a read needs, and serves any point by address. A scrub
//! reads all of it and says what damage costs. The bytes are in `engine/docs/vault-format.md`.
//!
//! What is *not* here: roles, links, real stores.
#![forbid(unsafe_code)]

mod admission;
mod avoid;
mod chain;
mod changed;
mod claims;
mod codec;
mod early;
pub mod error;
mod flights;
mod fold;
#[cfg(test)]
mod format_tests;
mod index;
pub mod inspect;
mod key_ring;
pub mod keys;
mod load;
pub mod log;
mod lru;
pub mod maintainer;
mod marks;
pub mod mem;
mod names;
mod near;
mod opening;
mod pack;
pub mod pins;
pub mod prepare;
pub mod reader;
pub mod rewrap;
pub mod scrub;
mod sealing;
pub mod seed;
mod segment;
mod shrink;
pub mod space;
mod store;
mod twice;
mod units;
pub mod vault;
pub mod vault_keys;
pub mod view;
mod whole;
pub mod writer;

pub use admission::StoreRule;
pub use claims::ClaimWatch;
pub use error::{CommitError, ReadError, StoreFailure, VaultError};
pub use keys::VaultKeys;
pub use log::{HeadState, VolumeInfo, Volumes};
pub use maintainer::{INDEX_ENTRIES, INDEX_SLOTS, Maintainer, MaintainerSettings, Times};
pub use mem::MemStore;
pub use near::{PartId, SealedCache};
pub use pins::Pin;
pub use prepare::{Prepared, Preparer};
pub use reader::{MachineReader, PointId, PointInfo};
pub use rewrap::{Retired, Rewrapped};
pub use sealing::DataKeyInfo;
pub use seed::{Seed, SeedDisk, SeedError, Seeded};
pub use space::{Held, Space};
pub use units::UnitMemory;
pub use vault::Vault;
pub use vault_keys::VaultKeyInfo;
pub use view::PointView;
pub use writer::{CommitDone, MachineWriter, Naming, WriterSettings};
