//! Decides when a marker is cut: on the policy's beat, and when an application is quiesced.
//!
//! Invariants
//! - MK-1 No marker while the stream is inexact or a recapture is pending; a due one is cut once exact.
//! - MK-2 The beat is monotonic time: wall-clock steps move no marker.
//! - MK-3 Missed beats are not made up for: one marker, then the beat goes on.
//! - MK-4 An application is thawed at the latest when its time limit ends, with or without a marker.
//!
//! What is *not* here: identities and wall times of markers, hooks, group points, retention.

use crate::change::MarkerKind;
use crate::time::Instant;
use std::time::Duration;

/// Default interval of crash-consistent points.
pub const INTERVAL_DEFAULT: Duration = Duration::from_secs(300);

/// Smallest interval; below it the cost of commits outweighs the gain.
pub const INTERVAL_MIN: Duration = Duration::from_secs(1);

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkerEvent {
    /// Time passed; comes at or after [`MarkerCutter::deadline`].
    Tick,
    /// Whether the stream is exact and no recapture is pending.
    Exact(bool),
    /// A new policy interval.
    Interval(Duration),
    /// A person or a policy wants an application-consistent point.
    AppRequested {
        /// Longest time between the start of quiescing and the thaw.
        limit: Duration,
    },
    /// The application is quiet.
    Quiesced,
    /// The quiesce hook failed.
    QuiesceFailed,
    /// The source was shut down for a planned failover.
    Planned,
}

/// Why an application point was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppMiss {
    /// The stream is inexact.
    Inexact,
    /// Quiescing took too long.
    TimedOut,
    /// The hook failed.
    HookFailed,
    /// Another request is under way.
    Busy,
}

/// What the shell does, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkerEffect {
    /// Stamp a marker now.
    Cut(MarkerKind),
    /// Run the quiesce hook.
    Quiesce,
    /// Run the thaw hook.
    Thaw,
    /// Report that there is no application point this time.
    AppMissed(AppMiss),
}

/// The machine. See the module.
#[derive(Debug)]
pub struct MarkerCutter {
    interval: Duration,
    due: Instant,
    exact: bool,
    quiescing_until: Option<Instant>,
    planned: bool,
}

impl MarkerCutter {
    /// Makes a cutter whose first beat is one interval from now. The stream counts as inexact.
    pub fn new(now: Instant, interval: Duration) -> MarkerCutter {
        let interval = interval.max(INTERVAL_MIN);
        MarkerCutter {
            interval,
            due: now.after(interval),
            exact: false,
            quiescing_until: None,
            planned: false,
        }
    }

    /// Returns when to send `Tick` next, or `None` while only exactness can bring a marker.
    pub fn deadline(&self) -> Option<Instant> {
        let beat = self.exact.then_some(self.due);
        beat.into_iter().chain(self.quiescing_until).min()
    }

    /// Tells what it knows of the stream.
    pub fn is_exact(&self) -> bool {
        self.exact
    }

    /// Takes one event.
    pub fn step(&mut self, now: Instant, event: MarkerEvent, effects: &mut Vec<MarkerEffect>) {
        match event {
            MarkerEvent::Tick => {}
            MarkerEvent::Exact(exact) => self.exact = exact,
            MarkerEvent::Interval(interval) => {
                self.interval = interval.max(INTERVAL_MIN);
                self.due = self.due.min(now.after(self.interval));
            }
            MarkerEvent::AppRequested { limit } => self.on_app_requested(now, limit, effects),
            MarkerEvent::Quiesced => self.on_quiesced(now, effects),
            MarkerEvent::QuiesceFailed => self.end_quiesce(Some(AppMiss::HookFailed), effects),
            MarkerEvent::Planned => self.planned = true,
        }
        if self.quiescing_until.is_some_and(|until| now >= until) {
            self.end_quiesce(Some(AppMiss::TimedOut), effects);
        }
        if self.exact && std::mem::take(&mut self.planned) {
            self.cut(MarkerKind::Planned, effects);
        }
        if self.exact && now >= self.due {
            self.cut(MarkerKind::Crash, effects);
            self.next_beat(now);
        }
    }

