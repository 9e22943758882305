//! The plan as intervals: what goes on from when to when, for those who draw it.

use super::{Action, Plan};
use redoubt_reports::model::Fault;

/// What an action begins or ends.
enum Part {
    /// Begins something under a name, by which its end finds it.
    Begins(String),
    /// Ends what goes on under a name.
    Ends(String),
    /// Lasts so many milliseconds by itself.
    Lasts(u64),
    /// Is over at once.
    Instant,
}

fn part(action: &Action) -> Part {
    use Part::{Begins, Ends, Instant, Lasts};
    match action {
        Action::KillProcess(host) | Action::PowerOff(host) | Action::FilesLost(host) => {
            Begins(format!("host {host}"))
        }
        Action::StopAgent(host) => Begins(format!("host {host}")),
        Action::StartProcess(host) | Action::PowerOn(host) | Action::StartAgent(host) => {
            Ends(format!("host {host}"))
        }
        Action::SiteOff(site) => Begins(format!("site {site}")),
        Action::SiteOn(site) => Ends(format!("site {site}")),
        Action::Cut(link) | Action::Loss(link, _) | Action::Slow(link, _) => Begins(format!("link {link}")),
        Action::HealLink(link) => Ends(format!("link {link}")),
        Action::Rare(point, 0) => Ends(format!("rare {point}")),
        Action::Rare(point, _) => Begins(format!("rare {point}")),
        Action::Store(knob, 0) => Ends(format!("store {knob}")),
        Action::Store(knob, _) => Begins(format!("store {knob}")),
        Action::DiskErrors(host, kind, 0) => Ends(format!("{kind:?} errors {host}")),
        Action::DiskErrors(host, kind, _) => Begins(format!("{kind:?} errors {host}")),
        Action::FilesFull(host, true) => Begins(format!("full {host}")),
        Action::FilesFull(host, false) => Ends(format!("full {host}")),
        Action::FilesSyncErrors(host, 0) => Ends(format!("syncs {host}")),
        Action::FilesSyncErrors(host, _) => Begins(format!("syncs {host}")),
        Action::FilesHang(host, None) => Begins(format!("hang {host}")),
        Action::FilesAnswer(host) => Ends(format!("hang {host}")),
        Action::Mount(host) => Begins(format!("mount {host}")),
        Action::Unmount(host) => Ends(format!("mount {host}")),
        Action::StartCopy(host) => Begins(format!("copy {host}")),
        Action::StopCopy(host) => Ends(format!("copy {host}")),
        Action::Freeze(_, ms) | Action::DiskHang(_, ms) | Action::FilesHang(_, Some(ms)) => Lasts(*ms),
        _ => Instant,
    }
}

fn words(action: &Action) -> String {
    match action {
        Action::FilesFull(host, _) => format!("state directory of {host} is full"),
        other => other.to_string(),
    }
}

fn is_operator(action: &Action) -> bool {
    matches!(
        action,
        Action::Point(_)
            // What the engine may do at any time excuses nobody.
            | Action::Rare(..)
            | Action::StopAgent(_)
            | Action::StartAgent(_)
            | Action::EditDisk(_)
            | Action::CopyVault
            | Action::Mount(_)
            | Action::Unmount(_)
            | Action::RotateKeys(_)
            | Action::RewrapKeys
            | Action::GiveKeys
            | Action::RetireKeys
            | Action::CheckPoints
            | Action::CheckLeftovers
            | Action::CheckMounts
            | Action::CheckScrub
    )
}

/// Returns what goes on under which name, and from when to when. All links are one: `wan` and its ways overlap.
pub(super) fn busy(events: &[super::Event], length: u64) -> Vec<(String, u64, u64)> {
    let whole = |name: String| if name.starts_with("link ") { "link".to_owned() } else { name };
    let mut busy: Vec<(String, u64, u64)> = Vec::new();
    for event in events {
        match part(&event.action) {
            Part::Begins(name) => busy.push((whole(name), event.at, length)),
            Part::Ends(name) => {
                let (name, at) = (whole(name), event.at);
                let open =
                    busy.iter_mut().filter(|(known, from, to)| *known == name && *from <= at && *to > at);
                open.for_each(|(_, _, to)| *to = at);
            }
            Part::Lasts(_) | Part::Instant => {}
        }
    }
    busy
}

/// Returns what a plan does as intervals, by their begin. What nothing ends lasts until all faults are lifted.
pub fn faults(plan: &Plan) -> Vec<Fault> {
    let mut faults: Vec<Fault> = Vec::new();
    // Names of what goes on, with the place of its fault.
    let mut open: Vec<(String, usize)> = Vec::new();
    for event in &plan.events {
        let mut fault = Fault {
            what: words(&event.action),
            is_operator: is_operator(&event.action),
            from_ms: event.at,
            to_ms: event.at,
        };
        match part(&event.action) {
            Part::Begins(name) => {
                fault.to_ms = plan.length.max(event.at);
                open.push((name, faults.len()));
            }
            Part::Ends(name) => {
                let ended = open.extract_if(.., |(known, _)| *known == name);
                let places: Vec<usize> = ended.map(|(_, place)| place).collect();
                places.iter().for_each(|place| faults[*place].to_ms = event.at);
                // An end of nothing is worth a line only if somebody started an agent.
                if !places.is_empty() || !matches!(event.action, Action::StartAgent(_)) {
                    continue;
                }
            }
            Part::Lasts(ms) => fault.to_ms = event.at + ms,
            Part::Instant => {}
        }
        faults.push(fault);
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Event;
    use std::collections::BTreeMap;

    #[test]
    fn what_begins_lasts_until_its_end_or_until_all_is_lifted() {
        let event = |at, action| Event { at, action };
        let plan = Plan {
            scenario: "x".into(),
            seed: 1,
            length: 9000,
            drawn: BTreeMap::new(),
            guests: BTreeMap::new(),
            events: vec![
                event(1000, Action::Cut("wan".into())),
                event(2000, Action::Point("a".into())),
                event(3000, Action::HealLink("wan".into())),
                event(4000, Action::Freeze("a".into(), 500)),
                event(5000, Action::PowerOff("a".into())),
            ],
            due: Vec::new(),
        };
        let spans: Vec<_> = faults(&plan).iter().map(|fault| (fault.from_ms, fault.to_ms)).collect();
        assert_eq!(spans, [(1000, 3000), (2000, 2000), (4000, 4500), (5000, 9000)]);
        assert!(faults(&plan)[1].is_operator);
    }
}
