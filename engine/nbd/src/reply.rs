//! Replies, gathered for as few writes to the socket as possible.
//!
//! - RP-1 Bytes leave in the order in which replies were added; a reply's pieces stay together.
//! - RP-2 Only the last piece of a structured reply says `DONE`.
//! - RP-3 A payload longer than [`COPY_BYTES`] is sent from where it is; shorter ones are copied
//!   next to their header, which is cheaper than another element in a vectored write.

use crate::proto::{
    BASE_ALLOCATION_ID, Errno, SIMPLE_REPLY_MAGIC, STATE_HOLE, STATE_ZERO, STRUCTURED_REPLY_MAGIC, piece,
};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::collections::VecDeque;
use std::io::IoSlice;

/// Longest payload that is copied: two pages.
pub const COPY_BYTES: usize = 8 << 10;
/// Shortest run of zeros that is sent as a hole, and the step in which it is looked for.
pub const HOLE_BYTES: usize = 32 << 10;
/// Most parts in the answer to one block status request, to bound the reply.
pub const MAX_STATUS_PARTS: usize = 16 << 10;
/// Longest text in an error piece.
const MAX_MESSAGE_BYTES: usize = 1024;

/// A part of the answer to a block status request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockPiece {
    /// Length in bytes, not zero.
    pub length: u64,
    /// No space is allocated.
    pub is_hole: bool,
    /// Reads as zeros.
    pub is_zero: bool,
}

/// Replies that wait to be sent.
#[derive(Debug, Default)]
pub struct Outbox {
    parts: VecDeque<Bytes>,
    tail: BytesMut,
    parts_bytes: usize,
}

impl Outbox {
    /// Makes an empty box.
    pub fn new() -> Outbox {
        Outbox::default()
    }

    /// Returns the bytes that wait.
    pub fn len(&self) -> usize {
        self.parts_bytes + self.tail.len()
    }

    /// Tells whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the buffer behind everything that waits, for the handshake's answers.
    pub fn tail(&mut self) -> &mut BytesMut {
        &mut self.tail
    }

