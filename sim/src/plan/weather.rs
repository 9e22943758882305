//! Weather: recurring background faults, drawn around the story.
//!
//! Weather keeps away from what the story does itself: a link that the story cut is not healed by the end of a
//! gust, and a host that the story keeps down is not started.

use super::Event;
use super::draw::{Dice, actions, deed, fill};
use super::faults::busy;
use crate::scenario::Weather;
use crate::scenario::verbs::Ends;
use std::collections::BTreeMap;

/// Draws the gusts of one run; `story` is in order of time.
pub(super) fn draw(dice: &mut Dice, weather: &Weather, length: u64, story: &[Event]) -> Vec<Event> {
    let mut taken = busy(story, length);
    let mut events = Vec::new();
    for gust in &weather.gusts {
        if !dice.happens(gust.chance) {
            continue;
        }
        let mut at = dice.range(gust.every).max(1) as u64;
        while at < length {
            let lasts = dice.range(gust.lasts).max(1) as u64;
            let Some((deed, on)) = deed(dice, &gust.deeds, &BTreeMap::new()) else { break };
            let mut amounts: BTreeMap<String, i64> =
                gust.amounts.iter().map(|(key, range)| (key.clone(), dice.range(*range))).collect();
            fill(dice, deed.verb.takes, &mut amounts);
            let (action, lift) = actions(deed.verb.name, &on, &amounts, Some(lasts));
            let mut new = vec![Event { at, action }];
            if let (Some(lift), Ends::Lasts) = (lift, deed.verb.ends) {
                new.push(Event { at: at + lasts, action: lift });
            }
            let own = busy(&new, at + lasts);
            let overlaps = |(name, from, to): &(String, u64, u64)| {
                taken.iter().any(|(other, begin, end)| other == name && from < end && begin < to)
            };
            if !own.iter().any(overlaps) {
                taken.extend(own);
                events.extend(new);
            }
            at += lasts + dice.range(gust.every).max(1) as u64;
        }
    }
    events.sort_by_key(|event| event.at);
    events
}
