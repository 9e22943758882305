//! What the link is told, what it wants done, and where it can stand.
//!
//! What is *not* here: who decides (the link).

use crate::ids::BatchPosition;
use crate::message::{
    HashReply, HashRequest, Hello, MarksReply, MarksRequest, Message, RefusedReason, Welcome,
};
use crate::sealed::SealedBatch;
use crate::time::Instant;

/// Number of one connection; grows with every attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// What happened.
#[derive(Clone, Debug)]
pub enum LinkEvent {
    /// Begin, or begin again after a stop.
    Start,
    /// End the session and stay disconnected.
    Stop,
    /// Time passed; comes at or after [`super::Link::deadline`].
    Tick,
    /// The connection stands.
    Connected(ConnectionId),
    /// The attempt failed, or the connection broke, or its bytes were no frames.
    Broken(ConnectionId),
    /// A message arrived.
    Received(ConnectionId, Message),
    /// The caller filled in `Hello` (asked for by `SayHello`).
    HelloReady(Hello),
    /// The caller settled the resume decision (asked for by `Decide`). Then the spool gets `SessionUp`, and
    /// only after that are the effects of this step performed: one may be an `Acked` that raises permits.
    Resumed,
    /// The spool sends a batch.
    Send(SealedBatch),
    /// The resync asks for digests.
    Ask(HashRequest),
    /// The agent asks about its marks, or disowns them.
    AskMarks(MarksRequest),
}

/// What the shell does, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEffect {
    /// Connect to the endpoint of this ordinal in the configured list.
    Connect {
        /// Number for all events of this connection.
        connection: ConnectionId,
        /// Ordinal of the endpoint.
        endpoint: usize,
    },
    /// Close the connection; its later events are ignored.
    Close(ConnectionId),
    /// Answer with `HelloReady`: fields from the agent's state, proof by the key for this challenge.
    SayHello {
        /// The process server's nonce.
        challenge: [u8; 32],
    },
    /// Send a message.
    Transmit(ConnectionId, Message),
    /// Compare the staged position with what is held, act, then answer `Resumed`.
    Decide(Welcome),
    /// Durable watermarks and permits arrived.
    Acked {
        /// Durable at the process server.
        staged: BatchPosition,
        /// Durable in the vault.
        vaulted: BatchPosition,
        /// Cumulative permits.
        permits_total: u64,
    },
    /// Digests arrived.
    Hashes(HashReply),
    /// It is known what became of the marks.
    Marks(MarksReply),
    /// The streaming session ended; the spool gets `SessionDown`, open hash requests are asked again.
    SessionDown,
    /// The link stopped; nothing but a change helps.
    Stopped {
        /// Why.
        reason: RefusedReason,
        /// The process server's words.
        detail: String,
    },
}

/// Where the link stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// Not wanted.
    Disconnected,
    /// Waiting for a connection.
    Connecting,
    /// Waiting for the challenge or the welcome.
    Handshaking,
    /// Waiting for the caller's resume decision.
    Deciding,
    /// Batches flow.
    Streaming,
    /// Pausing until the instant.
    BackingOff(Instant),
    /// Refused for good.
    Stopped(RefusedReason),
}
