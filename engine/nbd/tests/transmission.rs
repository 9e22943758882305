//! Requests and replies, rule by rule.
#![allow(missing_docs)]

use bytes::{Bytes, BytesMut};
use redoubt_nbd::client::{Reply, ReplyBody, encode_request, parse_reply};
use redoubt_nbd::proto::{MAX_PAYLOAD_BYTES, cmd, cmd_flag};
use redoubt_nbd::request::Header;
use redoubt_nbd::{
    BlockPiece, Bounds, Errno, Incoming, MAX_DRAIN_BYTES, Op, Outbox, ProtocolError, Request, Transmission,
};
use std::io::IoSlice;

const SIZE: u64 = 1 << 30;

fn bounds() -> Bounds {
    Bounds { size_bytes: SIZE, read_only: false, can_trim: true, structured: true, allocation_context: true }
}

fn header(command: u16, offset: u64, length: u32) -> Header {
    Header { flags: 0, command, cookie: 7, offset, length }
}

#[test]
fn ranges_beyond_the_end_get_the_errno_of_their_command() {
    for (command, errno) in [
        (cmd::READ, Errno::Inval),
        (cmd::WRITE, Errno::NoSpc),
        (cmd::TRIM, Errno::Inval),
        (cmd::CACHE, Errno::Inval),
        (cmd::WRITE_ZEROES, Errno::NoSpc),
        (cmd::BLOCK_STATUS, Errno::Inval),
    ] {
        assert_eq!(header(command, SIZE - 512, 512).check(&bounds()), Ok(()));
        assert_eq!(header(command, SIZE - 512, 513).check(&bounds()), Err(errno), "command {command}");
        assert_eq!(header(command, u64::MAX, 1).check(&bounds()), Err(errno), "command {command}");
    }
}

#[test]
fn a_flag_is_legal_only_where_it_means_something_and_fua_everywhere() {
    for command in 0..12 {
        for bit in 0..16 {
            let request = Header { flags: 1 << bit, ..header(command, 0, 512) };
            let legal = matches!(
                (command, 1 << bit),
                (cmd::READ, cmd_flag::DF)
                    | (cmd::WRITE_ZEROES, cmd_flag::NO_HOLE | cmd_flag::FAST_ZERO)
                    | (cmd::BLOCK_STATUS, cmd_flag::REQ_ONE)
                    | (0 | 1 | 3..=7, cmd_flag::FUA)
            );
            assert_eq!(request.check(&bounds()).is_ok(), legal, "command {command}, flag bit {bit}");
        }
    }
    let unstructured = Bounds { structured: false, ..bounds() };
    let one_piece = Header { flags: cmd_flag::DF, ..header(cmd::READ, 0, 512) };
    assert_eq!(one_piece.check(&unstructured), Err(Errno::Inval));
}

#[test]
fn changes_of_a_read_only_export_are_not_permitted() {
    let bounds = Bounds { read_only: true, ..bounds() };
    for command in [cmd::WRITE, cmd::TRIM, cmd::WRITE_ZEROES] {
        assert_eq!(header(command, SIZE, 512).check(&bounds), Err(Errno::Perm));
    }
    for command in [cmd::READ, cmd::FLUSH, cmd::CACHE, cmd::BLOCK_STATUS] {
        assert_eq!(header(command, 0, 512).check(&bounds), Ok(()));
    }
}

#[test]
fn effect_lengths_go_far_beyond_the_largest_payload() {
    let huge = Bounds { size_bytes: 1 << 40, ..bounds() };
    for command in [cmd::TRIM, cmd::WRITE_ZEROES, cmd::BLOCK_STATUS, cmd::CACHE] {
        assert_eq!(header(command, 0, u32::MAX).check(&huge), Ok(()));
    }
    for command in [cmd::READ, cmd::WRITE] {
        assert_eq!(header(command, 0, MAX_PAYLOAD_BYTES).check(&huge), Ok(()));
        assert_eq!(header(command, 0, MAX_PAYLOAD_BYTES + 1).check(&huge), Err(Errno::Inval));
    }
}

