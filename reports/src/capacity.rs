//! What an estate keeps of its promise on its link, and which links would do: the answer of `cargo sim capacity`, as it
//! stands in `run.json` and as the command prints it for programs.
//!
//! Sizes and rates are those of the whole estate, whatever the scale at which it was played.

use serde::{Deserialize, Serialize};

/// Durations at four places of a distribution, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places {
    /// Half of the samples are no longer.
    pub p50: u64,
    /// 95 of 100 are no longer.
    pub p95: u64,
    /// 99 of 100 are no longer.
    pub p99: u64,
    /// The longest.
    pub max: u64,
}

/// A group of machines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// As `[protect]` names it; `others` are those that no group has.
    pub name: String,
    /// How many.
    pub machines: u64,
    /// Bytes written per second by all of it, in the mean.
    pub writes: u64,
    /// What is promised.
    pub rpo_ms: Option<u64>,
    /// What no process server holds; each machine, each second.
    pub lag_ms: Option<Places>,
    /// What a disaster at a random second would lose: the age of the newest point in the vault.
    pub loss_ms: Option<Places>,
    /// Until the newest point shows its first block at the recovery site.
    pub mount_ms: Option<Places>,
}

/// A link that was tried.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Bytes per second.
    pub link: u64,
    /// The worst verdict of its seeds, in words.
    pub verdict: String,
    /// Whether every seed kept the promise.
    pub is_kept: bool,
    /// The worst machine's, in the worst seed.
    pub lag_p99_ms: Option<u64>,
    /// The worst machine's, in the worst seed.
    pub loss_p99_ms: Option<u64>,
    /// Sessions ended although nothing failed: more machines had a backlog at once than the scale can play.
    pub is_crowded: bool,
    /// What was missed, in the first seed that missed something.
    pub missed: Vec<String>,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// The scenario.
    pub scenario: String,
    /// Seeds on each link.
    pub seeds: u64,
    /// Sizes and rates of the run are those of the estate divided by this.
    pub scale: u64,
    /// Bytes per second of the link as it is.
    pub link: u64,
    /// One page alone has the link so long: figures are no finer.
    pub finest_ms: u64,
    /// Simulated time on the link as it is, over all seeds.
    pub simulated_s: u64,
    /// The groups.
    pub groups: Vec<Group>,
    /// The link as it is.
    pub given: Link,
    /// All links that were tried, the slowest first; empty if none was searched.
    pub tried: Vec<Link>,
    /// The smallest one that keeps the promise, if it was searched and found.
    pub smallest: Option<u64>,
    /// It may be smaller still: at this scale no slower link can be played.
    pub is_bound_by_scale: bool,
}

impl Capacity {
    /// Returns the sentences that say what came of the search.
    pub fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        let rate = crate::rate;
        let missed = self.given.missed.first().and_then(|missed| missed.lines().next());
        words.push(match (self.given.is_kept, missed) {
            (true, _) => format!("the promise is kept on {}", rate(self.link)),
            (false, Some(missed)) => format!("the promise is not kept on {}: {missed}", rate(self.link)),
            (false, None) => format!("the promise is not kept on {}", rate(self.link)),
        });
        if self.given.is_crowded || self.tried.iter().any(|tried| tried.is_crowded) {
            let crowded = "sessions ended of silence: more machines had a backlog at once than this scale can play, and \
                           figures are too bad";
            words.push(crowded.to_owned());
        }
        words.extend(match (self.smallest, self.tried.is_empty()) {
            (Some(link), _) if self.is_bound_by_scale => {
                Some(format!("{} keeps it; at this scale no slower link can be played", rate(link)))
            }
            (Some(link), _) => Some(format!("the smallest link that keeps it: {}", rate(link))),
            (None, false) => {
                Some("no link that was tried keeps it: the link is not what it lacks".to_owned())
            }
            (None, true) => None,
        });
        words
    }
}
