//! Bytes between roles: sealed batches, frames, and the one place that encrypts.
//!
//! What is *not* here: sockets (`redoubt-ports`), who says what when (`redoubt-core`), the vault's own
//! formats (`redoubt-vault`, which uses [`aead`] as well).
#![forbid(unsafe_code)]

pub mod aead;
pub mod frame;
pub mod message;
mod reader;
pub mod record;
pub mod sealed;

pub use aead::{Key, Opener, StreamKey, StreamKeyId};
pub use frame::{Decoder, FrameError, encode};
pub use message::{MessageError, prove, verify};
pub use redoubt_core::message::Message;
pub use redoubt_core::sealed::{SealedBatch, SealedFlags, SealedMeta};
pub use sealed::{SealError, key_of, open, peek, seal};
