//! A state directory that does not answer: what guests wait for, and what the next start is told.

use super::*;
use crate::agent::{ASK_MARKS_AGAIN, LOG_GIVE_UP_AFTER, LOG_SLOW_AFTER};

const EXTENTS: u64 = 8;
const MILLISECOND: Duration = Duration::from_millis(1);

fn record() -> AgentRecord {
    AgentRecord { marks_number: 3, ..AgentRecord::first(MachineId(1)) }
}

fn ends_at(seq: u64) -> BatchPosition {
    BatchPosition { generation: Generation(1), seq: WriteSeq(seq), chain: Chain([5; 32]) }
}

fn image(marks: u64) -> LogImage {
    LogImage { sectors: Sectors(EXTENTS * EXTENT_SECTORS), marks: vec![marks], pages_damaged: 0 }
}

/// A machine that goes on after a clean stop, with nothing marked.
fn protected() -> Desk {
    let (issued, at) = (WriteSeq(50), ends_at(50));
    let known = AgentRecord { issued, reserved_until: issued, is_initial: false, ..record() };
    let known = AgentRecord { sealed: at, staged: at, vaulted: at, ..known };
    let mut desk = Desk::new(EXTENTS, known, None, StartMarks::Clean { image: image(0), issued });
    desk.welcome(at);
    desk.settle();
    assert!(desk.agent.is_promised());
    desk
}

/// A start after a crash, with one extent marked.
fn crashed(is_disowned: bool) -> Desk {
    let at = ends_at(50);
    let known = AgentRecord { generation: Generation(2), is_clean: false, is_initial: false, ..record() };
    let known = AgentRecord { reserved_until: WriteSeq(1000), vaulted: at, staged: at, ..known };
    let marks = StartMarks::CompareMarked(image(0b10));
    let mut desk = Desk::new(EXTENTS, known, Some(ResyncReason::UncleanStop), marks);
    desk.is_disowned = is_disowned;
    desk
}

impl Desk {
    fn hang(&mut self) {
        (self.holds_log, self.holds_record) = (true, true);
    }

    fn write(&mut self, extent: u64) -> IoId {
        self.submit(Op::Write { extent: Extent::new(extent * EXTENT_SECTORS, 8), fua: false })
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now.after(time);
        self.step(AgentEvent::Tick);
    }

    fn has_note(&self, wanted: fn(&Note) -> bool) -> bool {
        self.notes.iter().any(wanted)
    }
}

#[test]
fn a_log_that_hangs_is_disowned_in_the_vault_and_then_guests_go_on() {
    let mut desk = protected();
    desk.hang();
    let write = desk.write(2);
    desk.pass(LOG_SLOW_AFTER - MILLISECOND);
    assert!(desk.asked_marks.is_empty(), "a slow log is no reason yet");
    desk.pass(MILLISECOND);
    assert_eq!(desk.asked_marks, [MarksRequest { number: 3, disown: true }]);
    assert!(!desk.started.contains(&write), "nobody knows yet");
    desk.answer();
    assert!(
        desk.started.contains(&write) && desk.has_note(|note| *note == Note::LogGivenUp { is_told: true })
    );
    let next = desk.write(5);
    assert!(desk.started.contains(&next), "nobody waits any more");
    assert!(desk.agent.must_compare_all());
}

#[test]
fn a_question_without_an_answer_is_asked_again() {
    let mut desk = protected();
    desk.hang();
    desk.write(2);
    desk.pass(LOG_SLOW_AFTER);
    desk.pass(ASK_MARKS_AGAIN - MILLISECOND);
    assert_eq!(desk.asked_marks.len(), 1);
    desk.pass(MILLISECOND);
    assert_eq!(desk.asked_marks.len(), 2);
}

#[test]
fn guests_go_on_in_the_end_if_nobody_can_be_told_and_the_first_who_can_is() {
    let mut desk = protected();
    desk.step(AgentEvent::SessionDown);
    desk.hang();
    let write = desk.write(2);
    desk.pass(LOG_GIVE_UP_AFTER - MILLISECOND);
    assert!(!desk.started.contains(&write));
    desk.pass(MILLISECOND);
    assert!(desk.started.contains(&write) && desk.asked_marks.is_empty());
    assert!(desk.has_note(|note| *note == Note::LogGivenUp { is_told: false }));
    desk.welcome(ends_at(50));
    assert_eq!(desk.asked_marks, [MarksRequest { number: 3, disown: true }]);
    desk.answer();
    assert!(desk.has_note(|note| *note == Note::MarksDisowned));
}

