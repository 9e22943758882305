//! Payloads of frames: messages to bytes and back, and the proof in `Hello`.
//!
//! Fields in the order of the value's declaration, little-endian; lists and texts with a count first.
//! Decoding accepts exactly what encoding makes: rest bytes, unknown codes and counts over the limits
//! are errors.

use crate::aead::StreamKey;
use crate::reader::{Reader, Short};
use crate::sealed;
use bytes::{BufMut, Bytes, BytesMut};
use redoubt_core::message::{
    DETAIL_BYTES_MAX, HASH_BLOCKS_MAX, HashReply, HashRequest, Hello, MarksReply, MarksRequest, Message,
    PROTOCOL_VERSIONS, RefusedReason, VOLUMES_MAX, Versions, VolumeInfo, Welcome,
};
use redoubt_core::names::NAME_BYTES_MAX;
use redoubt_core::{
    BatchPosition, Chain, Extent, Generation, MachineId, Names, Sectors, VolumeId, VolumeIndex, WriteSeq,
};
use thiserror::Error;

/// Why the payload of a frame is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MessageError {
    /// Too short or too long for its kind.
    #[error("the payload's length does not match its kind")]
    Length,
    /// A field has no legal value.
    #[error("the message has an illegal {0}")]
    Field(&'static str),
    /// A peer whose protocol versions are all foreign, and whose hello is not laid out as ours.
    #[error("the peer speaks protocol versions {}..{}, this engine {}..{}", .0.min, .0.max, PROTOCOL_VERSIONS.min, PROTOCOL_VERSIONS.max)]
    Versions(Versions),
    /// The sealed batch inside is malformed.
    #[error(transparent)]
    Sealed(#[from] sealed::SealError),
}

impl From<Short> for MessageError {
    fn from(_: Short) -> MessageError {
        MessageError::Length
    }
}

pub(crate) const CHALLENGE: u8 = 1;
pub(crate) const HELLO: u8 = 2;
pub(crate) const WELCOME: u8 = 3;
pub(crate) const REFUSED: u8 = 4;
pub(crate) const BATCH: u8 = 5;
pub(crate) const ACK: u8 = 6;
pub(crate) const HASH_REQUEST: u8 = 7;
pub(crate) const HASH_REPLY: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;
pub(crate) const BYE: u8 = 11;
pub(crate) const MARKS_REQUEST: u8 = 12;
pub(crate) const MARKS_REPLY: u8 = 13;

pub(crate) fn kind(message: &Message) -> u8 {
    match message {
        Message::Challenge(_) => CHALLENGE,
        Message::Hello(_) => HELLO,
        Message::Welcome(_) => WELCOME,
        Message::Refused { .. } => REFUSED,
        Message::Batch(_) => BATCH,
        Message::Ack { .. } => ACK,
        Message::HashRequest(_) => HASH_REQUEST,
        Message::HashReply(_) => HASH_REPLY,
        Message::MarksRequest(_) => MARKS_REQUEST,
        Message::MarksReply(_) => MARKS_REPLY,
        Message::Ping(_) => PING,
        Message::Pong(_) => PONG,
        Message::Bye => BYE,
    }
}

fn put_position(out: &mut BytesMut, position: &BatchPosition) {
    out.put_u64_le(position.generation.0);
    out.put_u64_le(position.seq.0);
    out.put_slice(&position.chain.0);
}

fn position(reader: &mut Reader<'_>) -> Result<BatchPosition, MessageError> {
    Ok(BatchPosition {
        generation: Generation(reader.u64()?),
        seq: WriteSeq(reader.u64()?),
        chain: Chain(reader.array()?),
    })
}

fn put_hello(out: &mut BytesMut, hello: &Hello) {
    assert!(hello.volumes.len() <= VOLUMES_MAX, "a machine has at most {VOLUMES_MAX} volumes");
    out.put_u16_le(hello.versions.min);
    out.put_u16_le(hello.versions.max);
    out.put_u128_le(hello.machine.0);
    out.put_u64_le(hello.generation.0);
    out.put_u16_le(hello.volumes.len() as u16);
    for volume in &hello.volumes {
        out.put_u16_le(volume.index.0);
        out.put_u128_le(volume.id.0);
        out.put_u64_le(volume.sectors.0);
    }
    put_names(out, &hello.names);
    // A held range is never empty and starts at 1, so (0, 0) can say "nothing".
    let (first, last) = hello.held.unwrap_or_default();
    out.put_u64_le(first.0);
    out.put_u64_le(last.0);
    put_position(out, &hello.newest);
}

fn hello(reader: &mut Reader<'_>) -> Result<Hello, MessageError> {
    let versions = versions(reader)?;
    let machine = MachineId(reader.u128()?);
    let generation = Generation(reader.u64()?);
    let count = usize::from(reader.u16()?);
    if count > VOLUMES_MAX {
        return Err(MessageError::Field("volume count"));
    }
    let mut volumes = Vec::new();
    for _ in 0..count {
        volumes.push(VolumeInfo {
            index: VolumeIndex(reader.u16()?),
            id: VolumeId(reader.u128()?),
            sectors: Sectors(reader.u64()?),
        });
    }
    let names = names(reader)?;
    let held = match (reader.u64()?, reader.u64()?) {
        (0, 0) => None,
        (first, last) if first >= 1 && first <= last => Some((WriteSeq(first), WriteSeq(last))),
        _ => return Err(MessageError::Field("held range")),
    };
    let newest = position(reader)?;
    Ok(Hello { versions, machine, generation, volumes, names, held, newest, proof: reader.array()? })
}

fn put_text(out: &mut BytesMut, text: &str) {
    out.put_u8(text.len() as u8);
    out.put_slice(text.as_bytes());
}

fn put_names(out: &mut BytesMut, names: &Names) {
    assert!(names.volumes().len() <= VOLUMES_MAX, "only volumes of the machine have names");
    put_text(out, names.machine());
    out.put_u16_le(names.volumes().len() as u16);
    for (id, name) in names.volumes() {
        out.put_u128_le(id.0);
        put_text(out, name);
    }
}

fn text<'a>(reader: &mut Reader<'a>) -> Result<&'a str, MessageError> {
    let length = usize::from(reader.u8()?);
    let text = std::str::from_utf8(reader.take(length)?).ok().filter(|text| text.len() <= NAME_BYTES_MAX);
    text.ok_or(MessageError::Field("name"))
}

