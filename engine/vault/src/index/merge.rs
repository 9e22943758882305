//! Merging: the items of stored runs, in order, one block of each in memory.
//!
//! What is *not* here: which runs become one (`redoubt_core::maintenance`).

use super::key::LEVELS;
use super::run::{Item, Row, Run};
use super::{Block, StoredIndex};
use crate::error::ReadError;
use std::ops::Range;

/// A run read from its beginning, one block in memory.
struct Input {
    rows: Vec<Row>,
    row: usize,
    block: Option<Block>,
    at: usize,
    next: Option<Item>,
}

impl Input {
    async fn open(index: &StoredIndex, run: &Run, levels: Range<u8>) -> Result<Input, ReadError> {
        let rows = run.rows().iter().filter(|row| levels.contains(&row.space.level)).copied().collect();
        let mut input = Input { rows, row: 0, block: None, at: 0, next: None };
        input.advance(index).await?;
        Ok(input)
    }

    /// Returns the item at the front.
    fn peek(&self) -> Option<&Item> {
        self.next.as_ref()
    }

    /// Goes on to the next item.
    async fn advance(&mut self, index: &StoredIndex) -> Result<(), ReadError> {
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

/// Runs that follow one another, as one.
pub(crate) struct Merged {
    inputs: Vec<Input>,
}

impl Merged {
    pub(crate) async fn open(index: &StoredIndex, runs: &[Run]) -> Result<Merged, ReadError> {
        Merged::open_levels(index, runs, 0..LEVELS).await
    }

    /// As [`Merged::open`], of some levels only.
    pub(crate) async fn open_levels(
        index: &StoredIndex,
        runs: &[Run],
        levels: Range<u8>,
    ) -> Result<Merged, ReadError> {
        let mut inputs = Vec::with_capacity(runs.len());
        for run in runs {
            inputs.push(Input::open(index, run, levels.clone()).await?);
        }
        Ok(Merged { inputs })
    }

    /// The first of equals: older runs come first.
    fn first(&self) -> Option<usize> {
        let heads = self.inputs.iter().enumerate().filter_map(|(at, input)| Some((at, input.peek()?.key())));
        heads.min_by_key(|(_, key)| *key).map(|(at, _)| at)
    }

    /// Returns the item at the front.
    pub(crate) fn peek(&self) -> Option<&Item> {
        self.first().and_then(|at| self.inputs[at].peek())
    }

    /// Takes the item at the front.
    pub(crate) async fn next(&mut self, index: &StoredIndex) -> Result<Option<Item>, ReadError> {
        let Some(at) = self.first() else { return Ok(None) };
        let item = self.inputs[at].peek().copied();
        self.inputs[at].advance(index).await?;
        Ok(item)
    }
}
