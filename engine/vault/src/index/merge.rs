//! Merging: which runs become one, and their items in order.
//!
//! Runs grow by powers of four: a run is merged with those behind it when there are four of its size. So the
//! number of runs, and how often an entry is written again, grow with the logarithm of the history.

use super::run::{Item, Row, Run};
use super::{Block, StoredIndex};
use crate::error::ReadError;

/// Runs of one size that become one.
const FAN: u64 = 4;
/// Runs up to this many entries count as of one size.
const SMALL: u64 = 4096;

fn level(entries: u64) -> u32 {
    (entries / SMALL).checked_ilog(FAN).map_or(0, |level| level + 1)
}

/// Decides how many of the newest runs become one, given the entries of each, oldest first; one: none.
pub(crate) fn to_merge(entries: &[u64]) -> usize {
    let mut runs = entries.to_vec();
    let mut merged = 1;
    loop {
        let last = level(runs.last().copied().unwrap_or_default());
        let alike = runs.iter().rev().take_while(|entries| level(**entries) <= last).count();
        if (alike as u64) < FAN {
            return merged;
        }
        // The sum may be of the next size and meet three of its kind there.
        let sum = runs.drain(runs.len() - alike..).sum();
        runs.push(sum);
        merged += alike - 1;
    }
}

/// A run read from its beginning, one block in memory.
pub(crate) struct Input {
    rows: Vec<Row>,
    row: usize,
    block: Option<Block>,
    at: usize,
    next: Option<Item>,
}

impl Input {
    pub(crate) async fn open(index: &StoredIndex, run: &Run) -> Result<Input, ReadError> {
        let mut input = Input { rows: run.rows().to_vec(), row: 0, block: None, at: 0, next: None };
        input.advance(index).await?;
        Ok(input)
    }

    /// Returns the item at the front.
    pub(crate) fn peek(&self) -> Option<&Item> {
        self.next.as_ref()
    }

    /// Goes on to the next item.
    pub(crate) async fn advance(&mut self, index: &StoredIndex) -> Result<(), ReadError> {
        loop {
            if let (Some(block), Some(row)) = (&self.block, self.rows.get(self.row)) {
                self.next = block.item(row.space, self.at);
                self.at += 1;
                if self.next.is_some() {
                    return Ok(());
                }
                self.row += 1;
            }
            (self.block, self.at, self.next) = (None, 0, None);
            let Some(row) = self.rows.get(self.row) else { return Ok(()) };
            self.block = Some(index.block(&row.blob).await?);
        }
    }
}
