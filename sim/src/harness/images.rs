//! Images of points, read one after another: every byte is read and compared, but a page is looked at again only if it
//! differs from what it was in the point before.
//!
//! Points that follow one another are much alike, so what is kept of them is shared page by page.
//!
//! Invariants
//! - PG-1 What a sector is taken for is what [`stamp::recognise`] says of its bytes, whatever was read before it.
//!
//! What is *not* here: reading the vault, and judging what was read.

use crate::workload::stamp::{self, Seen};
use std::sync::Arc;

const SECTOR: usize = 512;

/// Bytes that are compared, looked at and kept as one: what guests write at least.
const PAGE: usize = 4096;

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

/// One volume of a machine, as it was at the point that is read.
pub(super) struct Volume {
    machine: u16,
    index: u16,
    bytes: Vec<u8>,
    seen: Vec<Seen>,
    pages: Vec<Arc<[u8]>>,
}

impl Volume {
    /// Makes a volume of zeros.
    fn new(machine: u16, index: u16, length: usize) -> Volume {
        let zeros: Arc<[u8]> = Arc::from([0; PAGE]);
        let mut pages = vec![Arc::clone(&zeros); length / PAGE];
        if !length.is_multiple_of(PAGE) {
            pages.push(Arc::from(&zeros[..length % PAGE]));
        }
        Volume { machine, index, bytes: vec![0; length], seen: vec![Seen::Zero; length / SECTOR], pages }
    }

    /// Takes what was read from a sector on: whole pages, but for the last one of the volume.
    pub(super) fn put(&mut self, first: u64, piece: &[u8]) {
        let from = first as usize * SECTOR;
        debug_assert!(from.is_multiple_of(PAGE));
        for (at, page) in (from..).step_by(PAGE).zip(piece.chunks(PAGE)) {
            let before = &mut self.bytes[at..at + page.len()];
            if before == page {
                continue;
            }
            before.copy_from_slice(page);
            for (sector, bytes) in (at / SECTOR..).zip(page.chunks(SECTOR)) {
                self.seen[sector] = stamp::recognise(self.machine, self.index, sector as u64, bytes);
            }
            self.pages[at / PAGE] = Arc::from(page);
        }
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
    use redoubt_core::Extent;

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

    #[test]
    fn what_is_seen_of_a_point_depends_on_no_point_before() {
        let mut foreign = written(&[(1, 0, 8)]);
        foreign[17 * SECTOR + 5] = 9;
        let points =
            [written(&[(1, 0, 8), (2, 7, 5)]), foreign, written(&[(2, 7, 5)]), written(&[(1, 0, 8)])];
        let mut volumes = Volumes::new(3);
        for image in &points {
            let volume = volumes.volume(0, SECTORS);
            volume.put(0, &image[..8 * SECTOR]);
            volume.put(8, &image[8 * SECTOR..]);
            assert_eq!(volume.bytes(), image);
            assert_eq!(volume.as_ref(), stamp::read_image(3, 0, image));
            assert_eq!(volume.image().differs(0, image), None);
        }
    }

    #[test]
    fn an_image_stays_as_it_was_and_shares_what_did_not_change() {
        let (old, new) = (written(&[(1, 0, 20)]), written(&[(1, 0, 20), (2, 9, 2)]));
        let mut volumes = Volumes::new(3);
        volumes.volume(0, SECTORS).put(0, &old);
        let before = volumes.all()[0].image();
        volumes.volume(0, SECTORS).put(0, &new);
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
        volumes.volume(0, SECTORS).put(0, &written(&[(1, 0, 20)]));
        let volume = volumes.volume(0, 8);
        assert_eq!((volume.bytes().len(), volume.as_ref().len()), (8 * SECTOR, 8));
        assert!(volume.as_ref().iter().all(|seen| *seen == Seen::Zero));
    }
}
