//! Questions asked of the store before it is known that they are needed: an opening far from its store is a chain
//! of round trips, and most of what comes later in the chain can be guessed.
//!
//! - EA-1 An answer is taken once, by who asks exactly that, and all are dropped when the opening ends: nobody is
//!   told later what was true at the opening.
//! - EA-2 A wrong guess costs a request, an error costs nothing: who needs the answer asks again and is patient.
//! - EA-3 That an object was not there is no answer: by the time that somebody has its name of a listing, it is.

use bytes::Bytes;
use redoubt_core::planted::{self, Bug};
use redoubt_ports::StoreKey;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A page of names with sizes.
pub(crate) type Page = Vec<(StoreKey, u64)>;

/// A listing: prefix, the name it begins behind, names at most.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Listing {
    pub(crate) prefix: String,
    pub(crate) after: Option<StoreKey>,
    pub(crate) limit: usize,
}

/// A question.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    /// The whole object.
    Get(StoreKey),
    /// A page of names.
    List(Listing),
}

#[derive(Debug, Default)]
struct Answers {
    got: BTreeMap<StoreKey, Option<Bytes>>,
    listed: BTreeMap<Listing, Page>,
}

/// Answers that nobody has needed yet.
#[derive(Debug, Default)]
pub(crate) struct Early(Mutex<Answers>);

impl Early {
    /// Keeps an answer; none if the object was not there (EA-3).
    pub(crate) fn put(&self, key: StoreKey, found: Option<Bytes>) {
        if found.is_some() || planted::active(Bug::BelieveNotThere) {
            self.answers().got.insert(key, found);
        }
    }

    pub(crate) fn put_page(&self, listing: Listing, page: Page) {
        self.answers().listed.insert(listing, page);
    }

    pub(crate) fn take(&self, key: &StoreKey) -> Option<Option<Bytes>> {
        self.answers().got.remove(key)
    }

    pub(crate) fn take_page(&self, listing: &Listing) -> Option<Page> {
        self.answers().listed.remove(listing)
    }

    /// Returns the names of a page that somebody else will take.
    pub(crate) fn names(&self, listing: &Listing) -> Vec<StoreKey> {
        let answers = self.answers();
        answers
            .listed
            .get(listing)
            .map_or(Vec::new(), |page| page.iter().map(|(key, _)| key.clone()).collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        let answers = self.answers();
        answers.got.is_empty() && answers.listed.is_empty()
    }

    pub(crate) fn clear(&self) {
        *self.answers() = Answers::default();
    }

    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
