//! The catalogue in words: what each verb does to its target, and what it is for.
//!
//! `{on}` stands for the target and `{rate}`, `{speed}`, `{by}`, `{count}` for the quantities. The manual, the story of
//! `cargo sim explain` and the advice of the checker speak from here.

use super::verbs::Verb;

/// A verb in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Words {
    /// `do`, `fault` or `check`, and the name.
    pub of: (&'static str, &'static str),
    /// The sentence of a story, without its end.
    pub says: &'static str,
    /// What it means for the estate.
    pub about: &'static str,
}

const fn words(key: &'static str, name: &'static str, says: &'static str, about: &'static str) -> Words {
    Words { of: (key, name), says, about }
}

/// Every verb in words.
pub const WORDS: &[Words] = &[
    words(
        "do",
        "point",
        "a recovery point of {on} is asked for",
        "a recovery point beside those of the interval",
    ),
    words(
        "do",
        "stop-agent",
        "the agent of {on} is stopped in an orderly way",
        "memory is spilled, positions are recorded, guests stop until it starts",
    ),
    words("do", "start-agent", "the agent of {on} is started", "after `stop-agent`"),
    words(
        "do",
        "edit-disk",
        "somebody writes to a disk of {on} past Redoubt",
        "4 KiB anywhere, as by a rescue system; nothing happens while its agent holds the disks: after `stop-agent`",
    ),
    words("do", "copy", "disks and state of {on} are copied", "for `old-copy`"),
    words(
        "do",
        "mount",
        "the oldest point of {on} is mounted at the recovery site",
        "pinned, read all the time through a cache; ends with `for`, `heal` or the run",
    ),
    words("do", "rotate-keys", "{on} gets a new data key", "for what is sealed from then on"),
    words("do", "rewrap-keys", "the vault key is replaced", "services go on with the one they have"),
    words(
        "do",
        "give-keys",
        "all services that run are started anew with the newest vault key",
        "killed, and back after 0.7 s; what starts later has it too",
    ),
    words(
        "do",
        "retire-keys",
        "older vault keys are retired",
        "as soon as the services have the newest one: after `give-keys`",
    ),
    words("do", "copy-vault", "the whole vault is copied", "for `vault.restored`"),
    words(
        "fault",
        "old-copy",
        "the old copy of {on} is started beside it",
        "one identity twice; needs `copy` before it",
    ),
    words(
        "fault",
        "process.kill",
        "the process on {on} is killed",
        "it ends at once, what it wrote survives; without `for` it is back after 0.7 s",
    ),
    words(
        "fault",
        "process.kill-at-effect",
        "the process on {on} dies with its effect number {count} on the store",
        "it never hears the answer, and starts again",
    ),
    words(
        "fault",
        "host.power",
        "{on} loses power",
        "what was not flushed or synced survives by chance, sector by sector and name by name",
    ),
    words(
        "fault",
        "host.power-at-effect",
        "{on} loses power with its effect number {count} on its state directory",
        "a write, a sync or a change of a name that nobody hears of; it is back after 0.7 s",
    ),
    words(
        "fault",
        "host.freeze",
        "{on} stands still",
        "nothing runs, and it does not know; without `for` 10 s",
    ),
    words("fault", "host.clock", "the wall clock of {on} jumps by {by}", "monotonic time goes on"),
    words("fault", "site.power", "the site {on} loses power", "all its hosts and the network between them"),
    words(
        "fault",
        "site.lost",
        "the site {on} is lost for good",
        "nothing of it comes back: what is in the vault must do",
    ),
    words("fault", "link.cut", "the link {on} falls silent", "nobody is told: requests just get no answer"),
    words("fault", "link.loss", "the link {on} loses {rate} of its packets", "they are sent again, late"),
    words("fault", "link.slow", "the link {on} carries only {speed}", "per second and way"),
    words(
        "fault",
        "store.throttle",
        "the store answers \"slow down\" to {rate} of the requests",
        "with or without a time; nothing happened",
    ),
    words(
        "fault",
        "store.lost-replies",
        "the store loses the replies to {rate} of the requests",
        "what was asked for did happen",
    ),
    words(
        "fault",
        "store.late",
        "the store does {rate} of the changes late",
        "about when the sender gives up, up to 15 s later",
    ),
    words(
        "fault",
        "store.false-conflicts",
        "the store says \"exists already\" to {rate} of the creations",
        "whether it did create or not",
    ),
    words(
        "fault",
        "store.ghosts",
        "the store does {rate} of the changes minutes later",
        "20 s to 10 min: whoever sent them is gone",
    ),
    words(
        "fault",
        "store.resurrections",
        "the store undoes {rate} of the deletions",
        "confirmed, and back within a minute",
    ),
    words(
        "fault",
        "store.slow",
        "the store is very slow with {rate} of the objects",
        "always the same ones, 0.5 s to 45 s for each request",
    ),
    words(
        "fault",
        "store.full",
        "the store has no room for {rate} of the creations",
        "reads, listings and deletions work",
    ),
    words("fault", "store.outage", "the store answers nobody", "until it is over"),
    words(
        "fault",
        "disk.read-errors",
        "the disks of {on} fail {rate} of the reads",
        "errors that the guest sees too",
    ),
    words(
        "fault",
        "disk.write-errors",
        "the disks of {on} fail {rate} of the writes",
        "old or new content, sector by sector",
    ),
    words(
        "fault",
        "disk.flush-errors",
        "the disks of {on} fail {rate} of the flushes",
        "after which a later one proves nothing",
    ),
    words("fault", "disk.hang", "the disks of {on} finish nothing", "requests wait; without `for` 10 s"),
    words(
        "fault",
        "files.full",
        "the state directory of {on} is full",
        "spill, stage and records cannot grow",
    ),
    words(
        "fault",
        "files.lost",
        "{on} loses its state directory, and its process with it",
        "it starts again with an empty one",
    ),
    words(
        "fault",
        "files.sync-errors",
        "{rate} of the syncs on {on} fail",
        "of state files, heard or not because the process died meanwhile; a later one proves nothing",
    ),
    words(
        "fault",
        "files.hang",
        "the state directory of {on} answers nothing",
        "reads, writes and syncs wait",
    ),
    words(
        "fault",
        "buggify.early-beat",
        "beats of agents come at once, {rate} of them",
        "batches are sealed when they have hardly begun",
    ),
    words(
        "fault",
        "buggify.late-beat",
        "beats of agents come late, {rate} of them",
        "300 ms instead of 25 ms: batches wait",
    ),
    words(
        "fault",
        "buggify.early-cooling",
        "agents look for extents that may cool at once, {rate} of the times",
        "every 100 ms instead of 5 s",
    ),
    words(
        "fault",
        "buggify.slow-reader",
        "{rate} of the reads of agents end late",
        "200 ms after the disk answered: those behind them end before",
    ),
    words(
        "fault",
        "buggify.small-memory",
        "{rate} of the agents that start have an eighth of their memory",
        "they spill early",
    ),
    words(
        "fault",
        "buggify.dropped-session",
        "connections of agents end before {rate} of the messages are read",
        "as if the other side had closed them",
    ),
    words(
        "fault",
        "buggify.small-commit",
        "{rate} of the commits take a single batch first",
        "what is left of the job follows",
    ),
    words(
        "fault",
        "buggify.late-commit",
        "{rate} of the commits wait before they are published",
        "700 ms, while the next ones are staged",
    ),
    words(
        "fault",
        "buggify.stage-from-file",
        "{rate} of the staged batches are read from the file",
        "although memory holds them",
    ),
    words(
        "fault",
        "buggify.index-each-slot",
        "{rate} of the maintainers that start find work after each slot",
        "a version of the catalogue for each",
    ),
    words(
        "fault",
        "buggify.put-twice",
        "{rate} of the creations that succeeded are put again and read back",
        "as if the answer had been lost",
    ),
    words(
        "fault",
        "buggify.read-twice",
        "{rate} of the objects that were read are read again",
        "the first answer is thrown away",
    ),
    words("fault", "buggify.short-pages", "{rate} of the pages of a listing hold three names", "more follow"),
    words(
        "fault",
        "buggify.small-segments",
        "{rate} of the commits are cut into small segments",
        "a quarter of the usual size",
    ),
    words(
        "fault",
        "buggify.forgotten-block",
        "{rate} of the looks at a block of the index in a reader's memory find it forgotten",
        "it is read again",
    ),
    words(
        "fault",
        "buggify.forgotten-unit",
        "{rate} of the looks at a unit in a reader's memory find it forgotten",
        "it is read again",
    ),
    words(
        "fault",
        "buggify.late-ahead",
        "{rate} of what readers fetch ahead of need comes late",
        "400 ms: whoever asks for it meanwhile waits as well",
    ),
    words(
        "fault",
        "data.rot",
        "a bit of a stored segment changes",
        "after the last convergence, before everything is restored",
    ),
    words("fault", "data.lost", "a stored segment disappears", "likewise"),
    words("fault", "data.truncated", "a stored segment loses its end", "likewise"),
    words("fault", "log.rot", "a bit of a slot of the log changes", "likewise"),
    words("fault", "log.lost", "a slot of the log disappears", "likewise; never the newest one"),
    words("fault", "log.truncated", "a slot of the log loses its end", "likewise"),
    words("fault", "claim.rot", "a bit of a writer's claim changes", "likewise"),
    words("fault", "claim.lost", "a writer's claim disappears", "likewise"),
    words("fault", "claim.truncated", "a writer's claim loses its end", "likewise"),
    words("fault", "index.rot", "a bit of the index changes", "likewise"),
    words("fault", "index.lost", "an object of the index disappears", "likewise"),
    words("fault", "index.truncated", "an object of the index loses its end", "likewise"),
    words("fault", "catalogue.rot", "a bit of the catalogue changes", "likewise"),
    words("fault", "catalogue.lost", "a version of the catalogue disappears", "likewise"),
    words("fault", "catalogue.truncated", "a version of the catalogue loses its end", "likewise"),
    words("fault", "pin.rot", "a bit of a pin changes", "likewise"),
    words("fault", "pin.lost", "a pin disappears", "likewise"),
    words("fault", "key.rot", "a bit of a data key's object changes", "likewise"),
    words("fault", "key.lost", "a data key's object disappears", "likewise"),
    words("fault", "key.truncated", "a data key's object loses its end", "likewise"),
    words("fault", "identity.rot", "a bit of the vault object changes", "likewise"),
    words("fault", "identity.lost", "the vault object disappears", "likewise"),
    words("fault", "identity.truncated", "the vault object loses its end", "likewise"),
    words(
        "fault",
        "vault.restored",
        "an old copy of the vault takes its place",
        "made by `copy-vault`, with its process servers stopped or running",
    ),
    words("check", "points", "every point in the vault is restored and judged", "while the story goes on"),
    words(
        "check",
        "leftovers",
        "what nobody needs must be gone from the store",
        "at rest, after all other checks",
    ),
    words(
        "check",
        "mounts",
        "the newest point of each machine is opened at the recovery site",
        "measured as `mount` until its first block is there",
    ),
    words(
        "check",
        "scrub",
        "each machine's vault is scrubbed from the recovery site, slowly, and nothing may be called damaged",
        "while the story goes on",
    ),
];

