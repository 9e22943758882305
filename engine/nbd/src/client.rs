//! The client's half of the codec: for tests, and for guests in the lab that speak NBD.
//!
//! It trusts nothing either: a reply that it cannot read is an error, never a panic. It knows no
//! TLS and no 64-bit headers.

use crate::proto::{
    Errno, OPTION_MAGIC, OPTION_REPLY_BYTES, OPTION_REPLY_MAGIC, SIMPLE_REPLY_BYTES, SIMPLE_REPLY_MAGIC,
    STRUCTURED_REPLY_BYTES, STRUCTURED_REPLY_MAGIC, piece,
};
use crate::request::{Op, Request};
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Longest reply or option reply that is believed.
const MAX_REPLY_BYTES: usize = 64 << 20;

/// The server sent something that is no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no NBD reply: {0}")]
pub struct ReplyError(pub &'static str);

/// A reply to an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionReply {
    /// The option that it answers.
    pub option: u32,
    /// Its type, see [`crate::proto::rep`].
    pub kind: u32,
    /// Its content.
    pub body: Bytes,
}

/// A simple reply, or a piece of a structured one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The request that it answers.
    pub cookie: u64,
    /// Whether it is the last one for this request.
    pub done: bool,
    /// What it says.
    pub body: ReplyBody,
}

/// What a reply says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplyBody {
    /// Simple reply, with the payload if it answers a read.
    Simple(Result<Bytes, Errno>),
    /// Nothing more.
    None,
    /// Content from a byte offset.
    Data(u64, Bytes),
    /// Zeros: offset and length.
    Hole(u64, u32),
    /// Meta context, then parts of length and flags.
    BlockStatus(u32, Vec<(u32, u32)>),
    /// Error with its text, and where it happened if known.
    Error(Errno, String, Option<u64>),
}

/// Writes an option.
pub fn encode_option(out: &mut BytesMut, option: u32, body: &[u8]) {
    out.put_u64(OPTION_MAGIC);
    out.put_u32(option);
    out.put_u32(u32::try_from(body.len()).unwrap_or(u32::MAX));
    out.put_slice(body);
}

/// Returns the body of `INFO` and `GO`.
pub fn info_body(name: &str, wanted: &[u16]) -> BytesMut {
    let mut body = BytesMut::new();
    put_string(&mut body, name);
    body.put_u16(u16::try_from(wanted.len()).unwrap_or(0));
    wanted.iter().for_each(|kind| body.put_u16(*kind));
    body
}

/// Returns the body of `LIST_META_CONTEXT` and `SET_META_CONTEXT`.
pub fn meta_body(name: &str, queries: &[&str]) -> BytesMut {
    let mut body = BytesMut::new();
    put_string(&mut body, name);
    body.put_u32(u32::try_from(queries.len()).unwrap_or(0));
    queries.iter().for_each(|query| put_string(&mut body, query));
    body
}

fn put_string(out: &mut BytesMut, text: &str) {
    out.put_u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
    out.put_slice(text.as_bytes());
}

/// Writes a request, with the payload if it is a write.
pub fn encode_request(out: &mut BytesMut, request: &Request) {
    request.header().encode(out);
    if let Op::Write { payload, .. } = &request.op {
        out.put_slice(payload);
    }
}

/// Takes a reply to an option from the input; `None`: more input is needed.
pub fn parse_option_reply(input: &mut BytesMut) -> Result<Option<OptionReply>, ReplyError> {
    if input.len() < OPTION_REPLY_BYTES {
        return Ok(None);
    }
    let mut header = &input[..OPTION_REPLY_BYTES];
    if header.get_u64() != OPTION_REPLY_MAGIC {
        return Err(ReplyError("wrong magic of an option reply"));
    }
    let (option, kind, length) = (header.get_u32(), header.get_u32(), header.get_u32() as usize);
    if length > MAX_REPLY_BYTES {
        return Err(ReplyError("the option reply is too long"));
    }
    if input.len() < OPTION_REPLY_BYTES + length {
        return Ok(None);
    }
    input.advance(OPTION_REPLY_BYTES);
    Ok(Some(OptionReply { option, kind, body: input.split_to(length).freeze() }))
}

