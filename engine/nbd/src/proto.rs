//! Numbers of the protocol, and the limits chosen where the protocol leaves the choice.

/// First word of the server's greeting, `NBDMAGIC`.
pub const GREETING_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// Second word of the greeting and first word of every option, `IHAVEOPT`.
pub const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
/// First word of the reply to an option.
pub const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// First word of a request.
pub const REQUEST_MAGIC: u32 = 0x2560_9513;
/// First word of a simple reply.
pub const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
/// First word of a piece of a structured reply.
pub const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;

/// Bytes of a request's header.
pub const REQUEST_BYTES: usize = 28;
/// Bytes of an option's header.
pub const OPTION_BYTES: usize = 16;
/// Bytes of an option reply's header.
pub const OPTION_REPLY_BYTES: usize = 20;
/// Bytes of a simple reply's header.
pub const SIMPLE_REPLY_BYTES: usize = 16;
/// Bytes of a structured piece's header.
pub const STRUCTURED_REPLY_BYTES: usize = 20;

/// Largest payload of a write and largest read: what the protocol text recommends to accept.
pub const MAX_PAYLOAD_BYTES: u32 = 32 << 20;
/// Longest string (name, query, description), from the protocol text.
pub const MAX_STRING_BYTES: usize = 4096;
/// Longest option taken: a name and a dozen longest queries. A longer one is skipped and refused.
pub const MAX_OPTION_BYTES: u32 = 64 << 10;
/// Longest option or write payload that is read and thrown away to keep the connection. Beyond it
/// the client is not worth the bandwidth, and the connection ends.
pub const MAX_DRAIN_BYTES: u32 = 256 << 20;
/// Options of one handshake; `nbdinfo --list` needs two for each export.
pub const MAX_OPTIONS: u32 = 16 << 10;
/// Queries in one meta context option: far more than there are contexts.
pub const MAX_QUERIES: u32 = 1024;
/// Preferred size of requests, shown to clients: one page.
pub const PREFERRED_BLOCK_BYTES: u32 = 4096;

/// The only meta context served.
pub const BASE_ALLOCATION: &str = "base:allocation";
/// Its number after it was selected.
pub const BASE_ALLOCATION_ID: u32 = 1;
/// State flag of `base:allocation`: no space is allocated.
pub const STATE_HOLE: u32 = 1;
/// State flag of `base:allocation`: reads as zeros.
pub const STATE_ZERO: u32 = 2;

/// Handshake flags of the server and of the client (same bits).
pub mod flag {
    /// Fixed newstyle negotiation.
    pub const FIXED_NEWSTYLE: u16 = 1;
    /// No padding after the answer to `EXPORT_NAME`.
    pub const NO_ZEROES: u16 = 2;
}

/// Option numbers.
pub mod opt {
    #![allow(missing_docs, reason = "the names are the protocol's own")]
    pub const EXPORT_NAME: u32 = 1;
    pub const ABORT: u32 = 2;
    pub const LIST: u32 = 3;
    pub const STARTTLS: u32 = 5;
    pub const INFO: u32 = 6;
    pub const GO: u32 = 7;
    pub const STRUCTURED_REPLY: u32 = 8;
    pub const LIST_META_CONTEXT: u32 = 9;
    pub const SET_META_CONTEXT: u32 = 10;
    pub const EXTENDED_HEADERS: u32 = 11;
}

/// Types of replies to options.
pub mod rep {
    #![allow(missing_docs, reason = "the names are the protocol's own")]
    pub const ACK: u32 = 1;
    pub const SERVER: u32 = 2;
    pub const INFO: u32 = 3;
    pub const META_CONTEXT: u32 = 4;
    pub const ERR_UNSUP: u32 = 0x8000_0001;
    pub const ERR_INVALID: u32 = 0x8000_0003;
    pub const ERR_UNKNOWN: u32 = 0x8000_0006;
    pub const ERR_TOO_BIG: u32 = 0x8000_0009;
}

