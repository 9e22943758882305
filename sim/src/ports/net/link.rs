//! What a direction between two places is like, and which direction a name means.

use redoubt_hw_models as hw;
use std::time::Duration;

/// One direction of a link, with its faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkModel {
    /// One-way delay.
    pub delay: hw::Quantiles,
    /// Bytes per second.
    pub speed: u64,
    /// Bytes that wait at its entrance before senders must.
    pub queue: u64,
    /// Loss in parts per million of writes.
    pub loss: u32,
    /// Nothing passes.
    pub cut: bool,
}

impl From<&hw::LinkModel> for LinkModel {
    fn from(model: &hw::LinkModel) -> LinkModel {
        LinkModel {
            delay: model.delay_us,
            speed: model.bytes_per_second,
            queue: model.queue_bytes,
            loss: model.loss_ppm,
            cut: false,
        }
    }
}

impl LinkModel {
    /// Returns how long the link needs for these bytes.
    pub(super) fn transfer(&self, bytes: u64) -> Duration {
        Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / self.speed.max(1))
    }

    /// Adds the faults of another one.
    pub(super) fn worsen(&mut self, fault: &LinkModel) {
        self.cut |= fault.cut;
        self.loss = self.loss.max(fault.loss);
        self.speed = self.speed.min(fault.speed);
    }
}

/// Returns the directions that a link's name means: `wan`, `a->b`, `a<->b`.
pub(super) fn ends(link: &str) -> Vec<(String, String)> {
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    if link == "wan" {
        return vec![pair("source", "target"), pair("target", "source")];
    }
    if let Some((a, b)) = link.split_once("<->") {
        return vec![pair(a, b), pair(b, a)];
    }
    link.split_once("->").map(|(a, b)| vec![pair(a, b)]).unwrap_or_default()
}
