//! The stream of requests after the handshake.
//!
//! - TR-1 Input is consumed in whole items: a header, a payload, or what is thrown away.
//! - TR-2 A payload is a slice of the input buffer, not a copy.
//! - TR-3 The payload of a refused write is skipped before the refusal is handed out, so that the
//!   next header is found.

use crate::proto::{Errno, MAX_DRAIN_BYTES, REQUEST_BYTES, cmd};
use crate::request::{Bounds, Header, Request};
use bytes::{Buf, Bytes, BytesMut};

/// One thing that a client sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A legal request.
    Request(Request),
    /// An illegal one; answer it with the errno and go on.
    Refused {
        /// The client's number for it.
        cookie: u64,
        /// Whether the answer must be structured if structured replies were agreed.
        is_read: bool,
        /// Why.
        errno: Errno,
    },
    /// The client is done; drain and close.
    Disconnect,
}

/// The connection cannot go on: the next request cannot be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// Out of step, or another protocol.
    #[error("no request where one must start")]
    BadMagic,
    /// Too much to skip.
    #[error("a write of {0} bytes, beyond what is worth reading to refuse it")]
    PayloadTooLong(u32),
}

#[derive(Clone, Copy, Debug)]
enum State {
    Header,
    Payload(Header),
    Skip { header: Header, left: u32, errno: Errno },
}

/// Decoder of one client's requests.
#[derive(Debug)]
pub struct Transmission {
    state: State,
}

impl Default for Transmission {
    fn default() -> Transmission {
        Transmission::new()
    }
}

impl Transmission {
    /// Starts before the first request.
    pub fn new() -> Transmission {
        Transmission { state: State::Header }
    }

    /// Takes the next item from the input; `None`: more input is needed. `bounds` is asked once for
    /// each request, when its header is complete (RQ-2).
    pub fn next(
        &mut self,
        input: &mut BytesMut,
        bounds: impl FnOnce() -> Bounds,
    ) -> Result<Option<Incoming>, ProtocolError> {
        if let State::Header = self.state {
            let Some(bytes) = input.first_chunk::<REQUEST_BYTES>() else { return Ok(None) };
            let header = Header::parse(bytes).ok_or(ProtocolError::BadMagic)?;
            input.advance(REQUEST_BYTES);
            if header.command == cmd::DISC {
                return Ok(Some(Incoming::Disconnect));
            }
            let payload = header.payload_bytes();
            self.state = match header.check(&bounds()) {
                Ok(()) if payload == 0 => {
                    return Ok(Some(Incoming::Request(header.into_request(Bytes::new()))));
                }
                Ok(()) => State::Payload(header),
                Err(_) if payload > MAX_DRAIN_BYTES => return Err(ProtocolError::PayloadTooLong(payload)),
                Err(errno) => State::Skip { header, left: payload, errno },
            };
        }
        match &mut self.state {
            State::Payload(header) => {
                let header = *header;
                let length = header.length as usize;
                if input.len() < length {
                    return Ok(None);
                }
                self.state = State::Header;
                Ok(Some(Incoming::Request(header.into_request(input.split_to(length).freeze()))))
            }
            State::Skip { header, left, errno } => {
                let here = (*left as usize).min(input.len());
                input.advance(here);
                *left -= u32::try_from(here).unwrap_or(*left);
                if *left > 0 {
                    return Ok(None);
                }
                let is_read = matches!(header.command, cmd::READ | cmd::BLOCK_STATUS);
                let refused = Incoming::Refused { cookie: header.cookie, is_read, errno: *errno };
                self.state = State::Header;
                Ok(Some(refused))
            }
            State::Header => Ok(None),
        }
    }

    /// Returns how many bytes the input buffer must be able to hold for the next item.
    pub fn wanted_bytes(&self) -> usize {
        match self.state {
            State::Payload(header) => header.length as usize,
            State::Header | State::Skip { .. } => REQUEST_BYTES,
        }
    }
}