/// Models of guests in words.
pub const LOAD_WORDS: &[(&str, &str)] = &[
    ("mixed", "writes of many sizes, zeroes, trims and flushes, with overlaps"),
    (
        "database",
        "a log and pages with rules of what is flushed first; a torn or reordered copy is noticed by its own recovery",
    ),
    ("trickle", "small writes, here and there"),
    ("large", "writes of up to 1 MiB that overlap"),
    ("pages", "4 KiB writes"),
];

/// Oracles in words.
pub const ORACLE_WORDS: &[(&str, &str)] = &[
    ("prefix", "each recovery point equals the state after an exact prefix of the acknowledged writes"),
    (
        "database",
        "the guest's own recovery accepts each point and finds every commit that the point promises",
    ),
    ("points-restorable", "each point in the catalogue can be read in full, and stays readable"),
    ("guest-untouched", "no guest request fails, or waits longer than promised, because of replication"),
    ("loss-never-hidden", "what was reported as safe is never taken back"),
    ("no-silent-damage", "rot, lost objects and torn uploads are reported for exactly the points they hit"),
    ("index-never-needed", "a damaged index or catalogue costs no point"),
    ("scrub-exact", "a scrub names exactly the objects, points and ranges that are damaged"),
    ("nothing-left-behind", "what the dead left and what no kept point needs is deleted in the end"),
    ("mount-holds", "a mount shows its point's bytes or an error in time, and its point is not given up"),
    ("single-writer", "a writer that lost its claim commits nothing more"),
    ("order-kept", "nothing that was acknowledged is given up but where the fault budget says so"),
    ("bounded", "memory, spill and stage keep their bounds"),
    ("converges", "after the last fault the vault equals the source, within the bound"),
    ("secrets", "no plaintext of a guest on any link, stage or object"),
];

