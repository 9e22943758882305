//! The vault as it should be: per machine a log of commits behind claims, and the image at its end.
//!
//! It keeps what the format promises and nothing else: a slot of an older claim does not follow a newer seal,
//! records at or below the head are dropped, a marker outside a resync is a recovery point. What a writer does to
//! get there (requests that are lost, late or repeated) is [`super::store`] and [`super::commit`].
//!
//! What is *not* here: objects, bytes, indexes, retention.

use super::content::{Cell, Item, Ledger};
use redoubt_core::{BatchPosition, MarkerId, WriteSeq};

/// What a marker in the stream claims: everything before it is one consistent cut.
pub(super) struct Claimed {
    pub(super) id: MarkerId,
    pub(super) is_exact: bool,
}

/// Why a commit or a seal is not applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// A newer writer sealed the log, or it is not the one that was opened.
    Fenced,
}

/// One machine's log.
#[derive(Clone)]
pub(super) struct MachineVault {
    /// Newest claim.
    pub(super) claims: u64,
    /// Claim of the newest seal.
    pub(super) sealed: u64,
    pub(super) head: BatchPosition,
    pub(super) is_exact: bool,
    pub(super) image: Vec<Vec<Cell>>,
    /// Highest number of marks that were disowned.
    pub(super) disowned: Option<u64>,
    pub(super) points: u64,
    /// How often an old copy took its place. No writer that opened it before can go on.
    pub(super) era: u64,
    /// Where it ended before that: what was told of it then was true.
    was: WriteSeq,
}

impl MachineVault {
    pub(super) fn new(pages: &[usize]) -> MachineVault {
        MachineVault {
            claims: 0,
            sealed: 0,
            head: BatchPosition::default(),
            is_exact: false,
            image: pages.iter().map(|pages| vec![0; *pages]).collect(),
            disowned: None,
            points: 0,
            era: 0,
            was: WriteSeq(0),
        }
    }

    /// A claim lands: the newest epoch is the claimer's.
    pub(super) fn claim(&mut self) -> u64 {
        self.claims += 1;
        self.claims
    }

    /// A seal lands; it fails if a newer one is there.
    pub(super) fn seal(&mut self, epoch: u64) -> Result<(), Refused> {
        if self.sealed > epoch {
            return Err(Refused::Fenced);
        }
        self.sealed = epoch;
        Ok(())
    }

    /// The slot of a commit lands. Each marker is handed to `judge` with the image at its place; the error is what
    /// a batch does that no stream may do.
    pub(super) fn commit(
        &mut self,
        (epoch, era): (u64, u64),
        batches: &[u32],
        ledger: &Ledger,
        judge: &mut dyn FnMut(&MachineVault, Claimed),
    ) -> Result<Option<String>, Refused> {
        // A writer looks for its newest slot before it puts the next one.
        if self.sealed > epoch || self.era != era {
            return Err(Refused::Fenced);
        }
        for number in batches {
            let batch = &ledger.batches[*number as usize];
            let meta = batch.meta;
            if meta.last <= self.head.seq {
                continue;
            }
            let follows = meta.first == self.head.seq.next() && meta.prev == self.head.chain;
            if !follows && !meta.flags.starts_resync() {
                let at = self.head.seq;
                return Ok(Some(format!("the batch {}..{} does not follow {at}", meta.first, meta.last)));
            }
            for (seq, item) in (meta.first.0..).zip(&batch.items) {
                if let Some(wrong) = self.apply(WriteSeq(seq), item, judge) {
                    return Ok(Some(wrong));
                }
            }
            self.head = meta.position();
        }
        Ok(None)
    }

    fn apply(
        &mut self,
        seq: WriteSeq,
        item: &Item,
        judge: &mut dyn FnMut(&MachineVault, Claimed),
    ) -> Option<String> {
        let mut fill = |volume: u16, page: u32, pages: u32, cell: Cell| {
            let cells = self.image.get_mut(usize::from(volume));
            let cells = cells.and_then(|cells| cells.get_mut(page as usize..(page + pages) as usize));
            cells.map(|cells| cells.fill(cell)).is_none()
        };
        let is_outside = match item {
            Item::Written { volume, page, pages, op } => fill(*volume, *page, *pages, *op),
            Item::Zeroed { volume, page, pages } => fill(*volume, *page, *pages, 0),
            Item::Read { volume, page, cells } => {
                let place = self.image.get_mut(usize::from(*volume));
                let place = place.and_then(|all| all.get_mut(*page as usize..*page as usize + cells.len()));
                place.map(|place| place.copy_from_slice(cells)).is_none()
            }
            Item::Begin => {
                self.is_exact = false;
                false
            }
            Item::End => {
                self.is_exact = true;
                false
            }
            Item::Marker(id) => {
                let is_exact = self.is_exact;
                self.points += u64::from(is_exact);
                judge(self, Claimed { id: *id, is_exact });
                false
            }
            Item::Attach => false,
            Item::Unknown => true,
        };
        is_outside.then(|| format!("record {seq} holds what no disk gave to the machine"))
    }

    /// An old copy takes its place.
    pub(super) fn go_back(&mut self, copy: MachineVault) {
        let (era, was) = (self.era + 1, self.newest_told());
        *self = MachineVault { era, was, ..copy };
    }

    /// Returns up to where it was ever told to reach.
    pub(super) fn newest_told(&self) -> WriteSeq {
        self.head.seq.max(self.was)
    }

    /// Marks of a number are disowned.
    pub(super) fn disown(&mut self, number: u64) {
        self.disowned = self.disowned.max(Some(number));
    }

    pub(super) fn is_disowned(&self, number: u64) -> bool {
        self.disowned.is_some_and(|newest| newest >= number)
    }
}
