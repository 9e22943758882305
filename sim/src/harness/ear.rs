//! Hears what the engine says of itself: its events become lines of the trace, and some of them marks.
//!
//! A mark proves that a run reached a dangerous line. Nothing else depends on the words here: if the
//! engine changes them, a scenario that expects the mark fails by name.

use crate::ports::Shared;
use std::fmt::{self, Write};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Words that an event of the engine has, all of them, and its mark.
const WORDS: &[(&[&str], &str)] = &[
    (&["cutting an append that never finished"], "torn-tail-cut"),
    (&["reason=UncleanStop"], "hot-extents-compared"),
    (&["reason=Overflow"], "overflow-resynced"),
    (&["reason=StageLost"], "stage-lost"),
    (&["the activity log failed"], "activity-log-failed"),
    (&["the activity log does not answer"], "activity-log-given-up"),
    (&["the vault knows that marks are missing"], "marks-disowned"),
    (&["did not answer to its end"], "marks-void"),
    (&["it was restored from an old copy or lost objects"], "vault-went-back-told"),
    (&["is not in the vault any more"], "slot-was-gone"),
    (&["what is staged from here on does not continue the vault"], "stage-did-not-follow"),
    (&["the stage failed; its durable part is kept"], "stage-failed"),
    (&["staged batches are sealed under another vault key"], "stage-of-another-key"),
    (&["spilled batches are sealed under another vault key"], "spill-of-another-key"),
    (&["this process server lost the machine"], "writer-fenced"),
    (&[" read ", "injected"], "engine-read-failed"),
];

/// Listens on the thread of one run.
pub(super) struct Ear(pub(super) Shared);

struct Words(String);

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // A String takes everything.
        let _ = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let _ = write!(self.0, " {}={value}", field.name());
    }
}

impl Subscriber for Ear {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= Level::INFO && metadata.target().starts_with("redoubt")
    }

    fn event(&self, event: &Event<'_>) {
        let mut words = Words(String::new());
        event.record(&mut words);
        for (text, mark) in WORDS {
            if text.iter().all(|text| words.0.contains(text)) {
                self.0.trace.mark(mark);
            }
        }
        let (level, metadata) = (event.metadata().level(), event.metadata());
        if *level <= Level::WARN
            && let (Some(file), Some(line)) = (metadata.file(), metadata.line())
        {
            self.0.trace.arm(file, line);
        }
        self.0.trace.line(self.0.now(), || format!("{level}{}", words.0));
    }

    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}
