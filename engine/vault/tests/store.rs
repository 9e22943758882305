//! The store in memory keeps the promises of the port.

mod support;

use redoubt_vault::MemStore;
use std::sync::Arc;

#[test]
fn the_store_in_memory_conforms() {
    support::run(redoubt_ports::conformance::store::run(|| async {
        Arc::new(MemStore::new()) as Arc<dyn redoubt_ports::RawStore>
    }));
}
