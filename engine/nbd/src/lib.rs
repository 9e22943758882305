//! The NBD protocol of a server, without IO: bytes in, bytes and requests out.
//!
//! Written from the public protocol text (`doc/proto.md` of the NBD project). It decides what a
//! client may negotiate, which requests are legal, and which errno an illegal one gets. It holds
//! no socket and no disk; `redoubt-roles` moves the bytes and asks the export.
//!
//! Rules
//! - NBD-1 No input makes it panic, and no input makes it hold more than one option
//!   ([`MAX_OPTION_BYTES`]) or one payload ([`MAX_PAYLOAD_BYTES`]).
//! - NBD-2 A request that is framed correctly is answered, never punished with a disconnect, except
//!   for a payload beyond [`MAX_DRAIN_BYTES`].
//! - NBD-3 Nothing is offered that the export did not say it has.
//! - NBD-4 A read is answered with structured pieces if, and only if, they were negotiated.
//!
//! Not here: TLS and 64-bit headers (both refused with `ERR_UNSUP`, so clients fall back).
#![forbid(unsafe_code)]

pub mod client;
pub mod handshake;
mod options;
pub mod proto;
pub mod reply;
pub mod request;
pub mod transmission;

pub use handshake::{ExportFacts, Handshake, Negotiated, Step};
pub use proto::{Errno, MAX_DRAIN_BYTES, MAX_OPTION_BYTES, MAX_PAYLOAD_BYTES, MAX_STRING_BYTES};
pub use reply::{BlockPiece, Outbox};
pub use request::{Bounds, Op, Request};
pub use transmission::{Incoming, ProtocolError, Transmission};
