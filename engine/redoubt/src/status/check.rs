//! A status for a monitoring system, in the words and exit codes of a Nagios plug-in.
//!
//! These codes are that interface's, not this program's: 0 ok, 1 warning, 2 critical, 3 unknown.

use super::{Health, Report, show_state};
use crate::units::{show_duration, show_wall};
use serde::Serialize;
use std::time::Duration;

/// The line and its code.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    pub(crate) code: u8,
    pub(crate) text: String,
}

/// Judges a service that answered.
pub(crate) fn check(report: &Report) -> Check {
    let (health, words, figures) =
        match report {
            Report::Agent(report) => {
                let lag = report.lag_ms.map(Duration::from_millis);
                let rpo = Duration::from_millis(report.rpo_ms);
                let mut words = vec![show_state(report.state, report.progress)];
                if !report.connected {
                    words.push("link down".to_owned());
                }
                words.extend(lag.map(|lag| format!("lag {} of {}", show_duration(lag), show_duration(rpo))));
                words.extend(report.newest_point.as_ref().map(|point| {
                    format!("newest point {} of {} UTC", point.point, show_wall(point.wall_ms))
                }));
                words.extend(report.last_error.clone());
                let mut figures = Vec::new();
                figures.extend(lag.map(|lag| format!("lag={}s;{};;0", lag.as_secs_f64(), rpo.as_secs_f64())));
                figures.extend(report.points.map(|points| format!("points={points};;;0")));
                figures.push(format!("spill={}B;;;0", report.spill_bytes));
                (report.health, words, figures)
            }
            Report::Server(report) => {
                let is_bad =
                    |health| report.machines.iter().filter(|machine| machine.health == health).count();
                let (critical, warning) = (is_bad(Health::Critical), is_bad(Health::Warning));
                let all = report.machines.len();
                let words = vec![format!("machines: {all}, with a warning: {warning}, critical: {critical}")];
                let errors = report.machines.iter().filter_map(|machine| machine.last_error.clone());
                let staged: u64 = report.machines.iter().map(|machine| machine.stage_bytes).sum();
                let figures = vec![format!("machines={all};;;0"), format!("staged={staged}B;;;0")];
                (report.health, words.into_iter().chain(errors).collect(), figures)
            }
            Report::Mount(report) => {
                (report.health, report.words(), vec![format!("cache={}B;;;0", report.cache_bytes)])
            }
        };
    let (code, word) = match health {
        Health::Ok => (0, "OK"),
        Health::Warning => (1, "WARNING"),
        Health::Critical => (2, "CRITICAL"),
    };
    Check { code, text: line(word, &words.join(", "), &figures.join(" ")) }
}

/// A service that did not answer.
pub(crate) fn unknown(why: &str) -> Check {
    Check { code: 3, text: line("UNKNOWN", why, "") }
}

/// One line; a bar begins the figures, so the words must have none.
fn line(word: &str, words: &str, figures: &str) -> String {
    let words = words.replace('|', "/").replace('\n', " ");
    let figures = if figures.is_empty() { String::new() } else { format!(" | {figures}") };
    format!("REDOUBT {word} - {words}{figures}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{StreamState, server, tests::report};

    #[test]
    fn a_service_answers_a_monitoring_system_in_one_line() {
        let mut copying = report();
        copying.last_error = Some("one | two\nthree".into());
        let copying = check(&Report::Agent(Box::new(copying)));
        let expected = "REDOUBT WARNING - resync 62 %, newest point 17.0 of 2026-03-01 14:02:11 UTC, one / two three \
                        | points=3;;;0 spill=0B;;;0";
        assert_eq!(copying, Check { code: 1, text: expected.to_owned() });
        let mut well = report();
        (well.state, well.progress, well.lag_ms) = (StreamState::Protected, None, Some(1500));
        (well.health, well.last_error, well.connected) = (Health::Ok, None, true);
        let expected = "REDOUBT OK - protected, lag 1.5 s of 5 min, newest point 17.0 of 2026-03-01 14:02:11 UTC \
                        | lag=1.5s;300;;0 points=3;;;0 spill=0B;;;0";
        assert_eq!(check(&Report::Agent(Box::new(well))), Check { code: 0, text: expected.to_owned() });
        let fenced = check(&Report::Server(server::tests::report()));
        assert_eq!(fenced.code, 2);
        assert!(
            fenced
                .text
                .starts_with("REDOUBT CRITICAL - machines: 2, with a warning: 0, critical: 1, a newer")
        );
        assert_eq!(unknown("no service runs").text, "REDOUBT UNKNOWN - no service runs");
    }
}
