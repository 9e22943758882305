//! Images of points, read one after another: every byte is read, and compared unless it is the very memory that was compared
//! before, but a page is looked at again only if it differs from what it was in the point before.
//!
//! Points that follow one another are much alike, so what is kept of them is shared page by page.
//!
//! Invariants
//! - PG-1 What a sector is taken for is what [`stamp::recognise`] says of its bytes, whatever was read before it.
//! - PG-2 What is not compared lies in memory that was held since it was, so that it cannot have changed; or is zeros in
//!   both points.
//!
//! What is *not* here: reading the vault, and judging what was read.

use crate::workload::stamp::{self, Seen};
use bytes::Bytes;
use redoubt_core::Extent;
use std::sync::Arc;

const SECTOR: usize = 512;

/// Bytes that are compared, looked at and kept as one: what guests write at least.
const PAGE: usize = 4096;

const ZEROS: [u8; PAGE] = [0; PAGE];

/// A volume as it was at one point; pages that did not change are shared with other points.
pub(super) struct Image(Vec<Arc<[u8]>>);

impl Image {
    /// Returns the first sector of a piece that holds other bytes than the image.
    pub(super) fn differs(&self, first: u64, piece: &[u8]) -> Option<u64> {
        let mut sectors = (first..).zip(piece.chunks(SECTOR));
        sectors.find(|(sector, bytes)| self.sector(*sector) != Some(bytes)).map(|(sector, _)| sector)
    }

    /// Counts the bytes of the sectors that are other than in an older image; without one, other than zeros.
    pub(super) fn newer_than(&self, old: Option<&Image>) -> u64 {
        let zeros = [0; SECTOR];
        let mut sectors = 0;
        for (at, page) in self.0.iter().enumerate() {
            let before = old.and_then(|old| old.0.get(at));
            if before.is_some_and(|before| Arc::ptr_eq(before, page)) {
                continue;
            }
            for (index, sector) in page.chunks(SECTOR).enumerate() {
                let was = before.and_then(|page| page.get(index * SECTOR..(index + 1) * SECTOR));
                sectors += u64::from(sector != was.unwrap_or(&zeros));
            }
        }
        sectors * SECTOR as u64
    }

    fn sector(&self, sector: u64) -> Option<&[u8]> {
        let at = sector as usize * SECTOR;
        let page = self.0.get(at / PAGE)?;
        page.get(at % PAGE..at % PAGE + SECTOR)
    }
}

/// Where the bytes of a page of the point before lie.
#[derive(Clone)]
enum Held {
    /// Here only.
    Here,
    /// Nowhere: nothing was written there.
    Zeros,
    /// In the reader's memory, which stays as it is for as long as it is held.
    There(Bytes),
}

/// One volume of a machine, as it was at the point that is read.
pub(super) struct Volume {
    machine: u16,
    index: u16,
    bytes: Vec<u8>,
    seen: Vec<Seen>,
    pages: Vec<Arc<[u8]>>,
    held: Vec<Held>,
    /// Sectors of each page of the piece that is read that were handed over, as bits.
    got: Vec<u8>,
    /// First page of that piece.
    from: usize,
}

impl Volume {
    /// Makes a volume of zeros.
    fn new(machine: u16, index: u16, length: usize) -> Volume {
        let zeros: Arc<[u8]> = Arc::from([0; PAGE]);
        let mut pages = vec![Arc::clone(&zeros); length / PAGE];
        if !length.is_multiple_of(PAGE) {
            pages.push(Arc::from(&zeros[..length % PAGE]));
        }
        let held = vec![Held::Zeros; pages.len()];
        let (bytes, seen) = (vec![0; length], vec![Seen::Zero; length / SECTOR]);
        Volume { machine, index, bytes, seen, pages, held, got: Vec::new(), from: 0 }
    }