#[test]
fn what_was_not_offered_is_invalid() {
    let bounds = Bounds { can_trim: false, allocation_context: false, ..bounds() };
    assert_eq!(header(cmd::TRIM, 0, 512).check(&bounds), Err(Errno::Inval));
    assert_eq!(header(cmd::BLOCK_STATUS, 0, 512).check(&bounds), Err(Errno::Inval));
    assert_eq!(header(8, 0, 512).check(&bounds), Err(Errno::Inval));
}

#[test]
fn the_size_is_asked_again_for_each_request() {
    let mut decoder = Transmission::new();
    let mut input = BytesMut::new();
    header(cmd::READ, 4096, 4096).encode(&mut input);
    header(cmd::READ, 4096, 4096).encode(&mut input);
    let small = Bounds { size_bytes: 4096, ..bounds() };
    let refused = Incoming::Refused { cookie: 7, is_read: true, errno: Errno::Inval };
    assert_eq!(decoder.next(&mut input, || small), Ok(Some(refused)));
    assert!(matches!(decoder.next(&mut input, bounds), Ok(Some(Incoming::Request(_)))));
}

#[test]
fn a_refused_write_is_skipped_and_the_next_request_is_found() {
    let mut decoder = Transmission::new();
    let mut input = BytesMut::new();
    header(cmd::WRITE, 0, MAX_PAYLOAD_BYTES + 1).encode(&mut input);
    let mut left = MAX_PAYLOAD_BYTES as usize + 1;
    while left > 0 {
        assert_eq!(decoder.next(&mut input, bounds), Ok(None));
        assert!(input.is_empty(), "nothing of it is kept");
        let step = left.min(1 << 20);
        input.resize(step, 0x5a);
        left -= step;
    }
    let refused = Incoming::Refused { cookie: 7, is_read: false, errno: Errno::Inval };
    assert_eq!(decoder.next(&mut input, bounds), Ok(Some(refused)));
    header(cmd::DISC, 0, 0).encode(&mut input);
    assert_eq!(decoder.next(&mut input, bounds), Ok(Some(Incoming::Disconnect)));
}

#[test]
fn what_cannot_be_skipped_or_found_ends_the_connection() {
    let mut input = BytesMut::new();
    header(cmd::WRITE, 0, MAX_DRAIN_BYTES + 1).encode(&mut input);
    let too_long = ProtocolError::PayloadTooLong(MAX_DRAIN_BYTES + 1);
    assert_eq!(Transmission::new().next(&mut input, bounds), Err(too_long));
    let mut input = BytesMut::from(&[0; 28][..]);
    assert_eq!(Transmission::new().next(&mut input, bounds), Err(ProtocolError::BadMagic));
}

#[test]
fn a_payload_is_a_slice_of_the_input() {
    let mut input = BytesMut::new();
    let payload = Bytes::from(vec![3; 4096]);
    encode_request(&mut input, &Request { cookie: 1, op: Op::Write { offset: 0, payload, fua: true } });
    let there = input[28..].as_ptr();
    match Transmission::new().next(&mut input, bounds) {
        Ok(Some(Incoming::Request(Request { op: Op::Write { payload, fua: true, .. }, .. }))) => {
            assert_eq!(payload.as_ptr(), there);
        }
        other => panic!("{other:?}"),
    }
}

/// Sends everything in steps of `step` bytes, as a slow socket does.
fn drain(out: &mut Outbox, step: usize) -> BytesMut {
    let mut wire = BytesMut::new();
    while !out.is_empty() {
        let mut slices = [IoSlice::new(&[]); 3];
        let count = out.slices(&mut slices);
        let some: Vec<u8> =
            slices[..count].iter().flat_map(|slice| slice.iter().copied()).take(step).collect();
        wire.extend_from_slice(&some);
        out.advance(some.len());
    }
    wire
}

fn replies(out: &mut Outbox, read_bytes: usize) -> Vec<Reply> {
    let mut wire = drain(out, usize::MAX);
    let mut replies = Vec::new();
    while let Some(reply) = parse_reply(&mut wire, |_| read_bytes).unwrap() {
        replies.push(reply);
    }
    assert!(wire.is_empty());
    replies
}