/// Returns a verb in words; a verb that nobody described is called by its name.
pub(super) fn of(verb: &Verb) -> Words {
    let found = WORDS.iter().find(|words| words.of == (verb.key, verb.name)).copied();
    found.unwrap_or(Words { of: (verb.key, verb.name), says: verb.name, about: "" })
}

#[cfg(test)]
mod tests {
    use super::super::verbs::{LOADS, ORACLES, Target, VERBS};
    use super::*;

    #[test]
    fn each_verb_is_described_and_its_sentence_says_on_what_and_how_much() {
        for verb in VERBS {
            let Some(words) = WORDS.iter().find(|words| words.of == (verb.key, verb.name)) else {
                panic!("describe {} {:?} in sim/src/scenario/catalogue.rs", verb.key, verb.name);
            };
            assert_eq!(words.says.contains("{on}"), verb.target != Target::None, "{}", verb.name);
            for (key, _) in verb.takes {
                assert!(words.says.contains(&format!("{{{key}}}")), "{}: {key}", verb.name);
            }
            assert!(!words.about.is_empty(), "{}", verb.name);
        }
        assert_eq!(WORDS.len(), VERBS.len(), "nothing is described that is not there");
    }

    #[test]
    fn each_oracle_and_each_model_of_a_guest_is_described() {
        let names = |words: &[(&'static str, &str)]| words.iter().map(|(name, _)| *name).collect::<Vec<_>>();
        assert_eq!(names(ORACLE_WORDS), ORACLES, "describe it in sim/src/scenario/catalogue.rs");
        assert_eq!(names(LOAD_WORDS), LOADS);
    }
}
