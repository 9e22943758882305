//! Content as identities: what a payload, a sealed batch, a digest and a chain are when there are no bytes.
//!
//! The machines pass payloads on as `Bytes` of the right length, cut pieces out of them, and never look inside.
//! So all bytes here are slices of one run of zeros, and *where* a slice begins says what it stands for:
//!
//! - A payload begins at its number, below 64 KiB. The machines cut at multiples of 64 KiB, so the number stays
//!   readable, and the rest of the offset says where the piece begins.
//! - A sealed batch is never cut: it begins at its number in the ledger of its machine.
//!
//! So identity travels with the bytes themselves: a machine that mixed two payloads up would be found out.
//!
//! What a page holds is a *cell*: zero, or the number of the guest's operation that wrote it.

use bytes::Bytes;
use redoubt_core::sealed::{RECORD_HEADER_BYTES, SEALED_HEADER_BYTES};
use redoubt_core::{
    Batch, Chain, Change, Extent, MachineId, SealedBatch, SealedFlags, SealedMeta, VolumeIndex, WriteSeq,
};

/// Sectors of a page, the unit of content at this tier.
pub(super) const PAGE_SECTORS: u64 = 8;

/// What a page holds: zero, or the number of the operation that wrote it.
pub(super) type Cell = u64;

const ZEROS_BYTES: usize = 16 << 20;
static ZEROS: [u8; ZEROS_BYTES] = [0; ZEROS_BYTES];

/// Payloads on the way from a disk to a sealed batch; the oldest is forgotten for a newer one.
const PAYLOADS: usize = 1 << 16;

/// Sealed batches of one machine in one run: what the numbers of their slices can tell apart.
const BATCHES_MAX: usize = 11 << 20;

fn slice(number: usize, bytes: u64) -> Bytes {
    Bytes::from_static(&ZEROS[number..number + bytes as usize])
}

/// Returns where a slice of the zeros begins.
fn offset(bytes: &Bytes) -> usize {
    (bytes.as_ptr() as usize).wrapping_sub(ZEROS.as_ptr() as usize)
}

/// What a payload holds.
enum Payload {
    /// A write of the guest: all of it is of one operation.
    Op(u64),
    /// Pages as a disk was read.
    Cells(Box<[Cell]>),
}

/// What one record changes.
pub(super) enum Item {
    /// Pages of one operation.
    Written { volume: u16, page: u32, pages: u32, op: u64 },
    /// Pages read from a disk.
    Read { volume: u16, page: u32, cells: Box<[Cell]> },
    /// Pages that are zeros.
    Zeroed { volume: u16, page: u32, pages: u32 },
    /// A cut.
    Marker(redoubt_core::MarkerId),
    /// Order is not connected to what was before.
    Begin,
    /// Order holds again.
    End,
    /// A volume is declared.
    Attach,
    /// What no disk gave to the machine: it made that up, or mixed two payloads.
    Unknown,
}

/// A sealed batch as it really is.
pub(super) struct Sealed {
    pub(super) meta: SealedMeta,
    pub(super) items: Vec<Item>,
}

/// Everything that a machine read, wrote and sealed: what the slices stand for.
pub(super) struct Ledger {
    machine: MachineId,
    payloads: Vec<Payload>,
    next_payload: usize,
    pub(super) batches: Vec<Sealed>,
}

impl Ledger {
    pub(super) fn new(machine: MachineId) -> Ledger {
        Ledger { machine, payloads: Vec::new(), next_payload: 0, batches: Vec::new() }
    }

    fn put(&mut self, payload: Payload, sectors: u64) -> Bytes {
        let number = self.next_payload % PAYLOADS;
        if number == self.payloads.len() {
            self.payloads.push(payload);
        } else {
            self.payloads[number] = payload;
        }
        self.next_payload += 1;
        slice(number, sectors * redoubt_core::SECTOR_BYTES)
    }

    /// Returns the payload of a guest's write.
    pub(super) fn written(&mut self, op: u64, extent: Extent) -> Bytes {
        self.put(Payload::Op(op), extent.sectors.0)
    }

    /// Returns the payload of pages that were read.
    pub(super) fn read(&mut self, cells: &[Cell]) -> Bytes {
        self.put(Payload::Cells(cells.into()), cells.len() as u64 * PAGE_SECTORS)
    }

    fn item(&self, change: &Change) -> Item {
        let pages = |extent: &Extent| {
            ((extent.lba.0 / PAGE_SECTORS) as u32, extent.sectors.0.div_ceil(PAGE_SECTORS) as u32)
        };
        match change {
            Change::Write { volume, lba, payload } | Change::ResyncWrite { volume, lba, payload } => {
                self.content(*volume, lba.0, payload)
            }
            Change::WriteZeroes { volume, extent }
            | Change::Trim { volume, extent }
            | Change::ResyncZeroes { volume, extent } => {
                let (page, pages) = pages(extent);
                Item::Zeroed { volume: volume.0, page, pages }
            }
            Change::Marker(marker) => Item::Marker(marker.id),
            Change::ResyncBegin { .. } => Item::Begin,
            Change::ResyncEnd => Item::End,
            Change::Attach { .. } => Item::Attach,
            // No plan changes a size.
            Change::Resize { .. } => Item::Unknown,
        }
    }