    fn next_beat(&mut self, now: Instant) {
        let interval = u64::try_from(self.interval.as_nanos()).unwrap_or(u64::MAX);
        let missed = (now.0 - self.due.0) / interval;
        self.due = Instant(self.due.0.saturating_add(interval.saturating_mul(missed.saturating_add(1))));
    }

    fn cut(&mut self, kind: MarkerKind, effects: &mut Vec<MarkerEffect>) {
        assert!(self.exact, "MK-1: a marker is cut only while the stream is exact");
        effects.push(MarkerEffect::Cut(kind));
    }

    fn on_app_requested(&mut self, now: Instant, limit: Duration, effects: &mut Vec<MarkerEffect>) {
        if self.quiescing_until.is_some() {
            effects.push(MarkerEffect::AppMissed(AppMiss::Busy));
        } else if !self.exact {
            effects.push(MarkerEffect::AppMissed(AppMiss::Inexact));
        } else {
            self.quiescing_until = Some(now.after(limit));
            effects.push(MarkerEffect::Quiesce);
        }
    }

    fn on_quiesced(&mut self, now: Instant, effects: &mut Vec<MarkerEffect>) {
        let Some(until) = self.quiescing_until else {
            // It became quiet after its limit: it must not stay so.
            effects.push(MarkerEffect::Thaw);
            return;
        };
        if now >= until {
            self.end_quiesce(Some(AppMiss::TimedOut), effects);
        } else if !self.exact {
            self.end_quiesce(Some(AppMiss::Inexact), effects);
        } else {
            self.cut(MarkerKind::App, effects);
            self.end_quiesce(None, effects);
        }
    }

    fn end_quiesce(&mut self, miss: Option<AppMiss>, effects: &mut Vec<MarkerEffect>) {
        if self.quiescing_until.take().is_some() {
            effects.push(MarkerEffect::Thaw);
            effects.extend(miss.map(MarkerEffect::AppMissed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn at(cutter: &mut MarkerCutter, second: u64, event: MarkerEvent) -> Vec<MarkerEffect> {
        let mut effects = Vec::new();
        cutter.step(Instant(second * SECOND), event, &mut effects);
        effects
    }

    #[test]
    fn a_due_marker_waits_for_exactness_and_missed_beats_are_not_made_up_for() {
        let mut cutter = MarkerCutter::new(Instant(0), Duration::from_secs(10));
        assert_eq!(at(&mut cutter, 10, MarkerEvent::Tick), []);
        assert_eq!(at(&mut cutter, 35, MarkerEvent::Exact(true)), [MarkerEffect::Cut(MarkerKind::Crash)]);
        assert_eq!(cutter.deadline(), Some(Instant(40 * SECOND)));
        assert_eq!(at(&mut cutter, 39, MarkerEvent::Tick), []);
        assert_eq!(at(&mut cutter, 40, MarkerEvent::Tick), [MarkerEffect::Cut(MarkerKind::Crash)]);
    }

    #[test]
    fn an_application_is_thawed_when_its_time_limit_ends() {
        let mut cutter = MarkerCutter::new(Instant(0), INTERVAL_DEFAULT);
        at(&mut cutter, 1, MarkerEvent::Exact(true));
        let request = MarkerEvent::AppRequested { limit: Duration::from_secs(5) };
        assert_eq!(at(&mut cutter, 1, request), [MarkerEffect::Quiesce]);
        assert_eq!(at(&mut cutter, 2, request), [MarkerEffect::AppMissed(AppMiss::Busy)]);
        let missed = [MarkerEffect::Thaw, MarkerEffect::AppMissed(AppMiss::TimedOut)];
        assert_eq!(at(&mut cutter, 6, MarkerEvent::Tick), missed);
        assert_eq!(at(&mut cutter, 7, MarkerEvent::Quiesced), [MarkerEffect::Thaw]);
    }

    #[test]
    fn an_application_marker_is_cut_between_quiesce_and_thaw() {
        let mut cutter = MarkerCutter::new(Instant(0), INTERVAL_DEFAULT);
        at(&mut cutter, 1, MarkerEvent::Exact(true));
        at(&mut cutter, 1, MarkerEvent::AppRequested { limit: Duration::from_secs(5) });
        let cut = [MarkerEffect::Cut(MarkerKind::App), MarkerEffect::Thaw];
        assert_eq!(at(&mut cutter, 2, MarkerEvent::Quiesced), cut);
    }
}
