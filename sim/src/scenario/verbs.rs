//! The key table of the timeline: every verb, what it acts on and which quantities it takes.
//!
//! One table feeds the checker, the plan and the help of `cargo sim check`.

use super::quantity::Unit;

/// What `on` names for a verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Nothing.
    None,
    /// Any host: a machine or a process server.
    Host,
    /// A machine.
    Machine,
    /// A process server.
    Server,
    /// A site.
    Site,
    /// A link: `wan`, or `a->b`, or `a<->b` with host or site names.
    Link,
}

/// How a fault ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// It is an instant; `for` makes no sense.
    AtOnce,
    /// It lasts `for`, or until `heal`, or until the faults are lifted.
    Lasts,
}

/// One verb of the timeline.
#[derive(Clone, Copy, Debug)]
pub struct Verb {
    /// `do`, `fault` or `check`.
    pub key: &'static str,
    /// Its name.
    pub name: &'static str,
    /// What `on` names.
    pub target: Target,
    /// How it ends.
    pub ends: Ends,
    /// Quantities it takes beside the common keys, with their units; all are required.
    pub takes: &'static [(&'static str, Unit)],
}

const fn verb(
    key: &'static str,
    name: &'static str,
    target: Target,
    ends: Ends,
    takes: &'static [(&'static str, Unit)],
) -> Verb {
    Verb { key, name, target, ends, takes }
}

/// Damage of an object at rest, done after the last convergence: `<part of the vault>.<what befalls it>`.
const fn damage(name: &'static str) -> Verb {
    verb("fault", name, Target::None, Ends::AtOnce, &[])
}

/// Rare but legal behaviour of the engine that is forced: `buggify.<point>`, of `redoubt_ports::Rare`.
const fn rare(name: &'static str) -> Verb {
    verb("fault", name, Target::None, Ends::Lasts, RATE)
}

impl Verb {
    /// Tells whether it forces what is legal, and is no fault.
    pub fn is_rare(&self) -> bool {
        self.name.starts_with("buggify.")
    }

    /// Tells whether it damages an object at rest.
    pub fn is_damage(&self) -> bool {
        let parts = ["data.", "log.", "claim.", "index.", "catalogue.", "pin.", "key.", "identity."];
        self.key == "fault" && parts.iter().any(|part| self.name.starts_with(part))
    }
}

/// What no pattern and no swarm ever draws: losses that end a story, what needs a story before it, and flushes that
/// fail, after which a database that goes on is its own undoing: no replica is better than its source.
pub const NEVER_DRAWN: &[&str] = &["site.lost", "old-copy", "disk.flush-errors", "vault.restored"];

/// What ends by itself, so that nothing heals it.
pub const ENDS_ITSELF: &[&str] = &["host.freeze", "disk.hang"];

/// The range from which a quantity is drawn if nobody gives it.
pub fn usual(key: &str) -> (i64, i64) {
    match key {
        "rate" => (1_000, 300_000),
        "speed" => (16_384, 2_000_000),
        "count" => (1, 40),
        _ => (-3_600_000, 3_600_000),
    }
}

const RATE: &[(&str, Unit)] = &[("rate", Unit::Ppm)];
const COUNT: &[(&str, Unit)] = &[("count", Unit::Count)];
const SPEED: &[(&str, Unit)] = &[("speed", Unit::Bytes)];
const BY: &[(&str, Unit)] = &[("by", Unit::Millis)];

