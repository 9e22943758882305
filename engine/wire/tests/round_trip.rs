//! Bytes go out and come back as they were; hostile bytes are refused without a panic.

use bytes::Bytes;
use proptest::prelude::*;
use redoubt_core::change::{Batch, Change, Record};
use redoubt_core::{Chain, Generation, Lba, MachineId, VolumeIndex, WriteSeq};
use redoubt_wire::{Decoder, Message, SealError, StreamKey, encode, open, peek, seal};

fn batch(first: u64, fills: &[u8]) -> Batch {
    let write = |fill: u8| Change::Write {
        volume: VolumeIndex(1),
        lba: Lba(u64::from(fill)),
        payload: Bytes::from(vec![fill; 512]),
    };
    let records = fills.iter().enumerate();
    let records = records.map(|(i, fill)| Record { seq: WriteSeq(first + i as u64), change: write(*fill) });
    Batch::new(Generation(2), records.collect()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_sealed_batch_opens_as_it_was_after_any_cut_of_its_frame(
        first in 1u64..1000, fills in prop::collection::vec(any::<u8>(), 1..9), step in 1usize..700
    ) {
        let key = StreamKey::new([3; 32]);
        let sealed = seal(&key, MachineId(9), &batch(first, &fills), Chain([4; 32]));
        prop_assert_eq!(peek(&sealed.bytes).unwrap(), sealed.meta);
        let frame = encode(&Message::Batch(sealed.clone())).concat();
        let mut decoder = Decoder::new();
        let mut found = Vec::new();
        for part in frame.chunks(step) {
            decoder.feed(part);
            found.extend(decoder.next().unwrap());
        }
        prop_assert_eq!(found, vec![Message::Batch(sealed.clone())]);
        prop_assert_eq!(open(&key, sealed.bytes.clone()).unwrap(), batch(first, &fills));
        let other = StreamKey::new([5; 32]);
        let told = SealError::OtherKey { found: key.id(), ours: other.id() };
        prop_assert_eq!(open(&other, sealed.bytes), Err(told));
    }

    #[test]
    fn one_flipped_bit_never_opens(at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let key = StreamKey::new([3; 32]);
        let mut bytes = seal(&key, MachineId(9), &batch(1, &[1, 2]), Chain::default()).bytes.to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(open(&key, bytes.into()).is_err());
    }

    #[test]
    fn hostile_bytes_never_panic(kind in 0u8..13, bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut decoder = Decoder::new();
        let mut head = vec![b'R', b'F', 1, kind];
        head.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&head), &bytes);
        head.extend_from_slice(&crc.to_le_bytes());
        decoder.feed(&head);
        decoder.feed(&bytes);
        let _ = decoder.next();
        let _ = peek(&bytes);
    }
}
