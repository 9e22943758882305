//! Frames: how messages are cut out of a byte stream.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 2 | magic `RF` |
//! | 2 | 1 | frame version, 1 |
//! | 3 | 1 | kind |
//! | 4 | 4 | payload bytes |
//! | 8 | 4 | CRC-32C of bytes 0..8 and the payload |
//! | 12 | | payload |
//!
//! The CRC finds accidents of memory and transport early, with a clear error; forgery is refused by the
//! proof in `Hello` and by the seal of each batch.
//!
//! Invariants
//! - FR-1 A length is checked against the bound of its kind before anything is reserved for it.
//! - FR-2 After an error the decoder gives nothing more: the stream has lost its frame boundaries.
//! - FR-3 A message keeps no memory but its own alive: a large frame is received in a buffer of its size, a
//!   small one is copied out. Whoever keeps a batch need not copy it.

use crate::message::{self, BATCH, MessageError};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use redoubt_core::message::{HASH_BLOCKS_MAX, Message};
use redoubt_core::sealed::SEALED_BYTES_MAX;
use thiserror::Error;

const MAGIC: [u8; 2] = *b"RF";
const VERSION: u8 = 1;

/// Bytes of a frame's header.
pub const FRAME_HEADER_BYTES: usize = 12;

/// Largest payload of a frame that is no batch: a full `HashReply` is the largest of them.
pub const CONTROL_BYTES_MAX: usize = 18 + HASH_BLOCKS_MAX * 33;

/// From this size on, a frame is received in a buffer of its own.
const OWN_BUFFER_BYTES: usize = 64 << 10;

/// Room for the first read of a frame behind a large one: what it brings beyond the header is copied.
const HEAD_BYTES: usize = 4 << 10;

/// Why a byte stream cannot be read further. The session must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The peer does not speak this protocol, or frame boundaries are lost.
    #[error("no frame starts here (found {0:02x?})")]
    Magic([u8; 2]),
    /// The peer speaks a newer framing.
    #[error("frame version {0} is unknown; this engine reads version 1")]
    Version(u8),
    /// The announced length is over the bound of its kind.
    #[error("a frame of kind {kind} announces {length} bytes, over its limit of {limit}")]
    TooLong {
        /// Kind of frame.
        kind: u8,
        /// Announced length.
        length: usize,
        /// Largest legal length.
        limit: usize,
    },
    /// The frame was damaged on the way.
    #[error("a frame of kind {kind} and {length} bytes fails its checksum")]
    Checksum {
        /// Kind of frame.
        kind: u8,
        /// Its length.
        length: usize,
    },
    /// The frame arrived whole and is malformed: a fault of the sender.
    #[error("a frame of kind {kind} is malformed: {error}")]
    Message {
        /// Kind of frame.
        kind: u8,
        /// What is wrong.
        error: MessageError,
    },
}

/// Encodes a message as parts to be written one after another. Sealed bytes are not copied.
pub fn encode(message: &Message) -> Vec<Bytes> {
    let mut head = BytesMut::with_capacity(FRAME_HEADER_BYTES + 128);
    head.put_bytes(0, FRAME_HEADER_BYTES);
    message::put(&mut head, message);
    let sealed = match message {
        Message::Batch(batch) => Some(batch.bytes.clone()),
        _ => None,
    };
    let kind = message::kind(message);
    let length = head.len() - FRAME_HEADER_BYTES + sealed.as_ref().map_or(0, Bytes::len);
    assert!(length <= limit(kind), "a frame of kind {kind} is within its bound");
    head[..2].copy_from_slice(&MAGIC);
    head[2] = VERSION;
    head[3] = kind;
    head[4..8].copy_from_slice(&(length as u32).to_le_bytes());
    let mut crc = crc32c::crc32c(&head[..8]);
    crc = crc32c::crc32c_append(crc, &head[FRAME_HEADER_BYTES..]);
    if let Some(sealed) = &sealed {
        crc = crc32c::crc32c_append(crc, sealed);
    }
    head[8..12].copy_from_slice(&crc.to_le_bytes());
    let mut parts = vec![head.freeze()];
    parts.extend(sealed);
    parts
}

fn limit(kind: u8) -> usize {
    if kind == BATCH { SEALED_BYTES_MAX } else { CONTROL_BYTES_MAX }
}

/// Cuts messages out of bytes as they arrive.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
    /// Bytes of the frame at the front, if it is incomplete and the buffer is its own.
    own: Option<usize>,
    /// Large frames come in rows.
    after_large: bool,
    failed: Option<FrameError>,
}

impl Decoder {
    /// Makes an empty decoder.
    pub fn new() -> Decoder {
        Decoder::default()
    }

    /// Adds bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the buffer to read into, with room for at most `room` more bytes or the rest of a frame.
    /// Call [`Decoder::next`] until `None` between two reads, so that it stays bounded.
    pub fn space(&mut self, room: usize) -> &mut BytesMut {
        // A frame's own buffer has room for the rest of it and no more.
        if self.own.is_none_or(|whole| whole <= self.buffer.len()) {
            self.buffer.reserve(if self.after_large { HEAD_BYTES.min(room) } else { room });
        }
        &mut self.buffer
    }

    /// Returns the next whole message, or `None` if more bytes are needed.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Message>, FrameError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let result = self.cut();
        if let Err(error) = result {
            self.failed = Some(error);
        }
        result
    }

    fn cut(&mut self) -> Result<Option<Message>, FrameError> {
        let Some(head) = self.buffer.first_chunk::<FRAME_HEADER_BYTES>() else {
            return Ok(None);
        };
        let head = *head;
        if head[..2] != MAGIC {
            return Err(FrameError::Magic([head[0], head[1]]));
        }
        if head[2] != VERSION {
            return Err(FrameError::Version(head[2]));
        }
        let kind = head[3];
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let limit = limit(kind);
        if length > limit {
            return Err(FrameError::TooLong { kind, length, limit });
        }
        let whole = FRAME_HEADER_BYTES + length;
        if self.buffer.len() < whole {
            self.make_room(whole);
            return Ok(None);
        }
        let mut frame = self.take(whole);
        let expected = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
        let crc = crc32c::crc32c_append(crc32c::crc32c(&head[..8]), &frame[FRAME_HEADER_BYTES..]);
        if crc != expected {
            return Err(FrameError::Checksum { kind, length });
        }
        frame.advance(FRAME_HEADER_BYTES);
        message::take(kind, frame).map(Some).map_err(|error| FrameError::Message { kind, error })
    }

    /// Prepares for the rest of the frame at the front; FR-1: its length was checked.
    fn make_room(&mut self, whole: usize) {
        if whole < OWN_BUFFER_BYTES || self.own.is_some() {
            return;
        }
        let mut own = BytesMut::with_capacity(whole);
        own.extend_from_slice(&self.buffer);
        (self.buffer, self.own) = (own, Some(whole));
    }

    /// Takes the frame off the front (FR-3).
    fn take(&mut self, whole: usize) -> Bytes {
        self.after_large = whole >= OWN_BUFFER_BYTES;
        if self.own.take() == Some(self.buffer.len()) {
            return std::mem::take(&mut self.buffer).freeze();
        }
        let frame = Bytes::copy_from_slice(&self.buffer[..whole]);
        self.buffer.advance(whole);
        frame
    }
}