    /// Begins to read a piece: whole pages, but for the last one of the volume.
    pub(super) fn begin(&mut self, piece: Extent) {
        let (from, to) = (piece.lba.0 as usize * SECTOR, piece.end() as usize * SECTOR);
        debug_assert!(from.is_multiple_of(PAGE));
        self.from = from / PAGE;
        self.got.clear();
        self.got.resize(to.div_ceil(PAGE) - self.from, 0);
    }

    /// Takes what the piece holds from a sector on.
    pub(super) fn take(&mut self, first: u64, mut part: Bytes) {
        let mut at = first as usize * SECTOR;
        while !part.is_empty() {
            let within = part.split_to(part.len().min(PAGE - at % PAGE));
            let next = at + within.len();
            self.take_within(at, within);
            at = next;
        }
    }

    /// Ends a piece: what was not handed over is zeros.
    pub(super) fn end(&mut self) {
        for (page, got) in (self.from..).zip(std::mem::take(&mut self.got)) {
            let (from, to) = (page * PAGE, self.bytes.len().min((page + 1) * PAGE));
            if got == 0 {
                if !matches!(self.held[page], Held::Zeros) {
                    self.put(from, &ZEROS[..to - from]);
                    self.held[page] = Held::Zeros;
                }
                continue;
            }
            for at in (from..to).step_by(SECTOR) {
                if got & 1 << ((at - from) / SECTOR) == 0 {
                    self.held[page] = Held::Here;
                    self.put(at, &ZEROS[..SECTOR]);
                }
            }
        }
    }

    /// Takes what lies within one page. Is it the memory of the point before, then it holds the same (PG-2).
    fn take_within(&mut self, at: usize, part: Bytes) {
        let page = at / PAGE;
        let sectors = part.len() / SECTOR;
        self.got[page - self.from] |= (((1u16 << sectors) - 1) << (at % PAGE / SECTOR)) as u8;
        let is_whole = part.len() == self.pages[page].len();
        let is_same = |held: &Bytes| held.as_ptr() == part.as_ptr() && held.len() == part.len();
        match &self.held[page] {
            Held::There(held) if is_whole && is_same(held) => {}
            _ => {
                self.put(at, &part);
                self.held[page] = if is_whole { Held::There(part) } else { Held::Here };
            }
        }
    }

    /// Compares what lies within one page, and looks at it if it differs.
    fn put(&mut self, at: usize, part: &[u8]) {
        let before = &mut self.bytes[at..at + part.len()];
        if before == part {
            return;
        }
        before.copy_from_slice(part);
        for (sector, bytes) in (at / SECTOR..).zip(part.chunks(SECTOR)) {
            self.seen[sector] = stamp::recognise(self.machine, self.index, sector as u64, bytes);
        }
        let page = at / PAGE;
        let (from, to) = (page * PAGE, self.bytes.len().min((page + 1) * PAGE));
        self.pages[page] = Arc::from(&self.bytes[from..to]);
    }

    /// Returns what was read.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns what is to be kept of it.
    pub(super) fn image(&self) -> Image {
        Image(self.pages.clone())
    }
}

impl AsRef<[Seen]> for Volume {
    fn as_ref(&self) -> &[Seen] {
        &self.seen
    }
}

/// The volumes of a machine, point after point.
pub(super) struct Volumes {
    machine: u16,
    volumes: Vec<Volume>,
}

impl Volumes {
    /// Begins to read the points of a machine.
    pub(super) fn new(machine: u16) -> Volumes {
        Volumes { machine, volumes: Vec::new() }
    }

    /// Returns a volume to read a point of this size into.
    pub(super) fn volume(&mut self, index: usize, sectors: u64) -> &mut Volume {
        let length = sectors as usize * SECTOR;
        while self.volumes.len() <= index {
            self.volumes.push(Volume::new(self.machine, self.volumes.len() as u16, 0));
        }
        if self.volumes[index].bytes.len() != length {
            self.volumes[index] = Volume::new(self.machine, index as u16, length);
        }
        &mut self.volumes[index]
    }

