//! Every change and every message comes back from its bytes; the bytes themselves are pinned.
//!
//! A changed snapshot is a changed format: it needs a new version number, not a new snapshot.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use redoubt_core::change::{Batch, Change, Marker, MarkerKind, Record, ResyncReason};
use redoubt_core::message::{
    DETAIL_BYTES_MAX, HASH_BLOCK_SECTORS, HASH_BLOCKS_MAX, HashReply, HashRequest, Hello, MarksReply,
    MarksRequest, RefusedReason, Versions, VolumeInfo, Welcome,
};
use redoubt_core::{
    BatchPosition, Chain, Extent, Generation, Lba, MachineId, MarkerId, Names, Sectors, VolumeId,
    VolumeIndex, WallTime, WriteSeq,
};
use redoubt_wire::record::{body_bytes, decode_body, encode_body};
use redoubt_wire::{Decoder, Message, SealedBatch, StreamKey, encode, open, peek, prove, seal, verify};

const SECTORS_MAX: u64 = u64::MAX / 512;

fn volume() -> impl Strategy<Value = VolumeIndex> {
    any::<u16>().prop_map(VolumeIndex)
}

fn extent() -> impl Strategy<Value = Extent> {
    (0..SECTORS_MAX, 1..SECTORS_MAX)
        .prop_map(|(lba, sectors)| Extent::new(lba, sectors.min(SECTORS_MAX - lba)))
}

fn payload() -> impl Strategy<Value = (VolumeIndex, Lba, Bytes)> {
    (volume(), 0..SECTORS_MAX - 8, any::<u8>(), 1usize..4)
        .prop_map(|(volume, lba, fill, sectors)| (volume, Lba(lba), vec![fill; sectors * 512].into()))
}

fn marker() -> impl Strategy<Value = Marker> {
    let kind = prop_oneof![Just(MarkerKind::Crash), Just(MarkerKind::App), Just(MarkerKind::Planned)];
    (any::<u128>(), kind, any::<u64>()).prop_map(|(id, kind, wall)| Marker {
        id: MarkerId(id),
        kind,
        wall: WallTime(wall),
    })
}

fn reason() -> impl Strategy<Value = ResyncReason> {
    prop::sample::select(vec![
        ResyncReason::Initial,
        ResyncReason::UncleanStop,
        ResyncReason::Overflow,
        ResyncReason::StageLost,
        ResyncReason::Fork,
        ResyncReason::Untracked,
        ResyncReason::Requested,
    ])
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (volume(), any::<u128>(), 0..SECTORS_MAX).prop_map(|(volume, id, sectors)| Change::Attach {
            volume,
            id: VolumeId(id),
            sectors: Sectors(sectors)
        }),
        payload().prop_map(|(volume, lba, payload)| Change::Write { volume, lba, payload }),
        payload().prop_map(|(volume, lba, payload)| Change::ResyncWrite { volume, lba, payload }),
        (volume(), extent()).prop_map(|(volume, extent)| Change::WriteZeroes { volume, extent }),
        (volume(), extent()).prop_map(|(volume, extent)| Change::Trim { volume, extent }),
        (volume(), extent()).prop_map(|(volume, extent)| Change::ResyncZeroes { volume, extent }),
        (volume(), 0..SECTORS_MAX)
            .prop_map(|(volume, sectors)| Change::Resize { volume, sectors: Sectors(sectors) }),
        marker().prop_map(Change::Marker),
        reason().prop_map(|reason| Change::ResyncBegin { reason }),
        Just(Change::ResyncEnd),
    ]
}

fn records(first: u64, changes: Vec<Change>) -> Vec<Record> {
    let numbered = changes.into_iter().enumerate();
    numbered.map(|(i, change)| Record { seq: WriteSeq(first + i as u64), change }).collect()
}

fn position() -> impl Strategy<Value = BatchPosition> {
    (any::<u64>(), any::<u64>(), any::<[u8; 32]>()).prop_map(|(generation, seq, chain)| BatchPosition {
        generation: Generation(generation),
        seq: WriteSeq(seq),
        chain: Chain(chain),
    })
}