#[test]
fn long_zeros_become_holes_and_only_the_last_piece_says_done() {
    let mut payload = vec![0; 200 << 10];
    payload[100 << 10] = 1;
    let payload = Bytes::from(payload);
    let mut out = Outbox::new();
    out.read_structured(9, 4096, payload.clone(), false);
    let pieces = replies(&mut out, 0);
    let mut image = vec![0xff; payload.len()];
    for (index, piece) in pieces.iter().enumerate() {
        assert_eq!(piece.done, index + 1 == pieces.len());
        match &piece.body {
            ReplyBody::Data(at, data) => {
                let start = usize::try_from(at - 4096).unwrap();
                image[start..start + data.len()].copy_from_slice(data);
            }
            ReplyBody::Hole(at, length) => {
                let start = usize::try_from(at - 4096).unwrap();
                image[start..start + *length as usize].fill(0);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(image, payload);
    assert!(pieces.len() >= 3);
    out.read_structured(9, 4096, payload.clone(), true);
    assert_eq!(replies(&mut out, 0).len(), 1, "DF asks for one piece");
}

#[test]
fn an_empty_read_is_answered_without_data() {
    let mut out = Outbox::new();
    out.read_structured(9, 0, Bytes::new(), false);
    assert_eq!(replies(&mut out, 0), [Reply { cookie: 9, done: true, body: ReplyBody::None }]);
}

#[test]
fn errors_say_where_if_known() {
    let mut out = Outbox::new();
    out.failed(1, Errno::Perm, false, "no");
    out.failed(2, Errno::Io, true, &"é".repeat(2000));
    out.failed_at(3, Errno::Io, 4096, "bad sector");
    let bodies: Vec<_> = replies(&mut out, 0).into_iter().map(|reply| reply.body).collect();
    assert_eq!(bodies[0], ReplyBody::Simple(Err(Errno::Perm)));
    assert!(matches!(&bodies[1], ReplyBody::Error(Errno::Io, text, None) if text.len() <= 1024));
    assert_eq!(bodies[2], ReplyBody::Error(Errno::Io, "bad sector".to_owned(), Some(4096)));
}

#[test]
fn block_status_is_cut_merged_and_never_empty() {
    let data = |length| BlockPiece { length, is_hole: false, is_zero: false };
    let hole = |length| BlockPiece { length, is_hole: true, is_zero: true };
    let ask = |length, parts: &[BlockPiece], one_piece| {
        let mut out = Outbox::new();
        out.block_status(5, length, parts, one_piece);
        match replies(&mut out, 0).remove(0).body {
            ReplyBody::BlockStatus(1, parts) => parts,
            other => panic!("{other:?}"),
        }
    };
    let parts = [data(512), data(512), hole(1024), hole(1), data(1 << 40)];
    assert_eq!(ask(4096, &parts, false), [(1024, 0), (1025, 3), (2047, 0)]);
    assert_eq!(ask(4096, &parts, true), [(1024, 0)]);
    assert_eq!(ask(4096, &[], false), [(4096, 0)]);
    assert_eq!(ask(u32::MAX, &[hole(u64::MAX)], false), [(u32::MAX, 3)]);
}

#[test]
fn replies_have_these_bytes() {
    let mut out = Outbox::new();
    out.done(1);
    out.failed(2, Errno::NoSpc, false, "");
    out.read_simple(3, Bytes::from_static(b"simple"));
    out.read_structured(4, 512, Bytes::from_static(b"piece"), false);
    out.failed(5, Errno::Io, true, "oops");
    out.failed_at(6, Errno::Io, 512, "oops");
    out.block_status(7, 512, &[], false);
    out.read_structured(8, 0, Bytes::new(), false);
    let wire = drain(&mut out, 5);
    let hex: Vec<_> =
        wire.chunks(16).map(|row| row.iter().map(|b| format!("{b:02x}")).collect::<String>()).collect();
    insta::assert_snapshot!(hex.join("\n"));
}

#[test]
fn requests_have_these_bytes() {
    let mut wire = BytesMut::new();
    let write = Op::Write { offset: 512, payload: Bytes::from_static(b"data"), fua: true };
    let zeroes =
        Op::WriteZeroes { offset: 1, length: u32::MAX, fua: false, may_unmap: false, fast_only: true };
    for (cookie, op) in [(1, write), (2, zeroes), (3, Op::Flush)] {
        encode_request(&mut wire, &Request { cookie, op });
    }
    let hex: Vec<_> =
        wire.chunks(16).map(|row| row.iter().map(|b| format!("{b:02x}")).collect::<String>()).collect();
    insta::assert_snapshot!(hex.join("\n"));
}