/// Takes a reply from the input; `None`: more input is needed. `read_bytes` tells how much payload
/// follows a simple reply without error to this cookie (0 unless it was a read).
pub fn parse_reply(
    input: &mut BytesMut,
    read_bytes: impl FnOnce(u64) -> usize,
) -> Result<Option<Reply>, ReplyError> {
    let Some(magic) = input.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes)) else {
        return Ok(None);
    };
    match magic {
        SIMPLE_REPLY_MAGIC => Ok(parse_simple(input, read_bytes)),
        STRUCTURED_REPLY_MAGIC => parse_structured(input),
        _ => Err(ReplyError("wrong magic of a reply")),
    }
}

fn parse_simple(input: &mut BytesMut, read_bytes: impl FnOnce(u64) -> usize) -> Option<Reply> {
    if input.len() < SIMPLE_REPLY_BYTES {
        return None;
    }
    let mut header = &input[4..SIMPLE_REPLY_BYTES];
    let (code, cookie) = (header.get_u32(), header.get_u64());
    let length = if code == 0 { read_bytes(cookie) } else { 0 };
    if input.len() < SIMPLE_REPLY_BYTES + length {
        return None;
    }
    input.advance(SIMPLE_REPLY_BYTES);
    let payload = input.split_to(length).freeze();
    let result = if code == 0 { Ok(payload) } else { Err(Errno::from_code(code)) };
    Some(Reply { cookie, done: true, body: ReplyBody::Simple(result) })
}

fn parse_structured(input: &mut BytesMut) -> Result<Option<Reply>, ReplyError> {
    if input.len() < STRUCTURED_REPLY_BYTES {
        return Ok(None);
    }
    let mut header = &input[4..STRUCTURED_REPLY_BYTES];
    let (flags, kind) = (header.get_u16(), header.get_u16());
    let (cookie, length) = (header.get_u64(), header.get_u32() as usize);
    if length > MAX_REPLY_BYTES {
        return Err(ReplyError("the reply is too long"));
    }
    if input.len() < STRUCTURED_REPLY_BYTES + length {
        return Ok(None);
    }
    input.advance(STRUCTURED_REPLY_BYTES);
    let body = parse_piece(kind, input.split_to(length).freeze()).ok_or(ReplyError("a malformed piece"))?;
    Ok(Some(Reply { cookie, done: flags & piece::DONE != 0, body }))
}

fn parse_piece(kind: u16, mut body: Bytes) -> Option<ReplyBody> {
    let parsed = match kind {
        piece::NONE => ReplyBody::None,
        piece::OFFSET_DATA => {
            let offset = body.try_get_u64().ok()?;
            ReplyBody::Data(offset, std::mem::take(&mut body))
        }
        piece::OFFSET_HOLE => ReplyBody::Hole(body.try_get_u64().ok()?, body.try_get_u32().ok()?),
        piece::BLOCK_STATUS => {
            let context = body.try_get_u32().ok()?;
            let mut parts = Vec::new();
            while body.len() >= 8 {
                parts.push((body.get_u32(), body.get_u32()));
            }
            ReplyBody::BlockStatus(context, parts)
        }
        piece::ERROR | piece::ERROR_OFFSET => {
            let errno = Errno::from_code(body.try_get_u32().ok()?);
            let length = usize::from(body.try_get_u16().ok()?);
            if length > body.len() {
                return None;
            }
            let text = String::from_utf8_lossy(&body.split_to(length)).into_owned();
            let at = if kind == piece::ERROR_OFFSET { Some(body.try_get_u64().ok()?) } else { None };
            ReplyBody::Error(errno, text, at)
        }
        _ => return None,
    };
    body.is_empty().then_some(parsed)
}