fn names(reader: &mut Reader<'_>) -> Result<Names, MessageError> {
    let mut names = Names::default();
    names.call_machine(text(reader)?);
    let count = usize::from(reader.u16()?);
    if count > VOLUMES_MAX {
        return Err(MessageError::Field("count of names"));
    }
    let mut last = None;
    for _ in 0..count {
        let (id, name) = (VolumeId(reader.u128()?), text(reader)?);
        if last >= Some(id) || name.is_empty() {
            return Err(MessageError::Field("name"));
        }
        names.call_volume(id, name);
        last = Some(id);
    }
    Ok(names)
}

fn proof_of(key: &StreamKey, challenge: &[u8; 32], hello: &Hello) -> blake3::Hash {
    let mut fields = BytesMut::new();
    put_hello(&mut fields, hello);
    let mut hasher = blake3::Hasher::new_keyed(key.proof_key().expose());
    hasher.update(challenge).update(&fields);
    hasher.finalize()
}

/// Adds the proof that the sender holds the stream key and answers this challenge.
pub fn prove(key: &StreamKey, challenge: &[u8; 32], hello: &mut Hello) {
    hello.proof = *proof_of(key, challenge, hello).as_bytes();
}

/// Checks the proof, in constant time.
pub fn verify(key: &StreamKey, challenge: &[u8; 32], hello: &Hello) -> bool {
    proof_of(key, challenge, hello) == blake3::Hash::from_bytes(hello.proof)
}

/// Appends the payload of every kind but `Batch`, whose bytes travel on their own.
pub(crate) fn put(out: &mut BytesMut, message: &Message) {
    match message {
        Message::Batch(_) | Message::Bye => {}
        Message::Challenge(nonce) => out.put_slice(nonce),
        Message::Hello(hello) => {
            put_hello(out, hello);
            out.put_slice(&hello.proof);
        }
        Message::Welcome(welcome) => {
            put_position(out, &welcome.staged);
            put_position(out, &welcome.vaulted);
            out.put_u64_le(welcome.permits_total);
            out.put_u8(u8::from(welcome.exact));
        }
        Message::Refused { reason, detail } => {
            out.put_u8(*reason as u8);
            let end = detail.floor_char_boundary(DETAIL_BYTES_MAX);
            out.put_u16_le(end as u16);
            out.put_slice(&detail.as_bytes()[..end]);
        }
        Message::Ack { staged, vaulted, permits_total } => {
            put_position(out, staged);
            put_position(out, vaulted);
            out.put_u64_le(*permits_total);
        }
        Message::HashRequest(request) => {
            out.put_u64_le(request.id);
            out.put_u16_le(request.volume.0);
            out.put_u64_le(request.extent.lba.0);
            out.put_u64_le(request.extent.sectors.0);
            out.put_u64_le(request.after.0);
        }
        Message::HashReply(reply) => put_hashes(out, reply),
        Message::MarksRequest(request) => {
            out.put_u64_le(request.number);
            out.put_u8(u8::from(request.disown));
        }
        Message::MarksReply(reply) => {
            out.put_u64_le(reply.number);
            out.put_u8(u8::from(reply.is_disowned));
        }
        Message::Ping(number) | Message::Pong(number) => out.put_u64_le(*number),
    }
}

