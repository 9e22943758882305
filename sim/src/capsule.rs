//! Capsules: one run as portable evidence (`.rdrun`).
//!
//! A seed points at a run only together with a commit. A capsule carries what the run was made of (the
//! scenario, frozen, and the plan as it was drawn) and what it did: its digest, and a *beat* each simulated
//! second, the digest so far. A replay that is not the recorded run parts from it between two beats.

use crate::plan::Plan;
use serde::{Deserialize, Serialize};

/// Version of the format. A capsule of another one is refused: it is evidence, and guessing is none.
pub const FORMAT: u32 = 1;

/// Extension of the files.
pub const EXTENSION: &str = "rdrun";

/// Beats of one run at most; of longer ones every second, fourth, eighth .. is kept.
pub const BEATS_MAX: usize = 512;

/// Simulated milliseconds between two beats, to begin with.
pub const BEAT_MS: u64 = 1000;

/// Where a run stood at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// Simulated milliseconds.
    pub at_ms: u64,
    /// Events before it.
    pub events: u64,
    /// The first half of the digest over them.
    pub digest: String,
}

/// What failed, without what differs from seed to seed: shrinking keeps it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Signature {
    /// The oracle, `assertion` for a crash, `converges`, `objective`.
    pub oracle: String,
    /// What it said, without figures and names of hosts: what it hit.
    pub hits: String,
}

/// One run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capsule {
    /// [`FORMAT`].
    pub format: u32,
    /// Name of the scenario.
    pub scenario: String,
    /// The seed.
    pub seed: u64,
    /// Version of the product.
    pub version: String,
    /// Commit, with `+` behind it if files differed; none outside a repository.
    pub commit: Option<String>,
    /// The planted bug that was active.
    pub bug: Option<String>,
    /// The verdict's exit code.
    pub code: u8,
    /// What failed; none if the run held.
    pub signature: Option<Signature>,
    /// What the oracle said, in full.
    pub said: String,
    /// When the first finding was made, in simulated milliseconds; none if it was made at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found_ms: Option<u64>,
    /// Digest of the whole run.
    pub digest: String,
    /// Digests on the way.
    pub beats: Vec<Beat>,
    /// The frozen scenario: estate, load, timeline, promises.
    pub text: String,
    /// The plan as drawn.
    pub plan: Plan,
}

/// Where two runs part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parting {
    /// Nowhere, as far as both go.
    Nowhere,
    /// Between the last beat they share and this one; both are there, and differ.
    Before {
        /// The last beat that both have alike; none if they differ from the start.
        last_equal: Option<Beat>,
        /// The beat of the recorded run.
        recorded: Beat,
        /// The beat of the other one.
        replayed: Beat,
    },
}

/// Compares the beats that both have.
pub fn part(recorded: &[Beat], replayed: &[Beat]) -> Parting {
    let mut last_equal = None;
    for beat in recorded {
        let Ok(index) = replayed.binary_search_by_key(&beat.at_ms, |other| other.at_ms) else { continue };
        let other = &replayed[index];
        if other != beat {
            return Parting::Before { last_equal, recorded: beat.clone(), replayed: other.clone() };
        }
        last_equal = Some(beat.clone());
    }
    Parting::Nowhere
}

impl Capsule {
    /// Writes it: one line of JSON for each part of a run.
    pub fn write(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self).map(|text| text + "\n")
    }

    /// Reads one; the error is a sentence.
    pub fn read(text: &str) -> Result<Capsule, String> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let head: Head = serde_json::from_str(text).map_err(|error| format!("is no capsule: {error}"))?;
        if head.format != FORMAT {
            return Err(format!("has format {}; this lab reads format {FORMAT}", head.format));
        }
        serde_json::from_str(text).map_err(|error| format!("is a damaged capsule: {error}"))
    }
}

/// Beats under way.
#[derive(Debug)]
pub struct Pulse {
    beats: Vec<Beat>,
    every_ms: u64,
    next_ms: u64,
}

impl Default for Pulse {
    fn default() -> Pulse {
        Pulse { beats: Vec::new(), every_ms: BEAT_MS, next_ms: BEAT_MS }
    }
}

impl Pulse {
    /// Tells whether a beat is due before an event at this time.
    pub fn is_due(&self, now_ms: u64) -> bool {
        now_ms >= self.next_ms
    }

    /// Takes a beat: the digest of all events before this time.
    pub fn beat(&mut self, now_ms: u64, events: u64, digest: String) {
        // Of a long silence only the end is a beat: nothing differs inside of it.
        let at_ms = now_ms / self.every_ms * self.every_ms;
        self.beats.push(Beat { at_ms, events, digest });
        if self.beats.len() > BEATS_MAX {
            self.every_ms *= 2;
            let every = self.every_ms;
            self.beats.retain(|beat| beat.at_ms.is_multiple_of(every));
        }
        self.next_ms = (now_ms / self.every_ms + 1) * self.every_ms;
    }

    /// Returns the beats so far.
    pub fn beats(&self) -> &[Beat] {
        &self.beats
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pulse(length_ms: u64, differs_from: u64) -> Pulse {
        let mut pulse = Pulse::default();
        for now in (0..length_ms).step_by(250) {
            if pulse.is_due(now) {
                let digest = format!("{now}{}", if now >= differs_from { "x" } else { "" });
                pulse.beat(now, now / 250, digest);
            }
        }
        pulse
    }

    #[test]
    fn two_runs_part_between_two_beats() {
        let (recorded, replayed) = (pulse(60_000, u64::MAX), pulse(60_000, 12_500));
        let Parting::Before { last_equal, recorded, .. } = part(recorded.beats(), replayed.beats()) else {
            panic!("they part");
        };
        assert_eq!((last_equal.map(|beat| beat.at_ms), recorded.at_ms), (Some(12_000), 13_000));
    }

    #[test]
    fn a_long_run_keeps_few_beats_and_a_shorter_replay_finds_its_own_among_them() {
        let long = pulse(3_000_000, u64::MAX);
        assert!(long.beats().len() <= BEATS_MAX && long.beats().len() > BEATS_MAX / 3);
        let short = pulse(700_000, u64::MAX);
        assert_eq!(part(long.beats(), short.beats()), Parting::Nowhere);
        let other = pulse(700_000, 300_000);
        assert!(matches!(part(long.beats(), other.beats()), Parting::Before { .. }));
    }

    #[test]
    fn a_file_of_another_format_is_refused_by_its_number() {
        assert_eq!(
            Capsule::read(r#"{"format":9}"#).unwrap_err(),
            format!("has format 9; this lab reads format {FORMAT}")
        );
        assert!(Capsule::read("x").unwrap_err().contains("is no capsule"));
    }
}