/// Kinds of information in answers to `INFO` and `GO`.
pub mod info {
    #![allow(missing_docs, reason = "the names are the protocol's own")]
    pub const EXPORT: u16 = 0;
    pub const NAME: u16 = 1;
    pub const DESCRIPTION: u16 = 2;
    pub const BLOCK_SIZE: u16 = 3;
}

/// Transmission flags: what an export offers.
pub mod tx {
    #![allow(missing_docs, reason = "the names are the protocol's own")]
    pub const HAS_FLAGS: u16 = 1;
    pub const READ_ONLY: u16 = 1 << 1;
    pub const SEND_FLUSH: u16 = 1 << 2;
    pub const SEND_FUA: u16 = 1 << 3;
    pub const SEND_TRIM: u16 = 1 << 5;
    pub const SEND_WRITE_ZEROES: u16 = 1 << 6;
    pub const SEND_DF: u16 = 1 << 7;
    pub const CAN_MULTI_CONN: u16 = 1 << 8;
    pub const SEND_CACHE: u16 = 1 << 10;
    pub const SEND_FAST_ZERO: u16 = 1 << 11;
}

/// Command numbers.
pub mod cmd {
    #![allow(missing_docs, reason = "the names are the protocol's own")]
    pub const READ: u16 = 0;
    pub const WRITE: u16 = 1;
    pub const DISC: u16 = 2;
    pub const FLUSH: u16 = 3;
    pub const TRIM: u16 = 4;
    pub const CACHE: u16 = 5;
    pub const WRITE_ZEROES: u16 = 6;
    pub const BLOCK_STATUS: u16 = 7;
}

/// Flags of a command.
pub mod cmd_flag {
    #![allow(missing_docs, reason = "the names are the protocol's own")]
    pub const FUA: u16 = 1;
    pub const NO_HOLE: u16 = 1 << 1;
    pub const DF: u16 = 1 << 2;
    pub const REQ_ONE: u16 = 1 << 3;
    pub const FAST_ZERO: u16 = 1 << 4;
}

/// Types of structured pieces.
pub mod piece {
    #![allow(missing_docs, reason = "the names are the protocol's own")]
    pub const NONE: u16 = 0;
    pub const OFFSET_DATA: u16 = 1;
    pub const OFFSET_HOLE: u16 = 2;
    pub const BLOCK_STATUS: u16 = 5;
    pub const ERROR: u16 = 32769;
    pub const ERROR_OFFSET: u16 = 32770;
    /// Flag: the last piece of the reply.
    pub const DONE: u16 = 1;
}

/// The eight errors that the protocol knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Errno {
    /// `EPERM`: the export is read-only.
    Perm = 1,
    /// `EIO`: the storage below failed.
    Io = 5,
    /// `ENOMEM`: the server is out of memory.
    NoMem = 12,
    /// `EINVAL`: the request makes no sense.
    Inval = 22,
    /// `ENOSPC`: the storage is full, or the write goes past the end.
    NoSpc = 28,
    /// `EOVERFLOW`: an unfragmented answer would be too big.
    Overflow = 75,
    /// `ENOTSUP`: not fast, though only fast was wanted.
    NotSup = 95,
    /// `ESHUTDOWN`: the server is going away.
    Shutdown = 108,
}

impl Errno {
    /// Returns the number on the wire.
    pub fn code(self) -> u32 {
        self as u32
    }

    /// Reads the number; a number outside the eight counts as `Inval`, as the protocol asks.
    pub fn from_code(code: u32) -> Errno {
        match code {
            1 => Errno::Perm,
            5 => Errno::Io,
            12 => Errno::NoMem,
            28 => Errno::NoSpc,
            75 => Errno::Overflow,
            95 => Errno::NotSup,
            108 => Errno::Shutdown,
            _ => Errno::Inval,
        }
    }
}