fn put_hashes(out: &mut BytesMut, reply: &HashReply) {
    assert!(reply.blocks.len() <= HASH_BLOCKS_MAX, "a reply has at most {HASH_BLOCKS_MAX} blocks");
    out.put_u64_le(reply.id);
    out.put_u64_le(reply.as_of.0);
    out.put_u16_le(reply.blocks.len() as u16);
    for block in &reply.blocks {
        out.put_u8(u8::from(block.is_some()));
        if let Some(digest) = block {
            out.put_slice(digest);
        }
    }
}

fn flag(reader: &mut Reader<'_>) -> Result<bool, MessageError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(MessageError::Field("flag")),
    }
}

fn hashes(reader: &mut Reader<'_>) -> Result<HashReply, MessageError> {
    let id = reader.u64()?;
    let as_of = WriteSeq(reader.u64()?);
    let count = usize::from(reader.u16()?);
    if count > HASH_BLOCKS_MAX {
        return Err(MessageError::Field("block count"));
    }
    let mut blocks = Vec::new();
    for _ in 0..count {
        blocks.push(if flag(reader)? { Some(reader.array()?) } else { None });
    }
    Ok(HashReply { id, as_of, blocks })
}

fn refused(reader: &mut Reader<'_>) -> Result<Message, MessageError> {
    let code = reader.u8()?;
    let reason = RefusedReason::ALL.into_iter().find(|reason| *reason as u8 == code);
    let reason = reason.ok_or(MessageError::Field("reason"))?;
    let length = usize::from(reader.u16()?);
    if length > DETAIL_BYTES_MAX {
        return Err(MessageError::Field("detail"));
    }
    let detail = std::str::from_utf8(reader.take(length)?).map_err(|_| MessageError::Field("detail"))?;
    Ok(Message::Refused { reason, detail: detail.to_owned() })
}

fn hash_request(reader: &mut Reader<'_>) -> Result<Message, MessageError> {
    let id = reader.u64()?;
    let volume = VolumeIndex(reader.u16()?);
    let (lba, sectors) = (reader.u64()?, reader.u64()?);
    if sectors == 0 {
        return Err(MessageError::Field("extent"));
    }
    let request =
        HashRequest { id, volume, extent: Extent::new(lba, sectors), after: WriteSeq(reader.u64()?) };
    if !request.is_valid() {
        return Err(MessageError::Field("extent"));
    }
    Ok(Message::HashRequest(request))
}

/// Decodes the payload of a frame of this kind. Of a hello every version keeps the first field, so that
/// a foreign one is named as such.
pub(crate) fn take(kind: u8, payload: Bytes) -> Result<Message, MessageError> {
    if kind == BATCH {
        return Ok(Message::Batch(sealed::parse(payload)?));
    }
    control(kind, &payload).map_err(|error| match versions(&mut Reader(&payload)) {
        Ok(theirs) if kind == HELLO && theirs.common(PROTOCOL_VERSIONS).is_none() => {
            MessageError::Versions(theirs)
        }
        _ => error,
    })
}

fn versions(reader: &mut Reader<'_>) -> Result<Versions, MessageError> {
    Ok(Versions { min: reader.u16()?, max: reader.u16()? })
}

fn control(kind: u8, payload: &[u8]) -> Result<Message, MessageError> {
    let mut reader = Reader(payload);
    let message = match kind {
        CHALLENGE => Message::Challenge(reader.array()?),
        HELLO => Message::Hello(hello(&mut reader)?),
        WELCOME => Message::Welcome(Welcome {
            staged: position(&mut reader)?,
            vaulted: position(&mut reader)?,
            permits_total: reader.u64()?,
            exact: flag(&mut reader)?,
        }),
        REFUSED => refused(&mut reader)?,
        ACK => Message::Ack {
            staged: position(&mut reader)?,
            vaulted: position(&mut reader)?,
            permits_total: reader.u64()?,
        },
        HASH_REQUEST => hash_request(&mut reader)?,
        HASH_REPLY => Message::HashReply(hashes(&mut reader)?),
        MARKS_REQUEST => {
            Message::MarksRequest(MarksRequest { number: reader.u64()?, disown: flag(&mut reader)? })
        }
        MARKS_REPLY => {
            Message::MarksReply(MarksReply { number: reader.u64()?, is_disowned: flag(&mut reader)? })
        }
        PING => Message::Ping(reader.u64()?),
        PONG => Message::Pong(reader.u64()?),
        BYE => Message::Bye,
        _ => return Err(MessageError::Field("kind")),
    };
    if reader.0.is_empty() { Ok(message) } else { Err(MessageError::Length) }
}