#[test]
fn a_log_that_fails_beside_a_record_that_hangs_holds_nobody_for_ever() {
    let mut desk = protected();
    desk.hang();
    let write = desk.write(2);
    desk.step(AgentEvent::Persisted { volume: VOLUME, ok: false });
    assert!(!desk.started.contains(&write), "the record is to say so");
    desk.pass(LOG_SLOW_AFTER);
    desk.answer();
    assert!(desk.started.contains(&write));
}

#[test]
fn marks_get_a_new_number_once_the_log_holds_them_all_and_not_before() {
    let mut desk = protected();
    desk.hang();
    desk.write(2);
    desk.pass(LOG_SLOW_AFTER);
    desk.answer();
    desk.write(5);
    assert_eq!(desk.agent.record().marks_number, 3);
    desk.step(AgentEvent::Persisted { volume: VOLUME, ok: true });
    assert_eq!(desk.agent.record().marks_number, 3, "the mark of the second write is not in the log");
    desk.step(AgentEvent::Persisted { volume: VOLUME, ok: true });
    assert!(!desk.agent.must_compare_all());
    assert_eq!(desk.agent.record().marks_number, 4);
    let hot = desk.submit(Op::Write { extent: Extent::new(2 * EXTENT_SECTORS + 64, 8), fua: false });
    assert!(desk.started.contains(&hot));
    let cold = desk.write(6);
    assert!(!desk.started.contains(&cold), "from now on marks count again");
}

#[test]
fn a_statement_about_older_marks_changes_nothing() {
    let mut desk = protected();
    desk.hang();
    desk.write(2);
    desk.pass(LOG_SLOW_AFTER);
    desk.step(AgentEvent::Persisted { volume: VOLUME, ok: true });
    assert_eq!(desk.agent.record().marks_number, 4, "it may have been heard");
    desk.answer();
    assert!(!desk.has_note(|note| *note == Note::MarksDisowned));
}

#[test]
fn after_a_crash_nothing_is_promised_before_the_vault_was_asked() {
    let mut desk = crashed(false);
    desk.welcome(ends_at(50));
    assert_eq!(desk.asked_marks, [MarksRequest { number: 3, disown: false }]);
    let asked = std::mem::take(&mut desk.asked_marks);
    desk.settle();
    assert!(!desk.agent.is_exact(), "DL-1");
    desk.asked_marks = asked;
    desk.settle();
    assert!(desk.agent.is_promised());
    assert_eq!(desk.agent.resync_progress().skipped, 16, "only what is marked was compared");
    assert_eq!(desk.agent.record().marks_number, 3);
}

#[test]
fn marks_that_an_earlier_run_disowned_are_not_trusted() {
    let mut desk = crashed(true);
    desk.welcome(ends_at(50));
    desk.settle();
    assert!(desk.agent.is_promised() && desk.has_note(|note| *note == Note::MarksVoid));
    assert_eq!(desk.agent.resync_progress().skipped, EXTENTS * 16, "everything was compared");
    assert_eq!(desk.agent.record().marks_number, 4, "and what is marked now counts");
}

#[test]
fn a_crash_before_the_vault_was_asked_leaves_the_question_open() {
    let desk = crashed(true);
    assert_eq!(desk.agent.record().marks_number, 3);
    let first = Desk::first(EXTENTS);
    assert_eq!(first.agent.record().marks_number, 1, "a first copy relies on no older mark");
}

#[test]
fn a_resize_does_not_wait_for_files_that_hang() {
    let mut desk = protected();
    desk.hang();
    let resize = desk.submit(Op::Resize { sectors: Sectors(2 * EXTENT_SECTORS) });
    desk.end(resize, None);
    desk.pass(LOG_GIVE_UP_AFTER - MILLISECOND);
    assert!(!desk.is_completed(resize));
    desk.pass(MILLISECOND);
    assert!(desk.is_completed(resize));
    desk.step(AgentEvent::Persisted { volume: VOLUME, ok: true });
    desk.step(AgentEvent::StateWritten { ok: true });
    assert_eq!(desk.completed.iter().filter(|(io, _)| *io == resize).count(), 1);
}