/// Every verb.
pub const VERBS: &[Verb] = &[
    verb("do", "point", Target::Machine, Ends::AtOnce, &[]),
    verb("do", "stop-agent", Target::Machine, Ends::AtOnce, &[]),
    verb("do", "start-agent", Target::Machine, Ends::AtOnce, &[]),
    verb("do", "edit-disk", Target::Machine, Ends::AtOnce, &[]),
    verb("do", "copy", Target::Machine, Ends::AtOnce, &[]),
    verb("do", "copy-vault", Target::None, Ends::AtOnce, &[]),
    verb("do", "mount", Target::Machine, Ends::Lasts, &[]),
    verb("do", "rotate-keys", Target::Machine, Ends::AtOnce, &[]),
    verb("do", "rewrap-keys", Target::None, Ends::AtOnce, &[]),
    verb("do", "give-keys", Target::None, Ends::AtOnce, &[]),
    verb("do", "retire-keys", Target::None, Ends::AtOnce, &[]),
    verb("fault", "old-copy", Target::Machine, Ends::Lasts, &[]),
    verb("fault", "process.kill", Target::Host, Ends::Lasts, &[]),
    verb("fault", "process.kill-at-effect", Target::Server, Ends::AtOnce, COUNT),
    verb("fault", "host.power", Target::Host, Ends::Lasts, &[]),
    verb("fault", "host.power-at-effect", Target::Host, Ends::AtOnce, COUNT),
    verb("fault", "host.freeze", Target::Host, Ends::Lasts, &[]),
    verb("fault", "host.clock", Target::Host, Ends::AtOnce, BY),
    verb("fault", "site.power", Target::Site, Ends::Lasts, &[]),
    verb("fault", "site.lost", Target::Site, Ends::AtOnce, &[]),
    verb("fault", "link.cut", Target::Link, Ends::Lasts, &[]),
    verb("fault", "link.loss", Target::Link, Ends::Lasts, RATE),
    verb("fault", "link.slow", Target::Link, Ends::Lasts, SPEED),
    verb("fault", "store.throttle", Target::None, Ends::Lasts, RATE),
    verb("fault", "store.lost-replies", Target::None, Ends::Lasts, RATE),
    verb("fault", "store.late", Target::None, Ends::Lasts, RATE),
    verb("fault", "store.false-conflicts", Target::None, Ends::Lasts, RATE),
    verb("fault", "store.ghosts", Target::None, Ends::Lasts, RATE),
    verb("fault", "store.resurrections", Target::None, Ends::Lasts, RATE),
    verb("fault", "store.slow", Target::None, Ends::Lasts, RATE),
    verb("fault", "store.full", Target::None, Ends::Lasts, RATE),
    verb("fault", "store.outage", Target::None, Ends::Lasts, &[]),
    verb("fault", "disk.read-errors", Target::Machine, Ends::Lasts, RATE),
    verb("fault", "disk.write-errors", Target::Machine, Ends::Lasts, RATE),
    verb("fault", "disk.flush-errors", Target::Machine, Ends::Lasts, RATE),
    verb("fault", "disk.hang", Target::Machine, Ends::Lasts, &[]),
    verb("fault", "files.full", Target::Host, Ends::Lasts, &[]),
    verb("fault", "files.lost", Target::Server, Ends::Lasts, &[]),
    verb("fault", "files.sync-errors", Target::Host, Ends::Lasts, RATE),
    verb("fault", "files.hang", Target::Host, Ends::Lasts, &[]),
    rare("buggify.early-beat"),
    rare("buggify.late-beat"),
    rare("buggify.early-cooling"),
    rare("buggify.slow-reader"),
    rare("buggify.small-memory"),
    rare("buggify.dropped-session"),
    rare("buggify.small-commit"),
    rare("buggify.late-commit"),
    rare("buggify.stage-from-file"),
    rare("buggify.index-each-slot"),
    rare("buggify.put-twice"),
    rare("buggify.read-twice"),
    rare("buggify.short-pages"),
    rare("buggify.small-segments"),
    rare("buggify.forgotten-block"),
    rare("buggify.forgotten-unit"),
    rare("buggify.late-ahead"),
    damage("data.rot"),
    damage("data.lost"),
    damage("data.truncated"),
    damage("log.rot"),
    damage("log.lost"),
    damage("log.truncated"),
    damage("claim.rot"),
    damage("claim.lost"),
    damage("claim.truncated"),
    damage("index.rot"),
    damage("index.lost"),
    damage("index.truncated"),
    damage("catalogue.rot"),
    damage("catalogue.lost"),
    damage("catalogue.truncated"),
    damage("pin.rot"),
    damage("pin.lost"),
    damage("key.rot"),
    damage("key.lost"),
    damage("key.truncated"),
    damage("identity.rot"),
    damage("identity.lost"),
    damage("identity.truncated"),
    verb("fault", "vault.restored", Target::None, Ends::AtOnce, &[]),
    verb("check", "points", Target::None, Ends::AtOnce, &[]),
    verb("check", "leftovers", Target::None, Ends::AtOnce, &[]),
    verb("check", "mounts", Target::None, Ends::AtOnce, &[]),
    verb("check", "scrub", Target::None, Ends::AtOnce, &[]),
];