fn names_of(machine: &str, volumes: &[(u128, String)]) -> Names {
    let mut names = Names::default();
    names.call_machine(machine);
    volumes.iter().for_each(|(id, name)| names.call_volume(VolumeId(*id), name));
    names
}

fn hello() -> impl Strategy<Value = Hello> {
    let volume = (volume(), any::<u128>(), any::<u64>()).prop_map(|(index, id, sectors)| VolumeInfo {
        index,
        id: VolumeId(id),
        sectors: Sectors(sectors),
    });
    let held = prop::option::of((1u64..1000, 0u64..1000));
    let ids = (any::<u16>(), any::<u16>(), any::<u128>(), any::<u64>());
    let names = ("[a-z]{0,70}", prop::collection::vec((any::<u128>(), "[a-zä]{0,70}"), 0..4));
    let named = (prop::collection::vec(volume, 0..5), names);
    (ids, named, held, position(), any::<[u8; 32]>()).prop_map(
        |((min, max, machine, generation), (volumes, names), held, newest, proof)| Hello {
            versions: Versions { min, max },
            machine: MachineId(machine),
            generation: Generation(generation),
            volumes,
            names: names_of(&names.0, &names.1),
            held: held.map(|(first, more)| (WriteSeq(first), WriteSeq(first + more))),
            newest,
            proof,
        },
    )
}

fn sealed() -> impl Strategy<Value = SealedBatch> {
    let changes = prop::collection::vec(change(), 1..6);
    (changes, 1u64..u64::MAX / 2, any::<u64>(), any::<[u8; 32]>()).prop_map(
        |(changes, first, generation, prev)| {
            let batch = Batch::new(Generation(generation), records(first, changes)).unwrap();
            seal(&StreamKey::new([3; 32]), MachineId(9), &batch, Chain(prev))
        },
    )
}

fn hash_request() -> impl Strategy<Value = HashRequest> {
    let blocks = 1..=HASH_BLOCKS_MAX as u64;
    (any::<u64>(), volume(), 0u64..1 << 40, blocks, any::<u64>()).prop_map(
        |(id, volume, block, blocks, after)| HashRequest {
            id,
            volume,
            extent: Extent::new(block * HASH_BLOCK_SECTORS, blocks * HASH_BLOCK_SECTORS),
            after: WriteSeq(after),
        },
    )
}

