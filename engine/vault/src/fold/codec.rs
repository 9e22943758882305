//! The bytes of a fold.

use super::{Fold, FoldEnd, FoldRow, FoldZeros, Spans};
use crate::codec::{Malformed, Put, Take, checked_crc, put_crc};
use crate::index::{
    SegmentPlace, TableId, Version, put_clock, put_held, put_mark, put_points, take_clock, take_held,
    take_mark, take_points,
};
use crate::whole::{self, HEADER_BYTES};
use redoubt_core::{MachineId, VolumeIndex};
use redoubt_wire::aead::Key;

const MAGIC: &[u8; 8] = b"DRFOLD1\0";
/// Plain bytes at most. A writer closes a fold at half of it: a row with all its versions has less than the rest.
pub(crate) const PLAIN_MAX: usize = 16 << 20;
/// As in log records.
const SEGMENT_BYTES_MAX: u64 = 32 << 20;

fn key(id: &TableId, dek: &Key) -> Key {
    let (vault, machine) = (id.vault.to_be_bytes(), id.machine.0.to_be_bytes());
    dek.derive(&id.uuid.to_be_bytes(), &[b"drv1 fold", &vault, &machine])
}

/// Encodes a fold under its own identity, of a maintainer of this epoch; `None` if it has grown over its limit.
pub(crate) fn encode(id: &TableId, epoch: u64, fold: &Fold, dek: &Key) -> Option<Vec<u8>> {
    let plain = encode_body(fold);
    let header = |sealed, packed| {
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.put(MAGIC);
        header.put_u16(crate::vault::MAJOR);
        header.put_u16(crate::vault::MINOR);
        header.put_u32(id.dek);
        header.put_u128(id.vault);
        header.put_u128(id.machine.0);
        header.put_u128(id.uuid);
        header.put_u64(epoch);
        header.put_u32(sealed);
        header.put_u32(packed);
        header.resize(HEADER_BYTES - 4, 0);
        put_crc(&mut header);
        header
    };
    (plain.len() <= PLAIN_MAX).then(|| whole::seal(&key(id, dek), &plain, header))
}

/// Reads from the clear header which data key a fold is sealed with.
pub(crate) fn peek_dek(bytes: &[u8]) -> Result<u32, Malformed> {
    let header = bytes.get(..HEADER_BYTES).ok_or(Malformed("shorter than its header"))?;
    let mut take = Take::new(checked_crc(header)?);
    take.bytes(MAGIC.len() + 4)?;
    take.u32()
}

/// Decodes and checks a fold.
pub(crate) fn decode(id: &TableId, epoch: u64, bytes: &[u8], dek: &Key) -> Result<Fold, Malformed> {
    let header = bytes.get(..HEADER_BYTES).ok_or(Malformed("shorter than its header"))?;
    let mut take = Take::new(checked_crc(header)?);
    if take.array()? != *MAGIC || take.u16()? != crate::vault::MAJOR {
        return Err(Malformed("not a fold of this format"));
    }
    take.u16()?;
    let dek_id = take.u32()?;
    let (vault, machine, uuid) = (take.u128()?, MachineId(take.u128()?), take.u128()?);
    if (TableId { vault, machine, uuid, dek: dek_id }) != *id || take.u64()? != epoch {
        return Err(Malformed("the fold belongs elsewhere"));
    }
    let lengths = (take.u32()?, take.u32()?);
    decode_body(&whole::open(&key(id, dek), bytes, lengths, PLAIN_MAX)?)
}

fn zigzag(from: u64, to: u64) -> u64 {
    let delta = to.wrapping_sub(from) as i64;
    ((delta << 1) ^ (delta >> 63)) as u64
}

fn unzigzag(from: u64, code: u64) -> u64 {
    from.wrapping_add(((code >> 1) as i64 ^ -((code & 1) as i64)) as u64)
}

