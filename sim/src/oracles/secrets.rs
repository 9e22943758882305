//! Oracle `secrets`: guest data in the clear appears on no link, in no state file and in no object.

use super::Finding;
use crate::workload::stamp::PLAINTEXT;
use memchr::memmem::Finder;
use std::sync::LazyLock;

/// Finds the marker in bytes that arrive in pieces.
#[derive(Clone, Debug, Default)]
pub struct Scanner {
    tail: Vec<u8>,
}

impl Scanner {
    /// Takes the next piece; tells whether the marker ends in it.
    pub fn push(&mut self, piece: &[u8]) -> bool {
        self.tail.extend_from_slice(&piece[..piece.len().min(PLAINTEXT.len() - 1)]);
        let found = contains(&self.tail) || contains(piece);
        let keep = PLAINTEXT.len() - 1;
        if piece.len() >= keep {
            self.tail.clear();
            self.tail.extend_from_slice(&piece[piece.len() - keep..]);
        } else if self.tail.len() > keep {
            self.tail.drain(..self.tail.len() - keep);
        }
        found
    }
}

/// Looks at many bytes at once: all that any host writes or sends passes here.
static MARKER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(PLAINTEXT));

/// Tells whether the bytes hold the marker.
pub fn contains(bytes: &[u8]) -> bool {
    MARKER.find(bytes).is_some()
}

/// Judges one place.
pub fn judge(place: impl FnOnce() -> String, bytes: &[u8]) -> Option<Finding> {
    contains(bytes).then(|| Finding::new("secrets", format!("guest data in the clear in {}", place())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_marker_is_found_across_pieces_of_any_size() {
        let mut bytes = vec![b'G'; 40];
        bytes.extend_from_slice(PLAINTEXT);
        bytes.extend_from_slice(&[1; 9]);
        for size in 1..bytes.len() {
            let mut scanner = Scanner::default();
            assert!(bytes.chunks(size).any(|piece| scanner.push(piece)), "pieces of {size}");
        }
        let mut scanner = Scanner::default();
        assert!(![b'G'; 100].chunks(7).any(|piece| scanner.push(piece)));
    }
}