fn message() -> impl Strategy<Value = Message> {
    let blocks = prop::collection::vec(prop::option::of(any::<[u8; 32]>()), 0..9);
    prop_oneof![
        any::<[u8; 32]>().prop_map(Message::Challenge),
        hello().prop_map(Message::Hello),
        (position(), position(), any::<u64>(), any::<bool>()).prop_map(
            |(staged, vaulted, permits_total, exact)| {
                Message::Welcome(Welcome { staged, vaulted, permits_total, exact })
            }
        ),
        (prop::sample::select(RefusedReason::ALL.to_vec()), "\\PC{0,60}")
            .prop_map(|(reason, detail)| Message::Refused { reason, detail }),
        sealed().prop_map(Message::Batch),
        (position(), position(), any::<u64>()).prop_map(|(staged, vaulted, permits_total)| Message::Ack {
            staged,
            vaulted,
            permits_total
        }),
        hash_request().prop_map(Message::HashRequest),
        (any::<u64>(), any::<u64>(), blocks).prop_map(|(id, as_of, blocks)| Message::HashReply(HashReply {
            id,
            as_of: WriteSeq(as_of),
            blocks
        })),
        (any::<u64>(), any::<bool>())
            .prop_map(|(number, disown)| Message::MarksRequest(MarksRequest { number, disown })),
        (any::<u64>(), any::<bool>())
            .prop_map(|(number, is_disowned)| Message::MarksReply(MarksReply { number, is_disowned })),
        any::<u64>().prop_map(Message::Ping),
        any::<u64>().prop_map(Message::Pong),
        Just(Message::Bye),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_change_comes_back_from_the_body(
        changes in prop::collection::vec(change(), 1..12), first in 1u64..u64::MAX / 2
    ) {
        let records = records(first, changes);
        let mut body = BytesMut::new();
        encode_body(&records, &mut body);
        prop_assert_eq!(body.len(), body_bytes(&records));
        let body = body.freeze();
        let decoded = decode_body(&body, WriteSeq(first), records.len());
        prop_assert_eq!(decoded.as_ref(), Ok(&records));
    }

    #[test]
    fn bytes_that_decode_as_a_body_are_the_bytes_that_encoding_makes(
        kind in 0u8..12, detail in 0u8..8, volume in 0u16..2, a in 0u64..3, b in 0u64..3,
        tail in prop_oneof![Just(0usize), Just(16), Just(512), 0usize..40]
    ) {
        let mut body = vec![kind, detail];
        body.extend_from_slice(&volume.to_le_bytes());
        body.extend_from_slice(&(tail as u32).to_le_bytes());
        body.extend_from_slice(&a.to_le_bytes());
        body.extend_from_slice(&b.to_le_bytes());
        body.resize(24 + tail, 7);
        let body = Bytes::from(body);
        if let Ok(records) = decode_body(&body, WriteSeq(1), 1) {
            let mut again = BytesMut::new();
            encode_body(&records, &mut again);
            prop_assert_eq!(again.freeze(), body);
        }
    }

    #[test]
    fn hostile_bodies_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200), first in any::<u64>(), count in 0usize..10_000
    ) {
        let _ = decode_body(&bytes.into(), WriteSeq(first), count);
    }

    #[test]
    fn every_message_comes_back_whatever_the_cuts(
        messages in prop::collection::vec(message(), 1..5), step in 1usize..300
    ) {
        let stream: Vec<u8> = messages.iter().flat_map(encode).flatten().collect();
        let mut decoder = Decoder::new();
        let mut found = Vec::new();
        for part in stream.chunks(step) {
            decoder.feed(part);
            while let Some(message) = decoder.next().unwrap() {
                found.push(message);
            }
        }
        prop_assert_eq!(found, messages);
    }

    #[test]
    fn a_flipped_bit_of_a_frame_is_never_taken_for_a_message(
        message in message(), at in any::<prop::sample::Index>(), bit in 0u8..8
    ) {
        let mut frame = encode(&message).concat();
        let at = at.index(frame.len());
        frame[at] ^= 1 << bit;
        let mut decoder = Decoder::new();
        decoder.feed(&frame);
        // A longer announced length may leave it waiting for more; it never gives a message.
        prop_assert!(!matches!(decoder.next(), Ok(Some(_))));
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_an_error_is_final(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut decoder = Decoder::new();
        decoder.feed(&bytes);
        if let Err(error) = decoder.next() {
            decoder.feed(&encode(&Message::Bye).concat());
            prop_assert_eq!(decoder.next(), Err(error));
        }
        let _ = (peek(&bytes), open(&StreamKey::new([1; 32]), bytes.into()));
    }

    #[test]
    fn a_proof_holds_for_its_challenge_and_fields_only(mut hello in hello(), challenge in any::<[u8; 32]>()) {
        let key = StreamKey::new([3; 32]);
        prove(&key, &challenge, &mut hello);
        prop_assert!(verify(&key, &challenge, &hello));
        prop_assert!(!verify(&StreamKey::new([4; 32]), &challenge, &hello));
        let mut other = challenge;
        other[0] ^= 1;
        prop_assert!(!verify(&key, &other, &hello));
        hello.generation.0 ^= 1;
        prop_assert!(!verify(&key, &challenge, &hello));
    }
}

#[test]
fn a_long_detail_is_cut_at_a_character() {
    let message = Message::Refused { reason: RefusedReason::Busy, detail: "\u{e4}".repeat(DETAIL_BYTES_MAX) };
    let mut decoder = Decoder::new();
    decoder.feed(&encode(&message).concat());
    let Ok(Some(Message::Refused { detail, .. })) = decoder.next() else { panic!("it decodes") };
    assert_eq!(detail, "\u{e4}".repeat(DETAIL_BYTES_MAX / 2));
}

