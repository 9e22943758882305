//! Bytes in pages: they grow without being moved, and a copy of some shares what nobody changes meanwhile.
//!
//! Invariants
//! - PGD-1 Behind the end of the bytes their last page holds zeros.
//!
//! What is *not* here: what of it is durable ([`super::content`]).

use std::ops::Range;
use std::sync::Arc;

/// Bytes that are shared as one.
pub(super) const PAGE: usize = 4096;

/// A page; whoever changes it while somebody else holds it has one of its own from then on.
pub(super) type Page = Arc<[u8; PAGE]>;

/// A file's bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Paged {
    pages: Vec<Page>,
    length: usize,
}

/// Returns the part of a page that holds these bytes of a file, which do not leave it.
pub(super) fn within(page: &Page, place: Range<usize>) -> &[u8] {
    let at = place.start % PAGE;
    &page[at..at + place.len()]
}

impl Paged {
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Returns the page that holds a byte.
    pub(super) fn page(&self, at: usize) -> Option<&Page> {
        self.pages.get(at / PAGE)
    }

    /// Cuts, or grows by zeros.
    pub(super) fn resize(&mut self, length: usize) {
        self.pages.resize_with(length.div_ceil(PAGE), || Arc::new([0; PAGE]));
        if length < self.length
            && let Some(last) = self.pages.last_mut().filter(|_| !length.is_multiple_of(PAGE))
        {
            // PGD-1
            Arc::make_mut(last)[length % PAGE..].fill(0);
        }
        self.length = length;
    }

    /// Puts bytes over others.
    pub(super) fn put(&mut self, offset: usize, bytes: &[u8]) {
        let (mut at, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(PAGE - at % PAGE));
            Arc::make_mut(&mut self.pages[at / PAGE])[at % PAGE..][..now.len()].copy_from_slice(now);
            (at, rest) = (at + now.len(), later);
        }
    }

    /// Returns bytes of which none leaves the page of the first.
    pub(super) fn part(&self, place: Range<usize>) -> &[u8] {
        self.page(place.start).map_or(&[], |page| within(page, place))
    }

    /// Returns a copy of some bytes.
    pub(super) fn copy(&self, place: Range<usize>) -> Vec<u8> {
        let mut copy = Vec::with_capacity(place.len());
        let mut at = place.start;
        while at < place.end {
            let to = place.end.min((at / PAGE + 1) * PAGE);
            copy.extend_from_slice(self.part(at..to));
            at = to;
        }
        copy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> Paged {
        let mut paged = Paged::default();
        paged.resize(bytes.len());
        paged.put(0, bytes);
        paged
    }

    #[test]
    fn pages_hold_what_plain_bytes_hold() {
        let (mut paged, mut plain) = (Paged::default(), Vec::new());
        for (step, length) in [5000, 12288, 4100, 4096, 9000, 0, 70].into_iter().enumerate() {
            paged.resize(length);
            plain.resize(length, 0);
            let from = length / 3;
            let bytes = vec![step as u8 + 1; length / 2];
            paged.put(from, &bytes);
            plain[from..from + bytes.len()].copy_from_slice(&bytes);
            assert_eq!(paged.copy(0..length), plain, "{length} bytes");
            assert_eq!(of(&plain).copy(from..length), plain[from..]);
        }
    }

    #[test]
    fn a_page_that_is_held_stays_as_it_was() {
        let mut paged = of(&[1; 5000]);
        let held = paged.page(0).unwrap().clone();
        paged.put(10, &[2; 100]);
        assert_eq!(within(&held, 0..512), [1; 512]);
        assert_eq!(paged.part(10..110), [2; 100]);
    }
}
