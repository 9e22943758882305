//! What an opening asks of the store before it knows that it needs it, so that few round trips follow each other:
//!
//! 1. vault object, names of catalogues, names of data keys
//! 2. newest catalogue, newest data keys
//! 3. what the catalogue leaves open: the slot it ends with, the log behind it, the claim
//!
//! then a block of the index and a unit for the first read. The code that opens asks one thing after another
//! and finds the answers here; this module only guesses.

use crate::early::{Ask, Listing};
use crate::index::Catalogue;
use crate::load::STRETCH_SLOTS;
use crate::maintainer::CATALOGUES_TRIED;
use crate::names::{self, Role};
use crate::store::Store;
use redoubt_core::MachineId;

/// Data keys that are loaded unasked, the newest ones: the catalogue is sealed with one of them.
const KEYS: usize = 2;
/// Names of data keys that are listed, twins among them; a machine with more has its key asked for when it is needed.
const KEY_NAMES: usize = 128;
/// Slots behind a catalogue that are asked for without knowing whether they exist.
const SLOTS: u64 = 16;

fn catalogues(machine: MachineId) -> Listing {
    Listing { prefix: names::catalogues(machine), after: None, limit: CATALOGUES_TRIED }
}

/// Asks for the newest catalogue and the newest keys.
pub(crate) async fn begin(store: &Store, machine: MachineId) {
    let catalogue = async {
        let listing = catalogues(machine);
        store.ask(vec![Ask::List(listing.clone())]).await;
        let newest = store.asked_names(&listing).into_iter().next();
        store.ask(newest.into_iter().map(Ask::Get).collect()).await;
    };
    let keys = async {
        let listing = Listing { prefix: names::data_keys(machine), after: None, limit: KEY_NAMES };
        store.ask(vec![Ask::List(listing.clone())]).await;
        let names = store.asked_names(&listing);
        let firsts = names.into_iter().filter(|name| !names::is_twin(name));
        store.ask(firsts.rev().take(KEYS).map(Ask::Get).collect()).await;
    };
    futures::future::join(catalogue, keys).await;
}

/// Asks for the log behind a catalogue, and for what proves that both belong together.
pub(crate) async fn go_on(store: &Store, machine: MachineId, catalogue: &Catalogue) {
    let after = Some(names::slot(machine, catalogue.slot));
    let log = Listing { prefix: names::log(machine), after, limit: STRETCH_SLOTS };
    let mut questions = vec![Ask::List(log), Ask::Get(names::claim(machine, Role::Writer, catalogue.epoch))];
    questions
        .extend((catalogue.slot..=catalogue.slot + SLOTS).map(|slot| Ask::Get(names::slot(machine, slot))));
    store.ask(questions).await;
}
