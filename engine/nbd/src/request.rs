//! Requests: what each means, and which are legal.
//!
//! - RQ-1 Checks in this order: flags (`EINVAL`), read-only (`EPERM`), size of the payload
//!   (`EINVAL`), range (`ENOSPC` for what would add data, else `EINVAL`).
//! - RQ-2 A range is checked against the size that the caller read for this very request.

use crate::proto::{Errno, MAX_PAYLOAD_BYTES, REQUEST_BYTES, REQUEST_MAGIC, cmd, cmd_flag};
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// What limits requests right now, and what was agreed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Size of the export now, in bytes.
    pub size_bytes: u64,
    /// Whether every change is refused.
    pub read_only: bool,
    /// Whether trim is offered.
    pub can_trim: bool,
    /// Whether replies to reads are structured.
    pub structured: bool,
    /// Whether `base:allocation` was selected.
    pub allocation_context: bool,
}

/// A request as it is on the wire, without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Flags, see [`cmd_flag`].
    pub flags: u16,
    /// Command, see [`cmd`].
    pub command: u16,
    /// The client's own number for the request, sent back as it is.
    pub cookie: u64,
    /// First byte addressed.
    pub offset: u64,
    /// Bytes addressed.
    pub length: u32,
}

/// A legal request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The client's own number for it.
    pub cookie: u64,
    /// What is wanted.
    pub op: Op,
}

/// What a legal request wants. Ranges are inside the size; only `Read`, `Write`, `Trim`,
/// `WriteZeroes` and `Cache` may be empty.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "offset and length are bytes; the flags are explained at the variants")]
pub enum Op {
    /// Read; `one_piece`: do not fragment the answer.
    Read { offset: u64, length: u32, one_piece: bool },
    /// Write; `fua`: durable before the answer.
    Write { offset: u64, payload: Bytes, fua: bool },
    /// Make what was answered durable.
    Flush,
    /// The content is no longer wanted.
    Trim { offset: u64, length: u32, fua: bool },
    /// Make it read as zeros; `may_unmap`: holes are welcome; `fast_only`: fail if not fast.
    WriteZeroes { offset: u64, length: u32, fua: bool, may_unmap: bool, fast_only: bool },
    /// The content will be read soon.
    Cache { offset: u64, length: u32 },
    /// What is allocated; `one_piece`: the first part suffices.
    BlockStatus { offset: u64, length: u32, one_piece: bool },
}

impl Header {
    /// Reads a header; `None`: this is no request.
    pub fn parse(bytes: &[u8; REQUEST_BYTES]) -> Option<Header> {
        let mut rest = &bytes[..];
        if rest.get_u32() != REQUEST_MAGIC {
            return None;
        }
        Some(Header {
            flags: rest.get_u16(),
            command: rest.get_u16(),
            cookie: rest.get_u64(),
            offset: rest.get_u64(),
            length: rest.get_u32(),
        })
    }