    fn content(&self, volume: VolumeIndex, lba: u64, payload: &Bytes) -> Item {
        let at = offset(payload);
        let page = (lba / PAGE_SECTORS) as u32;
        let page_bytes = (PAGE_SECTORS * redoubt_core::SECTOR_BYTES) as usize;
        let pages = payload.len().div_ceil(page_bytes);
        match self.payloads.get(at % PAYLOADS).filter(|_| at < ZEROS_BYTES) {
            Some(Payload::Op(op)) => Item::Written { volume: volume.0, page, pages: pages as u32, op: *op },
            Some(Payload::Cells(cells)) => {
                let first = at / PAYLOADS * PAYLOADS / page_bytes;
                let cells = cells.get(first..first + pages);
                cells.map_or(Item::Unknown, |cells| Item::Read {
                    volume: volume.0,
                    page,
                    cells: cells.into(),
                })
            }
            None => Item::Unknown,
        }
    }

    /// Seals a batch behind a chain. The chain holds the batch's number, so that no two histories are equal.
    pub(super) fn seal(&mut self, batch: &Batch, prev: Chain) -> SealedBatch {
        let number = self.batches.len();
        assert!(number < BATCHES_MAX, "a run of the core tier seals fewer than {BATCHES_MAX} batches");
        let items: Vec<Item> = batch.records.iter().map(|record| self.item(&record.change)).collect();
        let is_attach = |item: &&Item| matches!(item, Item::Attach);
        let opens = matches!(items.iter().find(|item| !is_attach(item)), Some(Item::Begin));
        let has_marker = items.iter().any(|item| matches!(item, Item::Marker(_)));
        let flags = if opens { SealedFlags::STARTS_RESYNC } else { 0 }
            | if has_marker { SealedFlags::HAS_MARKER } else { 0 };
        let payload: usize = batch.records.iter().filter_map(|r| r.change.payload()).map(Bytes::len).sum();
        let bytes = SEALED_HEADER_BYTES + batch.records.len() * RECORD_HEADER_BYTES + payload;
        let meta = SealedMeta {
            machine: self.machine,
            generation: batch.generation,
            first: batch.first(),
            last: batch.last(),
            flags: SealedFlags(flags),
            prev,
            chain: link(prev, number as u64, batch.last()),
            bytes: bytes as u32,
        };
        self.batches.push(Sealed { meta, items });
        SealedBatch { meta, bytes: slice(number, bytes as u64) }
    }

    /// Returns the bytes of a batch, as they are read back from a file.
    pub(super) fn bytes(&self, number: u32) -> Bytes {
        slice(number as usize, u64::from(self.batches[number as usize].meta.bytes))
    }
}

/// Returns the number of a sealed batch.
pub(super) fn number_of(bytes: &Bytes) -> u32 {
    offset(bytes) as u32
}

fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn four(words: [u64; 4]) -> [u8; 32] {
    let mut out = [0; 32];
    for (place, word) in out.chunks_exact_mut(8).zip(words) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    out
}

fn link(prev: Chain, number: u64, last: WriteSeq) -> Chain {
    let before = prev.0.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    Chain(four([mix(before ^ mix(number + 1)), number + 1, last.0, 0x5ea1]))
}

/// Returns the digest of a block: equal cells give equal digests, and others never meet in a run.
pub(super) fn digest(cells: &[Cell]) -> [u8; 32] {
    let (mut a, mut b) = (0x9e37_79b9_7f4a_7c15u64, 0xc2b2_ae3d_27d4_eb4fu64);
    for cell in cells {
        a = mix(a ^ cell);
        b = mix(b.wrapping_add(*cell)).rotate_left(17);
    }
    four([a, b, cells.len() as u64, 0xd19e])
}

#[cfg(test)]
mod tests {
    use super::*;
    use redoubt_core::{Generation, Lba, Record};

    #[test]
    fn a_piece_of_a_payload_still_says_what_it_is() {
        let mut ledger = Ledger::new(MachineId(1));
        let cells: Vec<Cell> = (1..=64).collect();
        let payload = ledger.read(&cells);
        let block = 16 * 4096;
        let piece = payload.slice(2 * block..3 * block);
        let change = Change::ResyncWrite { volume: VolumeIndex(0), lba: Lba(256), payload: piece };
        let Item::Read { page, cells: found, .. } = ledger.item(&change) else { panic!("it is pages") };
        assert_eq!((page, &found[..]), (32, &cells[32..48]));
        let strange =
            Change::Write { volume: VolumeIndex(0), lba: Lba(0), payload: Bytes::from_static(&[0; 4096]) };
        assert!(matches!(ledger.item(&strange), Item::Unknown));
    }

    #[test]
    fn a_sealed_batch_is_found_by_its_bytes_and_no_two_chains_are_equal() {
        let mut ledger = Ledger::new(MachineId(1));
        let batch = |seq| {
            Batch::new(Generation(1), vec![Record { seq: WriteSeq(seq), change: Change::ResyncEnd }]).unwrap()
        };
        let first = ledger.seal(&batch(1), Chain::default());
        let second = ledger.seal(&batch(1), Chain::default());
        assert_eq!((number_of(&first.bytes), number_of(&second.bytes)), (0, 1));
        assert_ne!(first.meta.chain, second.meta.chain);
        assert_eq!(number_of(&ledger.bytes(1)), 1);
    }

    #[test]
    fn digests_are_equal_for_equal_cells_only() {
        assert_eq!(digest(&[1, 2]), digest(&[1, 2]));
        assert!([[2u64, 1], [1, 3], [0, 2]].iter().all(|other| digest(other) != digest(&[1, 2])));
    }
}
