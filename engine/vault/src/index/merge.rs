//! Merging: the items of stored runs, in order, one block of each in memory.
//!
//! What is *not* here: which runs become one (`redoubt_core::maintenance`).

use super::run::{Item, Row, Run};
use super::{Block, StoredIndex};
use crate::error::ReadError;

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