#[test]
fn the_largest_messages_fit_their_frames() {
    let volume = VolumeInfo { index: VolumeIndex(1), id: VolumeId(1), sectors: Sectors(1) };
    let many = redoubt_core::message::VOLUMES_MAX;
    let names: Vec<(u128, String)> = (0..many as u128).map(|id| (id, "x".repeat(64))).collect();
    let names = names_of(&"x".repeat(64), &names);
    let hello = Hello { volumes: vec![volume; many], names, ..fixed_hello() };
    let reply = HashReply { id: 1, as_of: WriteSeq(1), blocks: vec![Some([1; 32]); HASH_BLOCKS_MAX] };
    for message in [Message::Hello(hello), Message::HashReply(reply)] {
        let mut decoder = Decoder::new();
        decoder.feed(&encode(&message).concat());
        assert_eq!(decoder.next(), Ok(Some(message)));
    }
}

/// FR-3, read the way a connection reads: as much as there is room for.
#[test]
fn a_batch_holds_no_memory_but_its_own() {
    let key = StreamKey::new([3; 32]);
    let sizes = [4096, 512 << 10, 1 << 10, 200 << 10, 200 << 10, 4096, 4096];
    let batches: Vec<SealedBatch> = (1..).zip(sizes).map(|(seq, size)| batch_of(&key, seq, size)).collect();
    let stream: Vec<u8> = batches.iter().flat_map(|b| encode(&Message::Batch(b.clone()))).flatten().collect();
    let (mut decoder, mut rest, mut found) = (Decoder::new(), &stream[..], Vec::new());
    while !rest.is_empty() {
        let space = decoder.space(256 << 10);
        let room = (space.capacity() - space.len()).min(rest.len());
        assert!(room > 0, "each read brings something");
        let (part, later) = rest.split_at(room);
        space.extend_from_slice(part);
        rest = later;
        while let Some(Message::Batch(batch)) = decoder.next().unwrap() {
            found.push(batch);
        }
    }
    assert_eq!(found, batches);
    for batch in found {
        let length = batch.bytes.len();
        let own = batch.bytes.try_into_mut().expect("nobody else holds it");
        assert!(own.capacity() <= length + 64, "{length} bytes keep {} alive", own.capacity());
    }
}

fn batch_of(key: &StreamKey, seq: u64, size: usize) -> SealedBatch {
    let change = Change::Write { volume: VolumeIndex(0), lba: Lba(0), payload: vec![seq as u8; size].into() };
    let batch = Batch::new(Generation(1), vec![Record { seq: WriteSeq(seq), change }]).unwrap();
    seal(key, MachineId(1), &batch, Chain::default())
}

#[test]
fn a_hello_of_another_time_is_refused_by_its_versions() {
    let hello = Hello { versions: Versions { min: 2, max: 7 }, ..fixed_hello() };
    let mut decoder = Decoder::new();
    decoder.feed(&encode(&Message::Hello(hello.clone())).concat());
    assert_eq!(decoder.next(), Ok(Some(Message::Hello(hello.clone()))), "our layout: the session refuses it");
    // Laid out as nobody knows here: longer, and cut after the versions.
    let whole = encode(&Message::Hello(hello)).concat()[12..].to_vec();
    for payload in [[&whole[..], &[1; 9]].concat(), whole[..4].to_vec()] {
        let mut frame = vec![b'R', b'F', 1, 2];
        frame.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&frame), &payload);
        frame.extend_from_slice(&crc.to_le_bytes());
        frame.extend_from_slice(&payload);
        let mut decoder = Decoder::new();
        decoder.feed(&frame);
        let error = decoder.next().unwrap_err().to_string();
        assert!(error.contains("the peer speaks protocol versions 2..7, this engine 1..1"), "{error}");
    }
}

fn fixed_position(seq: u64) -> BatchPosition {
    BatchPosition { generation: Generation(2), seq: WriteSeq(seq), chain: Chain([seq as u8; 32]) }
}