    /// Writes the header.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u32(REQUEST_MAGIC);
        out.put_u16(self.flags);
        out.put_u16(self.command);
        out.put_u64(self.cookie);
        out.put_u64(self.offset);
        out.put_u32(self.length);
    }

    /// Returns the bytes of payload that follow the header, whether the request is legal or not.
    pub fn payload_bytes(&self) -> u32 {
        if self.command == cmd::WRITE { self.length } else { 0 }
    }

    /// Decides whether the request is legal (RQ-1); the payload is looked at later.
    pub fn check(&self, bounds: &Bounds) -> Result<(), Errno> {
        self.check_flags(bounds)?;
        let changes = matches!(self.command, cmd::WRITE | cmd::TRIM | cmd::WRITE_ZEROES);
        if changes && bounds.read_only {
            return Err(Errno::Perm);
        }
        match self.command {
            cmd::FLUSH => return Ok(()),
            cmd::TRIM if !bounds.can_trim => return Err(Errno::Inval),
            cmd::BLOCK_STATUS if !bounds.allocation_context || self.length == 0 => return Err(Errno::Inval),
            cmd::READ | cmd::WRITE if self.length > MAX_PAYLOAD_BYTES => return Err(Errno::Inval),
            _ => {}
        }
        let end = self.offset.checked_add(u64::from(self.length));
        if end.is_none_or(|end| end > bounds.size_bytes) {
            let adds = matches!(self.command, cmd::WRITE | cmd::WRITE_ZEROES);
            return Err(if adds { Errno::NoSpc } else { Errno::Inval });
        }
        Ok(())
    }

    fn check_flags(&self, bounds: &Bounds) -> Result<(), Errno> {
        let own = match self.command {
            cmd::READ if bounds.structured => cmd_flag::DF,
            cmd::WRITE_ZEROES => cmd_flag::NO_HOLE | cmd_flag::FAST_ZERO,
            cmd::BLOCK_STATUS => cmd_flag::REQ_ONE,
            cmd::READ | cmd::WRITE | cmd::FLUSH | cmd::TRIM | cmd::CACHE => 0,
            _ => return Err(Errno::Inval),
        };
        // FUA is legal on every command once offered, and ignored where nothing is written.
        if self.flags & !(own | cmd_flag::FUA) == 0 { Ok(()) } else { Err(Errno::Inval) }
    }

    /// Makes the request of a header that passed [`Header::check`].
    pub(crate) fn into_request(self, payload: Bytes) -> Request {
        let has = |bit: u16| self.flags & bit != 0;
        let (offset, length, fua) = (self.offset, self.length, has(cmd_flag::FUA));
        let op = match self.command {
            cmd::READ => Op::Read { offset, length, one_piece: has(cmd_flag::DF) },
            cmd::WRITE => Op::Write { offset, payload, fua },
            cmd::FLUSH => Op::Flush,
            cmd::TRIM => Op::Trim { offset, length, fua },
            cmd::WRITE_ZEROES => Op::WriteZeroes {
                offset,
                length,
                fua,
                may_unmap: !has(cmd_flag::NO_HOLE),
                fast_only: has(cmd_flag::FAST_ZERO),
            },
            cmd::CACHE => Op::Cache { offset, length },
            _ => Op::BlockStatus { offset, length, one_piece: has(cmd_flag::REQ_ONE) },
        };
        Request { cookie: self.cookie, op }
    }
}

impl Request {
    /// Returns the request as a client sends it; the payload of a write follows it.
    pub fn header(&self) -> Header {
        let bit = |on: bool, bit: u16| if on { bit } else { 0 };
        let (command, flags, offset, length) = match &self.op {
            Op::Read { offset, length, one_piece } => {
                (cmd::READ, bit(*one_piece, cmd_flag::DF), *offset, *length)
            }
            Op::Write { offset, payload, fua } => {
                let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
                (cmd::WRITE, bit(*fua, cmd_flag::FUA), *offset, length)
            }
            Op::Flush => (cmd::FLUSH, 0, 0, 0),
            Op::Trim { offset, length, fua } => (cmd::TRIM, bit(*fua, cmd_flag::FUA), *offset, *length),
            Op::WriteZeroes { offset, length, fua, may_unmap, fast_only } => {
                let flags = bit(*fua, cmd_flag::FUA)
                    | bit(!*may_unmap, cmd_flag::NO_HOLE)
                    | bit(*fast_only, cmd_flag::FAST_ZERO);
                (cmd::WRITE_ZEROES, flags, *offset, *length)
            }
            Op::Cache { offset, length } => (cmd::CACHE, 0, *offset, *length),
            Op::BlockStatus { offset, length, one_piece } => {
                (cmd::BLOCK_STATUS, bit(*one_piece, cmd_flag::REQ_ONE), *offset, *length)
            }
        };
        Header { flags, command, cookie: self.cookie, offset, length }
    }
}
