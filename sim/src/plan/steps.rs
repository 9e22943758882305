//! The plan as steps of a timeline: the way back from what was drawn to what an author could have written.
//!
//! Each step carries plain values. Drawing what the steps say gives the same events again; what has no effect
//! (the end of something that never began) is left out.

use super::{Action, Damage, DiskFault, Event, Part, Plan};
use crate::scenario::verbs::{VERBS, Verb};
use std::collections::BTreeMap;

/// A step with nothing left to draw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fixed {
    /// Milliseconds since the start.
    pub at: u64,
    /// `do`, `fault` or `check`.
    pub key: &'static str,
    /// Name of the verb.
    pub verb: &'static str,
    /// On what; empty if the verb needs nothing.
    pub on: String,
    /// How long, in milliseconds.
    pub lasts: Option<u64>,
    /// Quantities of the verb.
    pub amounts: BTreeMap<&'static str, i64>,
}

/// What an action is on a timeline: a verb, what it acts on, how long it lasts by itself, its quantities.
type Spoken<'a> = (String, &'a str, Option<u64>, Vec<(&'static str, i64)>);

fn plain<'a>(verb: &str, on: &'a str) -> Spoken<'a> {
    (verb.to_owned(), on, None, Vec::new())
}

fn rated(verb: String, on: &str, ppm: u32) -> Spoken<'_> {
    (verb, on, None, vec![("rate", i64::from(ppm))])
}

/// Returns the verb of an action; none if it only ends what another one began.
fn spoken(action: &Action) -> Option<Spoken<'_>> {
    Some(match action {
        Action::KillProcess(host) => plain("process.kill", host),
        Action::PowerOff(host) => plain("host.power", host),
        Action::Freeze(host, ms) => ("host.freeze".into(), host, Some(*ms), Vec::new()),
        Action::StepClock(host, ms) => ("host.clock".into(), host, None, vec![("by", *ms)]),
        Action::SiteOff(site) => plain("site.power", site),
        Action::SiteLost(site) => plain("site.lost", site),
        Action::Cut(link) => plain("link.cut", link),
        Action::Loss(link, ppm) => rated("link.loss".into(), link, *ppm),
        Action::Slow(link, speed) => ("link.slow".into(), link, None, vec![("speed", *speed as i64)]),
        Action::Store(_, 0)
        | Action::Rare(_, 0)
        | Action::DiskErrors(_, _, 0)
        | Action::FilesSyncErrors(_, 0) => return None,
        Action::Rare(point, ppm) => rated(format!("buggify.{point}"), "", *ppm),
        Action::Store(knob, ppm) => rated(format!("store.{knob}"), "", *ppm),
        Action::DiskErrors(host, kind, ppm) => {
            let kind = match kind {
                DiskFault::Read => "read",
                DiskFault::Write => "write",
                DiskFault::Flush => "flush",
            };
            rated(format!("disk.{kind}-errors"), host, *ppm)
        }
        Action::DiskHang(host, ms) => ("disk.hang".into(), host, Some(*ms), Vec::new()),
        Action::FilesFull(host, true) => plain("files.full", host),
        Action::FilesLost(host) => plain("files.lost", host),
        Action::FilesSyncErrors(host, ppm) => rated("files.sync-errors".into(), host, *ppm),
        Action::FilesHang(host, ms) => ("files.hang".into(), host, *ms, Vec::new()),
        Action::Damage(part, damage) => plain(damage_verb(*part, *damage), ""),
        Action::CopyVault => plain("copy-vault", ""),
        Action::RestoreVault => plain("vault.restored", ""),
        Action::KillAtEffect(host, count) => {
            ("process.kill-at-effect".into(), host, None, vec![("count", *count as i64)])
        }
        Action::PowerAtEffect(host, count) => {
            ("host.power-at-effect".into(), host, None, vec![("count", *count as i64)])
        }
        Action::Point(machine) => plain("point", machine),
        Action::StopAgent(machine) => plain("stop-agent", machine),
        Action::StartAgent(machine) => plain("start-agent", machine),
        Action::EditDisk(machine) => plain("edit-disk", machine),
        Action::Copy(machine) => plain("copy", machine),
        Action::StartCopy(machine) => plain("old-copy", machine),
        Action::Mount(machine) => plain("mount", machine),
        Action::RotateKeys(machine) => plain("rotate-keys", machine),
        Action::RewrapKeys => plain("rewrap-keys", ""),
        Action::GiveKeys => plain("give-keys", ""),
        Action::RetireKeys => plain("retire-keys", ""),
        Action::CheckPoints => plain("points", ""),
        Action::CheckLeftovers => plain("leftovers", ""),
        Action::CheckMounts => plain("mounts", ""),
        Action::CheckScrub => plain("scrub", ""),
        Action::StartProcess(_)
        | Action::PowerOn(_)
        | Action::SiteOn(_)
        | Action::HealLink(_)
        | Action::FilesFull(_, false)
        | Action::FilesAnswer(_)
        | Action::StopCopy(_)
        | Action::Unmount(_) => return None,
    })
}

