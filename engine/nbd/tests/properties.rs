//! Properties: nothing panics, and what was encoded reads back.
#![allow(missing_docs)]

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use redoubt_nbd::client::{ReplyBody, encode_request, parse_option_reply, parse_reply};
use redoubt_nbd::proto::{OPTION_MAGIC, REQUEST_MAGIC};
use redoubt_nbd::{Bounds, ExportFacts, Handshake, Incoming, Op, Outbox, Request, Step, Transmission};
use std::io::IoSlice;

const SIZE: u64 = 1 << 20;

fn bounds() -> Bounds {
    Bounds { size_bytes: SIZE, read_only: false, can_trim: true, structured: true, allocation_context: true }
}

fn op() -> impl Strategy<Value = Op> {
    let range = (0..SIZE / 2, 1..(SIZE as u32) / 2);
    let flags = any::<(bool, bool, bool)>();
    (0..7, range, flags, proptest::collection::vec(any::<u8>(), 0..2000)).prop_map(
        |(kind, (offset, length), (a, b, c), payload)| match kind {
            0 => Op::Read { offset, length, one_piece: a },
            1 => Op::Write { offset, payload: Bytes::from(payload), fua: a },
            2 => Op::Flush,
            3 => Op::Trim { offset, length, fua: a },
            4 => Op::WriteZeroes { offset, length, fua: a, may_unmap: b, fast_only: c },
            5 => Op::Cache { offset, length },
            _ => Op::BlockStatus { offset, length, one_piece: a },
        },
    )
}

/// Bytes that look like the protocol at their start, so that the interesting paths are reached.
fn nearly(magic: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let piece = (any::<bool>(), proptest::collection::vec(prop_oneof![0..16_u8, any::<u8>()], 0..40));
    proptest::collection::vec(piece, 0..8).prop_map(move |pieces| {
        let with_magic = |(magical, rest): (bool, Vec<u8>)| {
            let mut bytes = if magical { magic.clone() } else { Vec::new() };
            bytes.extend(rest);
            bytes
        };
        pieces.into_iter().flat_map(with_magic).collect()
    })
}

fn cut(mut bytes: &[u8], sizes: &[usize]) -> Vec<Vec<u8>> {
    let mut parts = Vec::new();
    for size in sizes.iter().cycle() {
        if bytes.is_empty() {
            break;
        }
        let (head, rest) = bytes.split_at((*size).min(bytes.len()));
        parts.push(head.to_vec());
        bytes = rest;
    }
    parts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn requests_read_back_as_sent_however_they_are_cut(
        ops in proptest::collection::vec(op(), 0..12),
        sizes in proptest::collection::vec(1..700_usize, 1..6),
    ) {
        let sent: Vec<_> = ops.into_iter().zip(1..).map(|(op, cookie)| Request { cookie, op }).collect();
        let mut wire = BytesMut::new();
        sent.iter().for_each(|request| encode_request(&mut wire, request));
        let (mut decoder, mut input, mut got) = (Transmission::new(), BytesMut::new(), Vec::new());
        for part in cut(&wire, &sizes) {
            input.extend_from_slice(&part);
            while let Some(incoming) = decoder.next(&mut input, bounds).unwrap() {
                match incoming {
                    Incoming::Request(request) => got.push(request),
                    other => prop_assert!(false, "{other:?}"),
                }
            }
            prop_assert!(input.len() < decoder.wanted_bytes());
        }
        prop_assert_eq!(got, sent);
    }

    #[test]
    fn no_stream_of_requests_makes_the_decoder_panic(
        wire in nearly(REQUEST_MAGIC.to_be_bytes().to_vec()),
        sizes in proptest::collection::vec(1..64_usize, 1..6),
    ) {
        let (mut decoder, mut input) = (Transmission::new(), BytesMut::new());
        'all: for part in cut(&wire, &sizes) {
            input.extend_from_slice(&part);
            loop {
                match decoder.next(&mut input, bounds) {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => break 'all,
                }
            }
        }
    }

    #[test]
    fn no_handshake_panics(
        wire in nearly(OPTION_MAGIC.to_be_bytes().to_vec()),
        flags in 0..4_u32,
        found in any::<bool>(),
        sizes in proptest::collection::vec(1..64_usize, 1..6),
    ) {
        let facts = ExportFacts {
            size_bytes: SIZE, read_only: false, can_multi_conn: true, can_trim: true, description: None,
        };
        let (mut out, mut input) = (BytesMut::new(), BytesMut::new());
        let mut handshake = Handshake::new(&mut out);
        input.extend_from_slice(&flags.to_be_bytes());
        for part in cut(&wire, &sizes) {
            input.extend_from_slice(&part);
            loop {
                match handshake.step(&mut input, &mut out) {
                    Step::Lookup(_) => handshake.looked_up(found.then_some(&facts), &mut out),
                    Step::List => handshake.listed(&[String::new(), "x".repeat(5000)], &mut out),
                    Step::NeedInput | Step::Close | Step::Transmit(_) => break,
                }
            }
        }
    }

    #[test]
    fn no_reply_makes_the_client_panic(wire in proptest::collection::vec(any::<u8>(), 0..200), kind in 0..3) {
        let magic: &[u8] = match kind {
            0 => &0x6744_6698_u32.to_be_bytes(),
            1 => &0x668e_33ef_u32.to_be_bytes(),
            _ => &0x0003_e889_0455_65a9_u64.to_be_bytes(),
        };
        let mut input = BytesMut::from(&[magic, &wire[..]].concat()[..]);
        let _ = parse_option_reply(&mut input.clone());
        while let Ok(Some(_)) = parse_reply(&mut input, |_| 16) {}
    }

    #[test]
    fn a_structured_read_reads_back_however_it_is_sent(
        blocks in proptest::collection::vec((any::<bool>(), 1..50_000_usize), 1..8),
        offset in 0..SIZE,
        one_piece in any::<bool>(),
        step in 1..70_000_usize,
    ) {
        let payload: Vec<u8> =
            blocks.into_iter().flat_map(|(zero, length)| vec![u8::from(!zero); length]).collect();
        let mut out = Outbox::new();
        out.read_structured(1, offset, Bytes::from(payload.clone()), one_piece);
        let mut wire = BytesMut::new();
        while !out.is_empty() {
            let mut slices = [IoSlice::new(&[]); 4];
            let count = out.slices(&mut slices);
            let sent: Vec<u8> = slices[..count].iter().flat_map(|s| s.to_vec()).take(step).collect();
            wire.extend_from_slice(&sent);
            out.advance(sent.len());
        }
        let mut image = vec![0xee; payload.len()];
        let mut done = false;
        while let Some(reply) = parse_reply(&mut wire, |_| 0).unwrap() {
            prop_assert!(!done, "RP-2");
            done = reply.done;
            let (at, bytes) = match reply.body {
                ReplyBody::Data(at, bytes) => (at, bytes.to_vec()),
                ReplyBody::Hole(at, length) => (at, vec![0; length as usize]),
                other => return Err(TestCaseError::fail(format!("{other:?}"))),
            };
            let start = usize::try_from(at - offset).unwrap();
            image[start..start + bytes.len()].copy_from_slice(&bytes);
        }
        prop_assert!(done && wire.is_empty());
        prop_assert_eq!(image, payload);
    }
}
