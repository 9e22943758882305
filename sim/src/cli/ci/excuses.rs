//! Known failures of a set under way: which ones were met, which have expired, which nothing matches.

use super::super::{INVALID, capsules, files, paint};
use crate::date::Date;
use crate::harness::Outcome;
use crate::scenario::{KNOWN_FILE, KnownFailures, Scenario, Shown, load_known, matches};
use redoubt_reports::model::Known;
use std::collections::BTreeSet;
use std::path::Path;

/// Known failures of a set.
pub(crate) struct Excuses {
    known: Option<KnownFailures>,
    today: Date,
    met: BTreeSet<usize>,
    /// Entries that have expired.
    pub(super) expired: Vec<Shown>,
    /// Entries that nothing matched, once the set is judged.
    pub(super) idle: Vec<Shown>,
}

impl Excuses {
    /// Excuses nothing.
    pub(super) fn none(today: Date) -> Excuses {
        Excuses { known: None, today, met: BTreeSet::new(), expired: Vec::new(), idle: Vec::new() }
    }

    /// Reads the file that is named, or that beside the scenarios if it is there. An empty name is none. What is wrong
    /// with it is told and returned.
    pub(super) fn read(&mut self, named: Option<&Path>, directory: &Path) -> Result<Vec<Shown>, u8> {
        let usual = directory.join(KNOWN_FILE);
        let named = named.filter(|path| !path.as_os_str().is_empty());
        let Some(path) = named.or(usual.is_file().then_some(usual.as_path())) else { return Ok(Vec::new()) };
        match load_known(&path.display().to_string(), &files::read(path)?) {
            Ok(known) => {
                self.expired = known.expired(self.today).shown(false);
                self.known = Some(known);
                Ok(Vec::new())
            }
            Err(problems) => {
                eprint!("{}", problems.render(paint::coloured()));
                Ok(problems.shown(false))
            }
        }
    }

    /// Returns the entry that excuses a failure.
    pub(crate) fn of(&mut self, scenario: &Scenario, outcome: &Outcome) -> Option<Known> {
        let known = self.known.as_ref()?;
        let failure = outcome.signature(&capsules::hosts(scenario))?;
        let number = known.find(&scenario.name, &failure, self.today)?;
        self.met.insert(number);
        let entry = &known.entries[number];
        Some(Known { issue: entry.issue.clone(), expires: entry.expires.to_string(), why: entry.why.clone() })
    }

    /// Tells of entries that have expired, which fail the set, and of those that nothing matched; returns the exit code.
    pub(crate) fn judge(&mut self, scenarios: &[Scenario], code: u8) -> u8 {
        let Some(known) = &self.known else { return code };
        let is_played = |pattern: &str| scenarios.iter().any(|scenario| matches(pattern, &scenario.name));
        self.idle = known.idle(self.today, &self.met, is_played).shown(false);
        for shown in self.expired.iter().chain(&self.idle) {
            eprintln!("{}\n", shown.text);
        }
        if code == 0 && !self.expired.is_empty() { INVALID } else { code }
    }
}
