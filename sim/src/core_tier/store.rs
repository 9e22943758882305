//! Requests to the object store: when they take effect, when they are answered, and what befalls them.
//!
//! Faults that only the format of the vault can meet (conflicts that are none, ghosts, objects that come back) are
//! not played at this tier: the vault here has no objects.

use super::dice::{Dice, MICRO, MILLI, SECOND, Times};
use super::net::{Net, Place};
use redoubt_hw_models::StoreModel;

/// How long a caller waits for an answer that does not come.
const SILENCE: u64 = 3 * SECOND;

/// How long one attempt may take, as in the vault's own rules: then it is given up and repeated.
const ATTEMPT: u64 = 32 * SECOND;

/// Bytes of a request or an answer beside its body.
const REQUEST: u64 = 500;

/// Chances in parts per million.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Knobs {
    pub(super) throttle: u32,
    pub(super) lost_replies: u32,
    pub(super) late: u32,
    pub(super) slow: u32,
    pub(super) full: u32,
    pub(super) outage: u32,
}

impl Knobs {
    /// Returns a knob by its name in scenario files; none if this tier has no such fault.
    pub(super) fn by_name(&mut self, name: &str) -> Option<&mut u32> {
        Some(match name {
            "throttle" => &mut self.throttle,
            "lost-replies" => &mut self.lost_replies,
            "late" => &mut self.late,
            "slow" => &mut self.slow,
            "full" => &mut self.full,
            "outage" => &mut self.outage,
            _ => return None,
        })
    }
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Course {
    /// When it takes effect, if ever.
    pub(super) lands: Option<u64>,
    /// When its sender hears of it, or gives up.
    pub(super) ends: u64,
    /// Whether the sender learns that it took effect.
    pub(super) is_answered: bool,
}

/// The store.
pub(super) struct Store {
    times: Times,
    speed: u64,
    pub(super) knobs: Knobs,
    /// Requests that met a fault.
    pub(super) met: u64,
}

impl Store {
    pub(super) fn new(model: &StoreModel) -> Store {
        let (times, speed) = (Times::of(&model.request_us), model.bytes_per_second);
        Store { times, speed, knobs: Knobs::default(), met: 0 }
    }

    /// Draws the course of a request of a host with so many bytes; `creates` if it needs room.
    pub(super) fn request(
        &mut self,
        (now, dice, net): (u64, &mut Dice, &mut Net),
        host: Place,
        bytes: u64,
        creates: bool,
    ) -> Course {
        let place = net.store();
        let arrives = net.carry(now, dice, host, place, bytes + REQUEST);
        let mut lands = arrives + self.times.draw(dice) + bytes * SECOND / self.speed.max(1);
        let knobs = self.knobs;
        let is_cut = net.link(host, place).is_cut || net.link(place, host).is_cut;
        let failed = |ends| Course { lands: None, ends, is_answered: false };
        if is_cut || dice.happens(knobs.outage) {
            self.met += 1;
            return failed(now + SILENCE);
        }
        if arrives > now + ATTEMPT {
            // The link is too slow for all of it.
            return failed(now + ATTEMPT);
        }
        if dice.happens(knobs.throttle) || creates && dice.happens(knobs.full) {
            self.met += 1;
            return failed(lands + 10 * MILLI + dice.below(400 * MILLI));
        }
        if dice.happens(knobs.slow) {
            self.met += 1;
            lands += dice.between(500 * MILLI..45 * SECOND);
        }
        if creates && dice.happens(knobs.late) {
            self.met += 1;
            let delay = dice.between(100 * MILLI..15 * SECOND);
            let (lands, ends) = (Some(lands + delay), lands + delay.min(SILENCE));
            return Course { lands, ends, is_answered: false };
        }
        if dice.happens(knobs.lost_replies) {
            self.met += 1;
            return Course { lands: Some(lands), ends: lands + SILENCE, is_answered: false };
        }
        let ends = lands + net.delay(dice, place, host).max(MICRO);
        let is_answered = ends <= now + ATTEMPT;
        Course { lands: Some(lands), ends: ends.min(now + ATTEMPT), is_answered }
    }
}