fn encode_body(fold: &Fold) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_varint(fold.from);
    out.put_varint(fold.to);
    out.put_u128(fold.run);
    out.put_varint(u64::from(fold.part));
    out.put_varint(fold.live);
    out.put_varint(fold.rows.len() as u64);
    fold.rows.iter().for_each(|row| put_row(&mut out, row));
    out.put_varint(fold.zeros.len() as u64);
    let mut last = (0, 0);
    for zeros in &fold.zeros {
        out.put_varint(u64::from(zeros.volume.0));
        out.put_varint(zigzag(last.0, zeros.first));
        out.put_varint(zeros.sectors);
        out.put_varint(zigzag(last.1, zeros.version.0));
        last = (zeros.first.wrapping_add(zeros.sectors), zeros.version.0);
    }
    out.put_u8(u8::from(fold.end.is_some()));
    if let Some(end) = &fold.end {
        put_mark(&mut out, &end.mark);
        put_clock(&mut out, &end.clock);
        put_points(&mut out, &end.live);
        put_points(&mut out, &end.retired);
    }
    out
}

fn put_row(out: &mut Vec<u8>, row: &FoldRow) {
    out.put_u128(row.place.uuid);
    out.put_varint(row.place.epoch);
    out.put_varint(u64::from(row.place.dek));
    put_held(out, row.place.held);
    out.put_varint(row.length);
    out.put_varint(row.tail);
    out.put_varint(u64::from(row.units));
    out.put(&row.root);
    out.put(&row.digest);
    match &row.spans {
        // Each list has at least one version.
        Spans::Of(slot) => [0, *slot].into_iter().for_each(|number| out.put_varint(number)),
        Spans::Each(versions) => {
            out.put_varint(versions.len() as u64);
            let mut last = 0;
            for version in versions {
                out.put_varint(version.0 - last);
                last = version.0;
            }
        }
    }
}

fn narrow(take: &mut Take<'_>) -> Result<u32, Malformed> {
    u32::try_from(take.varint()?).map_err(|_| Malformed("a number of the fold is too large"))
}

fn decode_body(bytes: &[u8]) -> Result<Fold, Malformed> {
    let mut take = Take::new(bytes);
    let (from, to) = (take.varint()?, take.varint()?);
    if from == 0 || from > to {
        return Err(Malformed("the fold ends before it begins"));
    }
    let (run, part, live) = (take.u128()?, narrow(&mut take)?, take.varint()?);
    let mut fold = Fold { from, to, run, part, live, ..Fold::default() };
    for _ in 0..take.varint()? {
        fold.rows.push(take_row(&mut take, from..=to)?);
    }
    let mut last = (0, 0);
    for _ in 0..take.varint()? {
        let volume =
            u16::try_from(narrow(&mut take)?).map_err(|_| Malformed("a volume's number is too large"))?;
        let (first, sectors) = (unzigzag(last.0, take.varint()?), take.varint()?);
        let version = Version(unzigzag(last.1, take.varint()?));
        let end = first.checked_add(sectors).filter(|end| *end > first);
        last = (end.ok_or(Malformed("zeros are empty or overflow"))?, version.0);
        if !(from..=to).contains(&version.slot()) {
            return Err(Malformed("a version lies outside of the fold"));
        }
        fold.zeros.push(FoldZeros { volume: VolumeIndex(volume), first, sectors, version });
    }
    if take.flag()? {
        let (mark, clock) = (take_mark(&mut take, to)?, take_clock(&mut take)?);
        let (live, retired) = (take_points(&mut take, to)?, take_points(&mut take, to)?);
        fold.end = Some(FoldEnd { mark, clock, live, retired });
    }
    take.finish()?;
    Ok(fold)
}

