//! Compression contexts: making one costs more than a small unit does, so each thread keeps one of either kind for the
//! next use.
//!
//! What is *not* here: what is compressed, and what bounds it.

use crate::codec::{Malformed, Put};
use std::cell::Cell;
use std::io::Cursor;
use zstd::bulk::{Compressor, Decompressor};

const LEVEL: i32 = 1;
/// Codec of what did not become shorter.
pub(crate) const RAW: u8 = 0;
/// Codec of a zstd frame.
pub(crate) const ZSTD: u8 = 1;

thread_local! {
    static IDLE_COMPRESSOR: Cell<Option<Compressor<'static>>> = const { Cell::new(None) };
    static IDLE_DECOMPRESSOR: Cell<Option<Decompressor<'static>>> = const { Cell::new(None) };
}

/// A compression context, for one segment after another.
pub(crate) struct Shrinker(Option<Compressor<'static>>);

impl Drop for Shrinker {
    fn drop(&mut self) {
        // Of a thread that ends nothing is kept.
        let _ = IDLE_COMPRESSOR.try_with(|idle| idle.set(self.0.take()));
    }
}

impl Shrinker {
    pub(crate) fn new() -> Shrinker {
        let idle = IDLE_COMPRESSOR.try_with(Cell::take).ok().flatten();
        Shrinker(idle.or_else(|| Compressor::new(LEVEL).ok()))
    }

    /// Appends the bytes, compressed if that makes them shorter; returns how.
    pub(crate) fn put(&mut self, plain: &[u8], out: &mut Vec<u8>) -> u8 {
        let start = out.len();
        if let Some(zstd) = &mut self.0 {
            out.reserve(zstd::zstd_safe::compress_bound(plain.len()));
            // A cursor at the end: compressed right behind what is there, into memory nobody cleared before.
            let mut end = Cursor::new(&mut *out);
            end.set_position(start as u64);
            let length = zstd.compress_to_buffer(plain, &mut end);
            if length.is_ok_and(|length| length < plain.len()) {
                return ZSTD;
            }
            out.truncate(start);
        }
        out.put(plain);
        RAW
    }
}

/// A decompression context, for as many units as its owner opens.
pub(crate) struct Inflater(Option<Decompressor<'static>>);

impl Drop for Inflater {
    fn drop(&mut self) {
        let _ = IDLE_DECOMPRESSOR.try_with(|idle| idle.set(self.0.take()));
    }
}

impl Inflater {
    pub(crate) fn new() -> Inflater {
        Inflater(IDLE_DECOMPRESSOR.try_with(Cell::take).ok().flatten())
    }

    /// Decompresses one frame, to at most `limit` bytes, whatever it says of itself.
    pub(crate) fn open(&mut self, frame: &[u8], limit: usize) -> Result<Vec<u8>, Malformed> {
        let zstd = match &mut self.0 {
            Some(zstd) => zstd,
            none => none.insert(Decompressor::new().map_err(|_| Malformed("no memory to decompress it"))?),
        };
        zstd.decompress(frame, limit).map_err(|_| Malformed("does not decompress"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_that_was_used_makes_the_same_bytes_as_a_new_one() {
        let text: Vec<u8> = (0..60_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        let shrink = |shrinker: &mut Shrinker, plain: &[u8]| {
            let mut out = Vec::new();
            (shrinker.put(plain, &mut out), out)
        };
        // A test has a thread of its own, so this is the first context here.
        let fresh = shrink(&mut Shrinker::new(), &text[..50_000]);
        assert_eq!(fresh.0, ZSTD);
        shrink(&mut Shrinker::new(), &text[9..200_000]);
        assert_eq!(shrink(&mut Shrinker::new(), &text[..50_000]), fresh);
    }

    #[test]
    fn a_frame_that_failed_spoils_no_later_one() {
        let mut out = Vec::new();
        assert_eq!(Shrinker::new().put(&[7; 5000], &mut out), ZSTD);
        let mut inflater = Inflater::new();
        assert!(inflater.open(&out[..out.len() - 3], 5000).is_err());
        assert!(inflater.open(&out, 4999).is_err(), "the limit holds");
        drop(inflater);
        assert_eq!(Inflater::new().open(&out, 5000).unwrap(), [7; 5000]);
    }
}