fn fixed_hello() -> Hello {
    Hello {
        versions: Versions { min: 1, max: 1 },
        machine: MachineId(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
        generation: Generation(2),
        volumes: vec![VolumeInfo { index: VolumeIndex(1), id: VolumeId(0xab), sectors: Sectors(2048) }],
        names: names_of("erp", &[(0xab, "data".to_owned())]),
        held: Some((WriteSeq(5), WriteSeq(9))),
        newest: fixed_position(9),
        proof: [0; 32],
    }
}

/// One change of each kind, in the order of the format's kinds.
fn fixed_batch() -> Batch {
    let volume = VolumeIndex(1);
    let extent = Extent::new(8, 16);
    let data = || Bytes::from(vec![0xa5; 512]);
    let marker = Marker { id: MarkerId(0x77), kind: MarkerKind::App, wall: WallTime(1_700_000_000_000) };
    let changes = vec![
        Change::Attach { volume, id: VolumeId(0xab), sectors: Sectors(2048) },
        Change::ResyncBegin { reason: ResyncReason::Requested },
        Change::Write { volume, lba: Lba(7), payload: data() },
        Change::WriteZeroes { volume, extent },
        Change::Trim { volume, extent },
        Change::Resize { volume, sectors: Sectors(4096) },
        Change::Marker(marker),
        Change::ResyncWrite { volume, lba: Lba(9), payload: data() },
        Change::ResyncZeroes { volume, extent },
        Change::ResyncEnd,
    ];
    Batch::new(Generation(2), records(5, changes)).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    let lines = bytes.chunks(16).enumerate().map(|(i, line)| {
        let bytes: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{:06x}  {}", i * 16, bytes.join(" "))
    });
    lines.collect::<Vec<String>>().join("\n")
}

#[test]
fn the_bytes_of_a_sealed_batch_are_pinned() {
    let mut body = BytesMut::new();
    encode_body(&fixed_batch().records, &mut body);
    insta::assert_snapshot!("clear_body", hex(&body));
    let sealed = seal(&StreamKey::new([3; 32]), MachineId(9), &fixed_batch(), Chain([4; 32]));
    insta::assert_snapshot!("sealed_batch", hex(&sealed.bytes));
}

#[test]
fn the_bytes_of_each_frame_are_pinned() {
    let (staged, vaulted) = (fixed_position(9), fixed_position(4));
    let mut hello = fixed_hello();
    prove(&StreamKey::new([3; 32]), &[6; 32], &mut hello);
    let end = Batch::new(Generation(2), records(5, vec![Change::ResyncEnd])).unwrap();
    let batch = seal(&StreamKey::new([3; 32]), MachineId(9), &end, Chain([4; 32]));
    let extent = Extent::new(HASH_BLOCK_SECTORS, 2 * HASH_BLOCK_SECTORS);
    let request = HashRequest { id: 3, volume: VolumeIndex(1), extent, after: WriteSeq(9) };
    let reply = HashReply { id: 3, as_of: WriteSeq(9), blocks: vec![Some([8; 32]), None] };
    let frames = [
        ("challenge", Message::Challenge([6; 32])),
        ("hello", Message::Hello(hello)),
        ("welcome", Message::Welcome(Welcome { staged, vaulted, permits_total: 1 << 20, exact: true })),
        ("refused", Message::Refused { reason: RefusedReason::Gap, detail: "after 9".to_owned() }),
        ("batch", Message::Batch(batch)),
        ("ack", Message::Ack { staged, vaulted, permits_total: 1 << 21 }),
        ("hash_request", Message::HashRequest(request)),
        ("hash_reply", Message::HashReply(reply)),
        ("marks_request", Message::MarksRequest(MarksRequest { number: 4, disown: true })),
        ("marks_reply", Message::MarksReply(MarksReply { number: 4, is_disowned: true })),
        ("ping", Message::Ping(1)),
        ("pong", Message::Pong(1)),
        ("bye", Message::Bye),
    ];
    for (name, message) in frames {
        insta::assert_snapshot!(format!("frame_{name}"), hex(&encode(&message).concat()));
    }
}
