//! A writer whose every block carries the number of its write, and the judge of images of it.
//!
//! An image is an *exact prefix* of the log if there is a `k` such that each block holds the newest
//! write to it with a number up to `k`. Since every write has its own number, `k` can be read off
//! the image: it is the largest number in it.

use anyhow::{Result, ensure};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

/// Bytes of one stamped block.
pub const BLOCK_BYTES: u64 = 4096;

/// The log of one writer over `blocks` blocks.
pub struct Stamps {
    rng: ChaCha8Rng,
    blocks: u64,
    /// Block of each write, by number less one; `None` if the write turned out not to have happened.
    log: Vec<Option<u64>>,
}

impl Stamps {
    /// Makes a writer.
    pub fn new(seed: u64, blocks: u64) -> Stamps {
        Stamps { rng: ChaCha8Rng::seed_from_u64(seed), blocks, log: Vec::new() }
    }

    /// Returns a random number below `bound`, for the test's own choices.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.rng.next_u64() % bound
    }

    /// Returns the next write: offset and content. It is in the log from now on.
    pub fn next_write(&mut self) -> (u64, Vec<u8>) {
        let block = self.rng.next_u64() % self.blocks;
        self.log.push(Some(block));
        (block * BLOCK_BYTES, content(block, self.log.len() as u64))
    }

    /// Returns how many writes were made.
    pub fn len(&self) -> u64 {
        self.log.len() as u64
    }

    /// Tells whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.log.is_empty()
    }

    /// Settles the newest write, which was not answered: it happened if the disk holds it.
    pub fn settle_last(&mut self, disk: &[u8]) -> Result<()> {
        let number = self.log.len() as u64;
        if let Some(Some(block)) = self.log.last().copied()
            && stamp(disk, block)? != number
        {
            *self.log.last_mut().expect("not empty") = None;
        }
        Ok(())
    }

    /// Returns the `k` of an image; fails if it is no exact prefix.
    pub fn prefix(&self, image: &[u8]) -> Result<u64> {
        let found: Vec<u64> = (0..self.blocks).map(|block| stamp(image, block)).collect::<Result<_>>()?;
        let k = found.iter().copied().max().unwrap_or(0);
        ensure!(k <= self.len(), "the image holds write {k}, which was never made");
        let mut expected = vec![0; self.blocks as usize];
        for (number, block) in self.log.iter().take(k as usize).enumerate() {
            if let Some(block) = block {
                expected[*block as usize] = number as u64 + 1;
            }
        }
        for (block, (found, expected)) in found.iter().zip(&expected).enumerate() {
            ensure!(
                found == expected,
                "the image holds write {k}, so block {block} must hold write {expected}, but holds {found}"
            );
        }
        Ok(k)
    }
}

fn content(block: u64, number: u64) -> Vec<u8> {
    let mut hash = blake3::Hasher::new();
    hash.update(&block.to_le_bytes()).update(&number.to_le_bytes());
    let mut content = vec![0; BLOCK_BYTES as usize];
    hash.finalize_xof().fill(&mut content);
    content[..8].copy_from_slice(&number.to_le_bytes());
    content
}

/// Reads the number of a block; fails if the block is torn or belongs elsewhere.
fn stamp(image: &[u8], block: u64) -> Result<u64> {
    let at = (block * BLOCK_BYTES) as usize;
    let found = &image[at..at + BLOCK_BYTES as usize];
    let number = u64::from_le_bytes(found[..8].try_into()?);
    let is_whole = if number == 0 { found.iter().all(|b| *b == 0) } else { found == content(block, number) };
    ensure!(is_whole, "block {block} is torn or misplaced (it says write {number})");
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_judge_accepts_prefixes_and_nothing_else() {
        let mut stamps = Stamps::new(1, 8);
        let mut image = vec![0; 8 * BLOCK_BYTES as usize];
        let mut images = vec![image.clone()];
        for _ in 0..100 {
            let (offset, content) = stamps.next_write();
            image[offset as usize..][..content.len()].copy_from_slice(&content);
            images.push(image.clone());
        }
        for (k, image) in images.iter().enumerate() {
            assert_eq!(stamps.prefix(image).unwrap(), k as u64);
        }
        // A block that is one write too old.
        let mut mixed = images[100].clone();
        let stale = (0..8)
            .find(|b| {
                stamp(&images[60], *b).unwrap() != stamp(&mixed, *b).unwrap()
                    && stamp(&mixed, *b).unwrap() != 100
            })
            .unwrap();
        let range = (stale * BLOCK_BYTES) as usize..((stale + 1) * BLOCK_BYTES) as usize;
        mixed[range.clone()].copy_from_slice(&images[60][range]);
        assert!(stamps.prefix(&mixed).is_err());
        let mut torn = images[100].clone();
        torn[4000] ^= 1;
        assert!(stamps.prefix(&torn).is_err());
    }
}