    /// Returns the volumes as the last point has them.
    pub(super) fn all(&self) -> &[Volume] {
        &self.volumes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::stamp::{Stamp, content};

    const SECTORS: u64 = 20;

    /// Content of a volume whose extents were written by these operations.
    fn written(by: &[(u64, u64, u64)]) -> Vec<u8> {
        let mut image = vec![0; SECTORS as usize * SECTOR];
        for (op, first, sectors) in by {
            let stamp = Stamp { machine: 3, volume: 0, op: *op, note: 0, density: stamp::Density::default() };
            let bytes = content(stamp, Extent::new(*first, *sectors));
            image[*first as usize * SECTOR..][..bytes.len()].copy_from_slice(&bytes);
        }
        image
    }

    /// Reads from a sector on as the reader does: in parts, in no order, and without parts of zeros.
    fn read(volume: &mut Volume, first: u64, piece: &Bytes, part: usize) {
        volume.begin(Extent::new(first, (piece.len() / SECTOR) as u64));
        for at in (0..piece.len()).step_by(part * SECTOR).rev() {
            let bytes = piece.slice(at..piece.len().min(at + part * SECTOR));
            if bytes.iter().any(|byte| *byte != 0) {
                volume.take(first + (at / SECTOR) as u64, bytes);
            }
        }
        volume.end();
    }

    #[test]
    fn what_is_seen_of_a_point_depends_on_no_point_before() {
        let mut foreign = written(&[(1, 0, 8)]);
        foreign[17 * SECTOR + 5] = 9;
        let points =
            [written(&[(1, 0, 8), (2, 7, 5)]), foreign, written(&[(2, 7, 5)]), written(&[(1, 0, 8)])];
        // Twice each, and once more from other memory: what is held is met, and is not.
        let memory = points.map(Bytes::from);
        let others = memory.clone().map(|image| Bytes::copy_from_slice(&image));
        for part in [1, 3, 8, 20] {
            let mut volumes = Volumes::new(3);
            for (image, other) in memory.iter().zip(&others) {
                for image in [image, image, other, image] {
                    let volume = volumes.volume(0, SECTORS);
                    read(volume, 0, &image.slice(..8 * SECTOR), part);
                    read(volume, 8, &image.slice(8 * SECTOR..), part);
                    assert_eq!(volume.bytes(), image);
                    assert_eq!(volume.as_ref(), stamp::read_image(3, 0, image));
                    assert_eq!(volume.image().differs(0, image), None);
                }
            }
        }
    }

    #[test]
    fn an_image_stays_as_it_was_and_shares_what_did_not_change() {
        let points = [written(&[(1, 0, 20)]), written(&[(1, 0, 20), (2, 9, 2)])];
        let [old, new] = points.map(Bytes::from);
        let mut volumes = Volumes::new(3);
        read(volumes.volume(0, SECTORS), 0, &old, 20);
        let before = volumes.all()[0].image();
        read(volumes.volume(0, SECTORS), 0, &new, 20);
        let after = volumes.all()[0].image();
        assert_eq!(before.differs(0, &old), None);
        assert_eq!(before.differs(0, &new), Some(9));
        assert_eq!(before.differs(10, &new[10 * SECTOR..]), Some(10));
        let shared: Vec<bool> = before.0.iter().zip(&after.0).map(|(a, b)| Arc::ptr_eq(a, b)).collect();
        assert_eq!(shared, [true, false, true], "a page is kept once");
        let bytes = [before.newer_than(None), after.newer_than(None), after.newer_than(Some(&before))];
        assert_eq!(bytes, [20, 20, 2].map(|sectors| sectors * SECTOR as u64));
    }

    #[test]
    fn a_volume_of_another_size_is_read_from_the_beginning() {
        let mut volumes = Volumes::new(3);
        read(volumes.volume(0, SECTORS), 0, &written(&[(1, 0, 20)]).into(), 20);
        let volume = volumes.volume(0, 8);
        assert_eq!((volume.bytes().len(), volume.as_ref().len()), (8 * SECTOR, 8));
        assert!(volume.as_ref().iter().all(|seen| *seen == Seen::Zero));
    }
}
