//! Stamped sectors: content that names its writer.
//!
//! The first bytes of each sector are a marker in the clear ([`PLAINTEXT`]); the secrets oracle looks
//! for it wherever it must not be. The rest is derived from the stamp, half of it compressible.

use bytes::{Bytes, BytesMut};
use redoubt_core::{Extent, SECTOR_BYTES};

/// Marks guest data in the clear. It must never leave the machine unsealed.
pub const PLAINTEXT: &[u8; 16] = b"GUEST-PLAINTEXT!";

const SECTOR: usize = SECTOR_BYTES as usize;

/// Bytes of the stamp at the start of each sector.
const STAMPED: usize = 48;

const ZEROS: [u8; SECTOR] = [0; SECTOR];

/// Who wrote a sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    /// Number of the machine in the estate.
    pub machine: u16,
    /// Ordinal of the volume.
    pub volume: u16,
    /// Operation, counted from 1 over the machine's life.
    pub op: u64,
    /// Free for the guest's application; the database keeps its transaction here.
    pub note: u64,
    /// How much of it no compression saves.
    pub density: Density,
}

/// How many words of a sector are random, and how many are alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Density(u32);

impl Density {
    /// Words of a sector behind its stamp.
    const WORDS: u64 = (SECTOR as u64 - STAMPED as u64) / 8;
    /// What is random if nobody says.
    const USUAL: u64 = 26;

    /// Returns the density at which this share, in parts per million, is random.
    pub fn of(share: u32) -> Density {
        let words = (u64::from(share) * Density::WORDS).div_ceil(1_000_000).min(Density::WORDS);
        // 0 is the usual.
        Density(words as u32 + 1)
    }

    fn words(self) -> u64 {
        u64::from(self.0).checked_sub(1).unwrap_or(Density::USUAL).min(Density::WORDS)
    }
}

/// What a sector of an image holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Seen {
    /// Zeros.
    Zero,
    /// The full content of one operation: its number and note.
    Op(u64, u64),
    /// Anything else, by digest.
    Foreign(u64),
}

fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn fill(stamp: Stamp, lba: u64, out: &mut [u8]) {
    out[..16].copy_from_slice(PLAINTEXT);
    out[16..18].copy_from_slice(&stamp.machine.to_le_bytes());
    out[18..20].copy_from_slice(&stamp.volume.to_le_bytes());
    out[20..24].copy_from_slice(&stamp.density.0.to_le_bytes());
    out[24..32].copy_from_slice(&stamp.op.to_le_bytes());
    out[32..40].copy_from_slice(&stamp.note.to_le_bytes());
    out[40..48].copy_from_slice(&lba.to_le_bytes());
    let mut state =
        mix(stamp.op ^ (lba << 32) ^ (u64::from(stamp.machine) << 56) ^ stamp.note.rotate_left(17));
    let random = STAMPED + stamp.density.words() as usize * 8;
    for word in out[STAMPED..random].chunks_exact_mut(8) {
        state = mix(state);
        word.copy_from_slice(&state.to_le_bytes());
    }
    out[random..].fill((state & 0xff) as u8);
}

/// Returns the content of an extent as written by one operation.
pub fn content(stamp: Stamp, extent: Extent) -> Bytes {
    let mut out = BytesMut::zeroed(extent.bytes() as usize);
    for (index, sector) in out.chunks_exact_mut(SECTOR).enumerate() {
        fill(stamp, extent.lba.0 + index as u64, sector);
    }
    out.freeze()
}

/// Reads one sector of a machine's volume back.
pub fn recognise(machine: u16, volume: u16, lba: u64, sector: &[u8]) -> Seen {
    if sector == &ZEROS[..sector.len().min(SECTOR)] {
        return Seen::Zero;
    }
    if sector.len() == SECTOR && sector.starts_with(PLAINTEXT) {
        let word = |at: usize| u64::from_le_bytes(sector[at..at + 8].try_into().unwrap_or([0; 8]));
        let density = Density((word(16) >> 32) as u32);
        let stamp = Stamp { machine, volume, op: word(24), note: word(32), density };
        let mut expected = [0u8; SECTOR];
        fill(stamp, lba, &mut expected);
        if expected[..] == sector[..] {
            return Seen::Op(stamp.op, stamp.note);
        }
    }
    let digest = blake3::hash(sector);
    Seen::Foreign(u64::from_le_bytes(digest.as_bytes()[..8].try_into().unwrap_or([0; 8])))
}

/// Reads a whole image back.
pub fn read_image(machine: u16, volume: u16, image: &[u8]) -> Vec<Seen> {
    image
        .chunks(SECTOR)
        .enumerate()
        .map(|(lba, sector)| recognise(machine, volume, lba as u64, sector))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sector_names_its_writer_only_at_its_own_place() {
        let stamp = Stamp { machine: 1, volume: 2, op: 77, note: 5, density: Density::default() };
        let bytes = content(stamp, Extent::new(10, 2));
        assert_eq!(recognise(1, 2, 10, &bytes[..512]), Seen::Op(77, 5));
        assert_eq!(recognise(1, 2, 11, &bytes[512..]), Seen::Op(77, 5));
        assert!(matches!(recognise(1, 2, 11, &bytes[..512]), Seen::Foreign(_)));
        assert!(matches!(recognise(1, 1, 10, &bytes[..512]), Seen::Foreign(_)));
        assert_eq!(recognise(1, 1, 10, &[0; 512]), Seen::Zero);
    }

    #[test]
    fn a_denser_sector_has_more_that_no_compression_saves_and_is_recognised_as_well() {
        let random = |density| {
            let stamp = Stamp { machine: 1, volume: 2, op: 77, note: 5, density };
            let bytes = content(stamp, Extent::new(10, 1));
            assert_eq!(recognise(1, 2, 10, &bytes), Seen::Op(77, 5));
            // What is alike at the end.
            SECTOR - bytes.iter().rev().take_while(|byte| **byte == bytes[SECTOR - 1]).count()
        };
        assert_eq!(random(Density::of(0)), STAMPED);
        assert_eq!(random(Density::of(1_000_000)), SECTOR - 1, "the last byte is alike with itself");
        assert_eq!(random(Density::default()), random(Density::of(26 * 1_000_000 / 58)));
    }
}