fn take_row(take: &mut Take<'_>, slots: std::ops::RangeInclusive<u64>) -> Result<FoldRow, Malformed> {
    let (uuid, epoch, dek) = (take.u128()?, take.varint()?, narrow(take)?);
    let place = SegmentPlace { uuid, epoch, dek, held: take_held(take)? };
    let (length, tail, units) = (take.varint()?, take.varint()?, narrow(take)?);
    if length > SEGMENT_BYTES_MAX || tail > length {
        return Err(Malformed("a segment has an impossible length"));
    }
    let (root, digest) = (take.array()?, take.array()?);
    let spans = match take.varint()? {
        0 => Spans::Of(take.varint()?),
        count => {
            let (mut versions, mut last) = (Vec::new(), 0u64);
            for at in 0..count {
                let step = take.varint()?;
                last = last.checked_add(step).ok_or(Malformed("a version overflows"))?;
                if at > 0 && step == 0 {
                    return Err(Malformed("versions do not ascend"));
                }
                versions.push(Version(last));
            }
            Spans::Each(versions)
        }
    };
    let is_within = match &spans {
        Spans::Of(slot) => slots.contains(slot),
        Spans::Each(versions) => versions.iter().all(|version| slots.contains(&version.slot())),
    };
    if !is_within {
        return Err(Malformed("a version lies outside of the fold"));
    }
    Ok(FoldRow { place, length, tail, units, root, digest, spans })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::fold::Mark;
    use crate::index::{Held, PointOf};
    use crate::log::HeadState;
    use crate::reader::{PointId, PointInfo};
    use proptest::prelude::*;
    use redoubt_core::maintenance::{PointClock, PointTime};
    use redoubt_core::{Marker, MarkerId, MarkerKind, WallTime, WriteSeq};

    pub(crate) const EPOCH: u64 = 6;

    pub(crate) fn example() -> Fold {
        let place = SegmentPlace { uuid: 0x99, epoch: 3, dek: 1, held: Held::Own };
        let (root, digest) = ([1; 32], [2; 32]);
        let row = |place, spans| FoldRow { place, length: 900, tail: 700, units: 3, root, digest, spans };
        let inline = SegmentPlace { held: Held::Inline { slot: 4, base: 200 }, ..place };
        let packed = SegmentPlace { epoch: EPOCH, held: Held::Packed, ..place };
        let each = Spans::Each(vec![Version::new(2, 1), Version::new(2, 7), Version::new(4, 0)]);
        let rows = vec![row(place, Spans::Of(3)), row(inline, Spans::Of(4)), row(packed, each)];
        let zeros = |first, sectors, version| FoldZeros { volume: VolumeIndex(1), first, sectors, version };
        let zeros = vec![zeros(128, 8192, Version::new(4, 0)), zeros(5, 3, Version::new(3, 2))];
        let (live, retired) = (vec![point(3)], vec![point(2)]);
        let mark = Mark { slot: 4, digest: [3; 32], epoch: 3, dek: 1, head: HeadState::default() };
        let end = Some(FoldEnd { mark, clock: PointClock::default(), live, retired });
        Fold { from: 2, to: 4, run: 0x55, part: 1, live: 640, rows, zeros, end }
    }

    fn point(slot: u64) -> PointOf {
        let marker = Marker { id: MarkerId(9), kind: MarkerKind::Crash, wall: WallTime(7) };
        let (seq, volumes) = (WriteSeq(slot * 10), Default::default());
        let info = PointInfo { id: PointId { slot, ordinal: 0 }, marker, seq, exact: true, volumes };
        PointOf { info, at: PointTime(slot) }
    }

    fn id() -> TableId {
        TableId { vault: 1, machine: MachineId(2), uuid: 3, dek: 1 }
    }

    #[test]
    fn a_fold_reads_back_as_written_and_only_as_what_it_is() {
        let dek = Key::new([4; 32]);
        let bytes = encode(&id(), EPOCH, &example(), &dek).unwrap();
        assert_eq!(decode(&id(), EPOCH, &bytes, &dek), Ok(example()));
        assert!(decode(&id(), EPOCH + 1, &bytes, &dek).is_err());
        assert!(decode(&TableId { uuid: 4, ..id() }, EPOCH, &bytes, &dek).is_err());
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            // The minor format is the one thing that may differ, and it is under the seal.
            assert!(decode(&id(), EPOCH, &damaged, &dek).is_err(), "byte {at}");
            assert!(decode(&id(), EPOCH, &bytes[..at], &dek).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn versions_outside_of_the_fold_and_in_disorder_are_refused() {
        for spans in [Spans::Of(5), Spans::Of(1), Spans::Each(vec![Version::new(5, 0)])] {
            let mut fold = example();
            fold.rows[0].spans = spans;
            assert!(decode_body(&encode_body(&fold)).is_err());
        }
        let mut fold = example();
        fold.zeros[0].version = Version::new(9, 0);
        assert!(decode_body(&encode_body(&fold)).is_err());
        fold.zeros.clear();
        fold.rows[2].spans = Spans::Each(vec![Version::new(3, 0), Version::new(3, 0)]);
        assert!(decode_body(&encode_body(&fold)).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn arbitrary_bytes_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode_body(&bytes);
            prop_assert!(decode(&id(), EPOCH, &bytes, &Key::new([4; 32])).is_err());
        }
    }
}
