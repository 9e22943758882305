//! Output that nobody reads any more: the tool ends by the signal that says so, as other tools of a pipeline do.
//!
//! Rust ignores that signal, so that a line after `cargo sim plan x@1 | head` would be a panic.

use signal_hook::consts::SIGPIPE;
use signal_hook::flag;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// From now on a closed pipe ends the process without a word.
pub(super) fn end_quietly() {
    // Where it cannot be armed, everything else still works.
    let _ = flag::register_conditional_default(SIGPIPE, Arc::new(AtomicBool::new(true)));
}