/// Oracles, by the names used in `[expect] always`.
pub const ORACLES: &[&str] = &[
    "prefix",
    "database",
    "points-restorable",
    "guest-untouched",
    "loss-never-hidden",
    "no-silent-damage",
    "index-never-needed",
    "scrub-exact",
    "nothing-left-behind",
    "mount-holds",
    "single-writer",
    "order-kept",
    "bounded",
    "converges",
    "secrets",
];

/// Things that may happen in a run, by the names used in `[expect] sometimes`.
pub const MARKS: &[&str] = &[
    // Of points.
    "point-published",
    "point-outlived-an-outage",
    "point-cut-in-an-outage",
    "database-recovered",
    "last-point-cut-again",
    // Of the agent.
    "spilled",
    "spill-recovered",
    "overflowed",
    "overflow-resynced",
    "bitmap-mode-left",
    "resync-done",
    "unclean-restart",
    "hot-extents-compared",
    "session-lost",
    "activity-log-failed",
    "activity-log-given-up",
    "marks-disowned",
    "marks-void",
    "engine-read-failed",
    // Of the process server.
    "stage-recovered",
    "stage-lost",
    "stage-failed",
    "torn-tail-cut",
    "writer-fenced",
    // Of the leaves.
    "guest-saw-disk-error",
    "unflushed-sectors-lost",
    "flush-failed",
    "disk-hung",
    "files-hung",
    "file-fault-hit",
    "sync-failed",
    "sync-failed-unheard",
    "spill-met-full-disk",
    "stage-met-full-disk",
    "store-fault-hit",
    "ghost-left",
    "slow-object-met",
    "store-was-full",
    "deletion-undone",
    "killed-at-effect",
    "power-lost-at-effect",
    "lost-reply-read-back",
    "clock-stepped",
    "clock-stepped-in-a-session",
    "old-copy-started",
    "disk-edited",
    // Of mounts, retention and keys.
    "point-mounted",
    "mount-read-in-an-outage",
    "mount-read-failed-in-time",
    "pin-came-too-late",
    "points-given-up",
    "pinned-point-outlived-retention",
    "log-folded",
    "folded-log-deleted",
    "segments-packed-anew",
    "data-key-rotated",
    "vault-key-replaced",
    "vault-key-given",
    "vault-key-retired",
    "stage-of-another-key",
    "spill-of-another-key",
    // Of rot.
    "damage-reported",
    "rot-spared-older-points",
    "index-damage-reported",
    "scrubbed-meanwhile",
    "scrub-found-lost-content",
    "scrub-found-harmless-damage",
    "claim-damage-reported",
    "key-damage-reported",
    "vault-restored",
    "vault-went-back-told",
    "slot-was-gone",
    "slot-behind-a-gap-removed",
    "old-copy-was-struck",
    "taken-from-the-copy-put-back",
    "stage-did-not-follow",
];

/// Models of guests.
pub const LOADS: &[&str] = &["mixed", "database", "trickle", "large", "pages"];