/// Returns the verb of a damage at rest.
pub fn damage_verb(part: Part, damage: Damage) -> &'static str {
    let name = |part: Part, damage: Damage| {
        let part = format!("{part:?}").to_lowercase();
        format!("{part}.{}", format!("{damage:?}").to_lowercase())
    };
    let wanted = name(part, damage);
    VERBS.iter().find(|verb| verb.name == wanted).map_or("", |verb| verb.name)
}

/// Tells whether an action is the end that drawing puts behind the begin of another one.
fn ends(begin: &Action, end: &Action) -> bool {
    match (begin, end) {
        (Action::KillProcess(a) | Action::FilesLost(a), Action::StartProcess(b))
        | (Action::PowerOff(a), Action::PowerOn(b))
        | (Action::SiteOff(a), Action::SiteOn(b))
        | (Action::Cut(a) | Action::Loss(a, _) | Action::Slow(a, _), Action::HealLink(b))
        | (Action::Store(a, _), Action::Store(b, 0))
        | (Action::Rare(a, _), Action::Rare(b, 0))
        | (Action::FilesFull(a, true), Action::FilesFull(b, false))
        | (Action::FilesSyncErrors(a, _), Action::FilesSyncErrors(b, 0))
        | (Action::FilesHang(a, _), Action::FilesAnswer(b))
        | (Action::StartCopy(a), Action::StopCopy(b))
        | (Action::Mount(a), Action::Unmount(b)) => a == b,
        (Action::DiskErrors(a, kind, _), Action::DiskErrors(b, other, 0)) => a == b && kind == other,
        _ => false,
    }
}

fn known(name: &str) -> Option<&'static Verb> {
    VERBS.iter().find(|verb| verb.name == name)
}

/// Returns the steps of a plan in order of time, without its end.
pub fn steps(plan: &Plan) -> Vec<Fixed> {
    let mut rest: Vec<Option<&Event>> = plan.events.iter().map(Some).collect();
    let mut steps = Vec::new();
    for index in 0..rest.len() {
        let Some(event) = rest[index] else { continue };
        let Some((name, on, own, amounts)) = spoken(&event.action) else { continue };
        let Some(verb) = known(&name) else { continue };
        // The first end that is left: which of two equal faults it ends makes no difference.
        let end = (index + 1..rest.len())
            .find(|later| rest[*later].is_some_and(|later| ends(&event.action, &later.action)));
        let lasts = end.and_then(|end| rest[end].take()).map(|end| end.at - event.at);
        steps.push(Fixed {
            at: event.at,
            key: verb.key,
            verb: verb.name,
            on: on.to_owned(),
            lasts: own.or(lasts),
            // An outage is a store's knob as well, and takes no rate.
            amounts: amounts
                .into_iter()
                .filter(|(name, _)| verb.takes.iter().any(|take| take.0 == *name))
                .collect(),
        });
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::draw::actions;

    #[test]
    fn every_verb_comes_back_from_what_is_drawn_for_it() {
        for verb in VERBS {
            let amounts: BTreeMap<String, i64> =
                verb.takes.iter().map(|(name, _)| ((*name).to_owned(), 7)).collect();
            let (action, lift) = actions(verb.name, "x", &amounts, Some(500));
            let events = std::iter::once(Event { at: 10, action })
                .chain(lift.map(|action| Event { at: 510, action }))
                .collect();
            let plan = Plan { events, ..Plan::default() };
            let steps = steps(&plan);
            assert_eq!(steps.len(), 1, "{}: {steps:?}", verb.name);
            assert_eq!((steps[0].key, steps[0].verb, steps[0].at), (verb.key, verb.name, 10));
            if verb.ends == crate::scenario::verbs::Ends::Lasts {
                assert_eq!(steps[0].lasts, Some(500), "{}", verb.name);
            }
        }
    }
}
