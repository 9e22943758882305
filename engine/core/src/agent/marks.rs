//! When the state directory does not answer: how long guests wait for a mark, and who is told that marks
//! are missing.
//!
//! A log that hangs cannot be disowned in the record beside it, and what hangs need not be seen by the next
//! start. The statement therefore goes to the vault, with the number of the marks, and a start that found
//! its last run unclean asks for it before it relies on any mark (decision 0008).
//!
//! Invariants
//! - DL-1 A resync after an unclean stop ends only when it is known that no run disowned the marks it
//!   relied upon: none of the record's number or a later one.
//! - DL-2 The number grows only while every log is whole, and after nothing more can be told about the older
//!   ones that matters.
//! - DL-3 A guest waits at most [`LOG_GIVE_UP_AFTER`] for marks and records, whatever hangs.
//!
//! What remains: if state directory, vault and link are all away at once, guests go on after that time and
//! nobody knows; a crash before any of them is back is followed by a start that trusts the old marks.
//!
//! What is *not* here: the log's own states ([`crate::extent_map`]), where a statement is kept (vault).

use super::capture::Brought;
use super::{AgentEffect, AgentMachine, Note, VolumeStart};
use crate::extent_map::StartMarks;
use crate::ids::VolumeIndex;
use crate::message::{MarksReply, MarksRequest};
use crate::planted::{self, Bug};
use crate::splitter::Event;
use crate::time::Instant;
use std::time::Duration;

/// A log that takes longer is disowned in the vault, and given up once that is durable there. A busy disk
/// takes a second at its worst; a needless statement costs one small object.
pub const LOG_SLOW_AFTER: Duration = Duration::from_secs(2);

/// A log that takes longer is given up even if nobody could be told. Far below the 30 s after which a
/// guest's own driver gives up its disk, and above what a statement takes on a slow path.
pub const LOG_GIVE_UP_AFTER: Duration = Duration::from_secs(5);

/// A question about marks is asked again after this time: none is answered while the vault is away.
pub const ASK_MARKS_AGAIN: Duration = Duration::from_secs(2);

/// What is known of this run's marks.
#[derive(Debug)]
pub(super) struct MarksState {
    number: u64,
    /// Whether an earlier run disowned what this one began with is not known yet (DL-1).
    is_unproven: bool,
    /// The vault may hold that marks of this number are disowned.
    may_be_disowned: bool,
    /// The vault holds it.
    is_disowned: bool,
    /// The newest question of this session.
    asked: Option<(Instant, MarksRequest)>,
}

impl MarksState {
    pub(super) fn new(number: u64, volumes: &[VolumeStart]) -> MarksState {
        let is_any = |is: fn(&StartMarks) -> bool| volumes.iter().any(|volume| is(&volume.marks));
        MarksState {
            number,
            is_unproven: is_any(|marks| matches!(marks, StartMarks::CompareMarked(_))),
            may_be_disowned: is_any(|marks| !matches!(marks, StartMarks::Clean { .. })),
            is_disowned: false,
            asked: None,
        }
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn is_unproven(&self) -> bool {
        self.is_unproven
    }

    pub(super) fn on_session(&mut self) {
        self.asked = None;
    }
}

impl AgentMachine {
    /// Looks for own files that take too long (DL-3).
    pub(super) fn watch_files(&mut self, now: Instant, effects: &mut Vec<AgentEffect>) {
        self.release_resizes(now, effects);
        self.ask_marks(now, effects);
        self.give_up_logs(now, effects);
    }

    fn is_any_log_slow(&self, now: Instant) -> bool {
        let since = |volume: &super::Volume| volume.persist_since;
        self.volumes.values().filter_map(since).any(|since| now.since(since) >= LOG_SLOW_AFTER)
    }

    /// Asks the process server what is not known yet, and disowns marks that are late.
    pub(super) fn ask_marks(&mut self, now: Instant, effects: &mut Vec<AgentEffect>) {
        let disown = !self.marks_state.is_disowned && self.is_any_log_slow(now);
        if self.session.is_none() || !(disown || self.marks_state.is_unproven) {
            return;
        }
        let request = MarksRequest { number: self.marks_state.number, disown };
        let is_asked =
            |(at, asked): (Instant, MarksRequest)| asked == request && now.since(at) < ASK_MARKS_AGAIN;
        if !self.marks_state.asked.is_some_and(is_asked) {
            self.marks_state.asked = Some((now, request));
            self.marks_state.may_be_disowned |= disown;
            effects.push(AgentEffect::AskMarks(request));
        }
    }

    /// The vault told what it holds.
    pub(super) fn on_marks(&mut self, now: Instant, reply: MarksReply, effects: &mut Vec<AgentEffect>) {
        if reply.number != self.marks_state.number {
            return;
        }
        if reply.is_disowned && !self.marks_state.is_disowned {
            self.marks_state.is_disowned = true;
            self.marks_state.may_be_disowned = true;
            effects.push(AgentEffect::Note(Note::MarksDisowned));
        }
        if std::mem::take(&mut self.marks_state.is_unproven) {
            if reply.is_disowned && !planted::active(Bug::TrustDisownedMarks) {
                self.on_marks_void(now, effects);
            } else {
                self.marks_state.may_be_disowned = reply.is_disowned;
            }
            self.plan(now, crate::resync::Event::Poll, effects);
        }
        self.give_up_logs(now, effects);
    }

    /// What this run began with says nothing: everything may differ.
    fn on_marks_void(&mut self, now: Instant, effects: &mut Vec<AgentEffect>) {
        effects.push(AgentEffect::Note(Note::MarksVoid));
        self.all_dirty();
        self.state_wanted = true;
        let volumes: Vec<VolumeIndex> = self.volumes.keys().copied().collect();
        for index in volumes {
            if let Some(volume) = self.volumes.get_mut(&index) {
                volume.map.on_marks_void();
            }
            self.split(now, index, Event::Hot, Brought::default(), effects);
        }
    }

    /// Lets guests go on without marks that take too long.
    fn give_up_logs(&mut self, now: Instant, effects: &mut Vec<AgentEffect>) {
        let is_told = self.marks_state.is_disowned;
        let patience = if is_told { LOG_SLOW_AFTER } else { LOG_GIVE_UP_AFTER };
        let is_late = |since: Instant| now.since(since) >= patience;
        let mut given_up = Vec::new();
        for (index, volume) in &mut self.volumes {
            if volume.persist_since.is_some_and(is_late) && volume.map.give_up() {
                given_up.push(*index);
            }
        }
        for index in given_up {
            self.state_wanted = true;
            effects.push(AgentEffect::Note(Note::LogGivenUp { is_told }));
            self.split(now, index, Event::Hot, Brought::default(), effects);
        }
    }

    /// Gives the marks a new number once every log holds all of them (DL-2).
    pub(super) fn renumber_marks(&mut self, now: Instant) {
        let marks = &self.marks_state;
        if !marks.may_be_disowned || marks.is_unproven || self.must_compare_all() || self.is_any_log_slow(now)
        {
            return;
        }
        self.marks_state.number += 1;
        self.marks_state.may_be_disowned = false;
        self.marks_state.is_disowned = false;
        self.state_wanted = true;
    }
}
