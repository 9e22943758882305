//! One maintainer's time in charge: on what it may publish, and what it may delete afterwards.
//!
//! Claims are dense and never deleted, so "the next claim is absent" proves that nobody took over. Nothing is
//! deleted before a version that this process published, and a look for the next claim after it.
//!
//! Invariants
//! - TN-1 Nothing is published on top of a version of a higher epoch: that maintainer collects what older epochs
//!   uploaded and did not publish.
//! - TN-2 Only garbage that a published version lists is deleted, and only once two versions without it are older than
//!   the newest: the last [`CATALOGUES_KEPT`] versions stay readable as a whole.
//! - TN-3 After a lost race, or a look that found a newer claim, nothing is published and nothing deleted any more.
//!
//! What is *not* here: how a race is resolved and a claim looked for (`redoubt-vault`).

use crate::planted::{self, Bug};

/// Newest versions of the catalogue that stay, with all that they name.
pub const CATALOGUES_KEPT: u64 = 3;

/// Something that a version of the catalogue needs no more.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Garbage<N> {
    /// Its name: an object, or a stretch of log slots.
    pub name: N,
    /// The first version that does not need it.
    pub since: u64,
}

/// Tells whether what is garbage since version `since` may go when `newest` is known to be published.
pub fn is_past(since: u64, newest: u64) -> bool {
    planted::active(Bug::DeleteGarbageAtOnce) || since.saturating_add(CATALOGUES_KEPT - 1) <= newest
}

/// A maintainer that holds a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tenure {
    epoch: u64,
    /// The version to build on.
    base: Option<u64>,
    /// The newest version published by this process.
    published: u64,
    /// The newest version published by this process with a look for a newer claim after it.
    confirmed: u64,
    is_over: bool,
}

impl Tenure {
    /// Begins with a claim.
    pub fn new(epoch: u64) -> Tenure {
        Tenure { epoch, base: None, published: 0, confirmed: 0, is_over: false }
    }

    /// Returns the claim's number: uploads carry it in their names, versions in their header.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Tells whether somebody else is in charge. There is no way back but a new claim.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Takes the newest version of the catalogue that was found, 0 if there is none, and who published it. Returns
    /// whether to build on it.
    pub fn found(&mut self, version: u64, epoch: u64) -> bool {
        if epoch > self.epoch {
            self.is_over = true;
        }
        self.base = (!self.is_over).then_some(version);
        !self.is_over
    }

    /// Returns the number of the version to create next, or none if nothing may be published.
    pub fn next_version(&self) -> Option<u64> {
        self.base.filter(|_| !self.is_over).map(|base| base + 1)
    }

    /// The next version was created by this process, proven by its bytes.
    pub fn published(&mut self) {
        let version = self.next_version().expect("TN-3: only who may publish does");
        (self.base, self.published) = (Some(version), version);
    }

    /// Another process created the next version.
    pub fn lost(&mut self) {
        self.is_over = true;
    }

    /// A look for the next claim, begun after the last [`Tenure::published`], found it or proved it absent.
    pub fn checked(&mut self, is_there: bool) {
        if is_there {
            self.is_over = true;
        } else {
            self.confirmed = self.published;
        }
    }

    /// Returns the garbage of the newest version published here that may be deleted, in its order.
    pub fn deletable<'a, N>(&self, garbage: &'a [Garbage<N>]) -> Vec<&'a N> {
        let newest = if self.may_delete() { self.confirmed } else { 0 };
        garbage.iter().filter(|entry| is_past(entry.since, newest)).map(|entry| &entry.name).collect()
    }

    /// Tells whether a version of the catalogue may be deleted.
    pub fn is_old(&self, version: u64) -> bool {
        self.may_delete() && version.saturating_add(CATALOGUES_KEPT) <= self.confirmed
    }

    /// Tells whether anything may be deleted: this process published, then found no newer claim.
    pub fn may_delete(&self) -> bool {
        !self.is_over && self.confirmed > 0 && self.confirmed == self.published
    }
}
