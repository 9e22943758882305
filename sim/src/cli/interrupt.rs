//! Ctrl-C: the first one ends the set after the runs under way, so that what was played is told; the second
//! one ends the process at once.

use crate::codes::INTERRUPTED;
use signal_hook::consts::SIGINT;
use signal_hook::flag;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

static CAME: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Begins to listen; without this, or where it fails, a signal ends the process as usual.
pub(super) fn listen() {
    let came = Arc::clone(CAME.get_or_init(Arc::default));
    // In this order: the first signal sets the flag, the second finds it set. SIGTERM stays what it is, an end.
    let armed = flag::register_conditional_shutdown(SIGINT, i32::from(INTERRUPTED), Arc::clone(&came))
        .and_then(|_| flag::register(SIGINT, Arc::clone(&came)));
    if let Err(error) = armed {
        eprintln!("an interrupt will end the tool without a word: {error}");
    }
}

/// Tells whether the tool was interrupted.
pub(super) fn came() -> bool {
    CAME.get().is_some_and(|came| came.load(Ordering::Relaxed))
}
