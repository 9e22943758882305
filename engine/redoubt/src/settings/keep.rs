//! Which recovery points to keep, as people write it: `all:2h,hourly:24h,daily:15d`.
//!
//! What is *not* here: what the rules mean to points (`redoubt_core::maintenance::Ladder`).

use crate::units::duration;
use redoubt_core::maintenance::{Ladder, Rule, Which};
use std::time::Duration;

/// Points that a machine may keep.
const POINTS_MAX: u64 = redoubt_core::maintenance::POINTS_MAX as u64;

const FORM: &str = "write rules with commas between them: all:AGE, hourly:AGE, daily:AGE, weekly:AGE, PERIOD:AGE such as \
                    4h:7d, newest:COUNT, crash:COUNT, app:COUNT; or latest alone";

/// Reads a ladder.
pub(crate) fn ladder(text: &str) -> Result<Ladder, String> {
    if text.trim() == "latest" {
        return Ok(Ladder::new(Vec::new()));
    }
    let rules = text.split(',').map(|rule| self::rule(rule.trim()));
    rules.collect::<Result<Vec<Rule>, String>>().map(Ladder::new)
}

fn rule(text: &str) -> Result<Rule, String> {
    let wrong = || format!("{text:?} is no rule; {FORM}");
    let (name, value) = text.split_once(':').ok_or_else(wrong)?;
    let which = match name.trim() {
        "newest" => Some(Which::Any),
        "crash" => Some(Which::Crash),
        "app" => Some(Which::App),
        _ => None,
    };
    if let Some(which) = which {
        let count = value.trim().parse().ok().filter(|count| *count > 0).ok_or_else(wrong)?;
        return Ok(Rule::Newest { count, which });
    }
    let within = duration(value).map_err(|why| format!("{text:?}: {why}"))?;
    let hours = |hours| Ok(Duration::from_hours(hours));
    let period = match name.trim() {
        "all" => return Ok(Rule::All { within }),
        "hourly" => hours(1),
        "daily" => hours(24),
        "weekly" => hours(7 * 24),
        period => duration(period).map_err(|_| wrong()),
    }?;
    match period > within {
        true => Err(format!("{text:?} keeps nothing: the age is shorter than the period")),
        false => Ok(Rule::Best { period, within }),
    }
}

/// Refuses a ladder that would keep more points than a vault lists for a machine.
pub(crate) fn check(ladder: &Ladder, interval: Duration) -> Result<(), String> {
    match ladder.most(interval) {
        most if most <= POINTS_MAX => Ok(()),
        most => Err(format!(
            "it would keep up to {most} recovery points, one each {}; a machine has {POINTS_MAX} at most",
            crate::units::show_duration(interval)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_as_people_write_them() {
        assert_eq!(ladder("all:2h, hourly:24h,daily:15d"), Ok(Ladder::default()));
        assert_eq!(ladder("latest"), Ok(Ladder::new(Vec::new())));
        let hours = Duration::from_hours;
        let tiers = vec![
            Rule::All { within: hours(2) },
            Rule::Best { period: hours(2), within: hours(7 * 24) },
            Rule::Best { period: hours(4), within: hours(15 * 24) },
        ];
        assert_eq!(ladder("all:2h,2h:7d,4h:15d"), Ok(Ladder::new(tiers)));
        let counts = vec![
            Rule::Newest { count: 24, which: Which::Crash },
            Rule::Newest { count: 2, which: Which::App },
        ];
        assert_eq!(ladder("crash:24,app:2"), Ok(Ladder::new(counts)));
    }

    #[test]
    fn what_is_no_ladder_is_answered_with_the_form() {
        for wrong in
            ["", "all", "all:2", "monthly:1d", "newest:0", "newest:-3", "all:2h,", "daily:2h", "latest,app:2"]
        {
            let why = ladder(wrong).unwrap_err();
            assert!(why.contains("write") || why.contains("keeps nothing"), "{wrong}: {why}");
        }
    }

    #[test]
    fn a_ladder_that_keeps_too_much_is_refused() {
        assert_eq!(check(&Ladder::default(), Duration::from_secs(1)), Ok(()));
        let why = check(&ladder("all:15d").unwrap(), Duration::from_secs(15)).unwrap_err();
        assert_eq!(
            why,
            "it would keep up to 86402 recovery points, one each 15 s; a machine has 20000 at most"
        );
    }
}