    /// Fills the slices with what is to be sent first; returns how many were filled.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let waiting = self.parts.iter().map(|part| &part[..]).chain(std::iter::once(&self.tail[..]));
        let mut count = 0;
        for (slot, part) in slices.iter_mut().zip(waiting.filter(|part| !part.is_empty())) {
            *slot = IoSlice::new(part);
            count += 1;
        }
        count
    }

    /// Forgets the first bytes, because they were sent.
    pub fn advance(&mut self, mut sent: usize) {
        debug_assert!(sent <= self.len(), "RP-1: more was sent than waits");
        while sent > 0 {
            let Some(first) = self.parts.front_mut() else { break };
            let here = sent.min(first.len());
            first.advance(here);
            self.parts_bytes -= here;
            sent -= here;
            if first.is_empty() {
                self.parts.pop_front();
            }
        }
        if sent > 0 {
            self.tail.advance(sent);
        }
        if self.tail.is_empty() {
            self.tail.clear();
        }
    }

    /// Answers a request without content.
    pub fn done(&mut self, cookie: u64) {
        self.simple(cookie, 0);
    }

    /// Answers a request with an error. Reads must say whether replies are structured.
    pub fn failed(&mut self, cookie: u64, errno: Errno, structured: bool, message: &str) {
        if !structured {
            self.simple(cookie, errno.code());
            return;
        }
        let message = cut(message);
        self.header(cookie, piece::ERROR, piece::DONE, 6 + message.len());
        self.tail.put_u32(errno.code());
        self.tail.put_u16(u16::try_from(message.len()).unwrap_or(0));
        self.tail.put_slice(message.as_bytes());
    }

    /// Answers a structured read that failed at a known byte.
    pub fn failed_at(&mut self, cookie: u64, errno: Errno, offset: u64, message: &str) {
        let message = cut(message);
        self.header(cookie, piece::ERROR_OFFSET, piece::DONE, 14 + message.len());
        self.tail.put_u32(errno.code());
        self.tail.put_u16(u16::try_from(message.len()).unwrap_or(0));
        self.tail.put_slice(message.as_bytes());
        self.tail.put_u64(offset);
    }

    /// Answers a read with a simple reply.
    pub fn read_simple(&mut self, cookie: u64, payload: Bytes) {
        self.simple(cookie, 0);
        self.payload(payload);
    }

    /// Answers a read with structured pieces; long runs of zeros become holes unless `one_piece`.
    pub fn read_structured(&mut self, cookie: u64, offset: u64, payload: Bytes, one_piece: bool) {
        if payload.is_empty() {
            self.header(cookie, piece::NONE, piece::DONE, 0);
            return;
        }
        let runs = if one_piece { Vec::new() } else { zero_runs(&payload) };
        let mut at = 0;
        for (start, end) in runs {
            if at < start {
                self.data(cookie, 0, offset + at as u64, payload.slice(at..start));
            }
            let done = if end == payload.len() { piece::DONE } else { 0 };
            self.header(cookie, piece::OFFSET_HOLE, done, 12);
            self.tail.put_u64(offset + start as u64);
            self.tail.put_u32(u32::try_from(end - start).unwrap_or(u32::MAX));
            at = end;
        }
        if at < payload.len() {
            self.data(cookie, piece::DONE, offset + at as u64, payload.slice(at..));
        }
    }

    /// Answers a block status request of `length` bytes: cuts what goes beyond (but lets a single
    /// part be shorter), merges equal neighbours, and keeps only the first part if asked.
    pub fn block_status(&mut self, cookie: u64, length: u32, parts: &[BlockPiece], one_piece: bool) {
        let parts = tidy_status(length, parts, one_piece);
        self.header(cookie, piece::BLOCK_STATUS, piece::DONE, 4 + 8 * parts.len());
        self.tail.put_u32(BASE_ALLOCATION_ID);
        for (length, flags) in parts {
            self.tail.put_u32(length);
            self.tail.put_u32(flags);
        }
    }

    fn simple(&mut self, cookie: u64, code: u32) {
        let mut header = [0; 16];
        header[..4].copy_from_slice(&SIMPLE_REPLY_MAGIC.to_be_bytes());
        header[4..8].copy_from_slice(&code.to_be_bytes());
        header[8..].copy_from_slice(&cookie.to_be_bytes());
        self.tail.put_slice(&header);
    }

    fn header(&mut self, cookie: u64, kind: u16, flags: u16, length: usize) {
        self.tail.put_u32(STRUCTURED_REPLY_MAGIC);
        self.tail.put_u16(flags);
        self.tail.put_u16(kind);
        self.tail.put_u64(cookie);
        self.tail.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    }

    fn data(&mut self, cookie: u64, flags: u16, offset: u64, payload: Bytes) {
        self.header(cookie, piece::OFFSET_DATA, flags, 8 + payload.len());
        self.tail.put_u64(offset);
        self.payload(payload);
    }

    fn payload(&mut self, payload: Bytes) {
        if payload.len() <= COPY_BYTES {
            self.tail.put_slice(&payload);
            return;
        }
        let headers = self.tail.split().freeze();
        self.parts_bytes += headers.len() + payload.len();
        self.parts.push_back(headers);
        self.parts.push_back(payload);
    }
}

fn cut(message: &str) -> &str {
    let mut end = message.len().min(MAX_MESSAGE_BYTES);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    &message[..end]
}

/// Finds runs of zeros in steps of [`HOLE_BYTES`] from the start of the payload.
fn zero_runs(payload: &[u8]) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (index, block) in payload.chunks_exact(HOLE_BYTES).enumerate() {
        if !is_zero(block) {
            continue;
        }
        let start = index * HOLE_BYTES;
        match runs.last_mut() {
            Some((_, end)) if *end == start => *end = start + HOLE_BYTES,
            _ => runs.push((start, start + HOLE_BYTES)),
        }
    }
    runs
}

fn is_zero(block: &[u8]) -> bool {
    // Most data shows in its first bytes; only zeros are read to the end.
    block.chunks(64).all(|line| line.iter().fold(0, |all, byte| all | byte) == 0)
}

fn tidy_status(length: u32, parts: &[BlockPiece], one_piece: bool) -> Vec<(u32, u32)> {
    let mut left = u64::from(length);
    let mut tidy: Vec<(u32, u32)> = Vec::new();
    for part in parts {
        let here = part.length.min(left);
        let Ok(length) = u32::try_from(here) else { break };
        if length == 0 {
            continue;
        }
        let flags = if part.is_hole { STATE_HOLE } else { 0 } | if part.is_zero { STATE_ZERO } else { 0 };
        left -= here;
        let full = tidy.len() == if one_piece { 1 } else { MAX_STATUS_PARTS };
        match tidy.last_mut() {
            Some((run, same)) if *same == flags => *run += length,
            Some(_) if full => break,
            _ => tidy.push((length, flags)),
        }
    }
    if tidy.is_empty() {
        // An export that knows nothing must still make the client advance: all is data.
        tidy.push((length, 0));
    }
    tidy
}
