//! The key table: every table of a scenario file, its keys, what each takes, and what it is for.
//!
//! One table feeds the reader (which keys are known), the canonical layout (their order), the JSON Schema and
//! the manual. What is *not* here: the verbs of the timeline and their quantities (`verbs`).

use super::quantity::Unit;
use super::verbs::{LOADS, MARKS, ORACLES};
use redoubt_hw_models as hw;

/// What a key takes.
#[derive(Clone, Copy, Debug)]
pub enum Takes {
    /// The number of the format.
    Format,
    /// Free text.
    Text,
    /// A list of texts.
    Texts,
    /// `true`.
    Flag,
    /// A seed.
    Seed,
    /// A whole number from 1 on.
    Count,
    /// One quantity.
    Amount(Unit),
    /// A quantity, a range of it, or a variable.
    Drawn(Unit),
    /// A quantity, or a range of it.
    Ranged(Unit),
    /// A moment of the timeline.
    Moment,
    /// One of these words.
    Word(fn() -> Vec<&'static str>),
    /// A list of these words.
    Words(fn() -> Vec<&'static str>),
    /// `true`, or a list of names and patterns of faults.
    Faults,
    /// A range, or a list of names of which one is drawn.
    Variable,
    /// A table.
    Table(&'static Place),
    /// A file's name, or a table.
    FileOrTable(&'static Place),
    /// A table of tables, by name.
    Named(&'static Place),
    /// A table of values, by name.
    Values(&'static Takes),
    /// A list of tables.
    Tables(&'static Place),
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What it takes.
    pub takes: Takes,
    /// What it is without a word: none if it must be there, `""` if there is nothing then.
    pub default: Option<&'static str>,
    /// What it is for.
    pub about: &'static str,
    /// An example of its value.
    pub example: &'static str,
}

/// A table with known keys.
#[derive(Debug)]
pub struct Place {
    /// As messages and the manual call it.
    pub name: &'static str,
    /// Its keys in canonical order.
    pub keys: &'static [Key],
}

impl Place {
    /// Returns the names of its keys.
    pub fn names(&self) -> Vec<&'static str> {
        self.keys.iter().map(|key| key.name).collect()
    }
}

const fn key(
    name: &'static str,
    takes: Takes,
    default: Option<&'static str>,
    about: &'static str,
    example: &'static str,
) -> Key {
    Key { name, takes, default, about, example }
}

fn disks() -> Vec<&'static str> {
    hw::DISKS.iter().map(|(name, _)| *name).collect()
}

fn links() -> Vec<&'static str> {
    hw::LINKS.iter().map(|(name, _)| *name).collect()
}

fn stores() -> Vec<&'static str> {
    hw::STORES.iter().map(|(name, _)| *name).collect()
}

fn sites() -> Vec<&'static str> {
    SITES.to_vec()
}

fn loads() -> Vec<&'static str> {
    LOADS.to_vec()
}

fn oracles() -> Vec<&'static str> {
    ORACLES.to_vec()
}

fn marks() -> Vec<&'static str> {
    MARKS.to_vec()
}

/// Sites of an estate.
pub const SITES: &[&str] = &["source", "target"];

use Takes::{
    Amount, Count, Drawn, FileOrTable, Flag, Format, Moment, Named, Tables, Text, Texts, Values, Word, Words,
};

/// A scenario file.
pub static SCENARIO: Place = Place {
    name: "a scenario",
    keys: &[
        key("format", Format, None, "version of this language", "1"),
        key("title", Text, None, "the story in one line", "\"A link is cut\""),
        key("why", Text, None, "what would be wrong if it did not hold", "\"Order survives.\""),
        key("tags", Texts, Some("none"), "words to select by", "[\"wan\"]"),
        key(
            "lessons",
            Texts,
            Some("none"),
            "what broke elsewhere, by its public reference, as in [field-lessons.md](field-lessons.md)",
            "[\"Longhorn #1298\"]",
        ),
        key("extends", Text, Some(""), "a scenario file that this one changes", "\"base.toml\""),
        key(
            "seeds",
            Takes::Table(&SEEDS),
            Some("4 and 500"),
            "runs per change and per night",
            "{ pr = 4, nightly = 500 }",
        ),
        key(
            "swarm",
            Takes::Faults,
            Some(""),
            "adds faults drawn freely, from the whole catalogue or from these",
            "[\"store.*\"]",
        ),
        key("weather", Text, Some(""), "a mix of background faults, `weather/NAME.toml`", "\"calm\""),
        key(
            "estate",
            FileOrTable(&ESTATE),
            Some("one machine, one process server"),
            "hosts, sizes and hardware; a file of them, or a table",
            "{ stage = \"2 MiB\" }",
        ),
        key(
            "protect",
            Named(&GROUP),
            Some(""),
            "groups of machines and what is promised for them",
            "{ erp = { machines = [\"erp-*\"], rpo = \"30 s\" } }",
        ),
        key(
            "load",
            Named(&LOAD),
            Some("mixed, 40 /s, 4 at once"),
            "what the guests of a machine do meanwhile; names may be patterns",
            "{ erp-db = { model = \"database\" } }",
        ),
        key(
            "matrix",
            Values(&Texts),
            Some(""),
            "multiplies the scenario: one for each combination of these values, used as `$name`",
            "{ disk = [\"flash\", \"spinning\"] }",
        ),
        key(
            "vary",
            Values(&Takes::Variable),
            Some(""),
            "drawn once per seed, used as `$name`, shown in every report",
            "{ cut = \"2..5 s\" }",
        ),
        key(
            "timeline",
            Takes::Table(&TIMELINE),
            None,
            "what happens, from top to bottom",
            "{ steps = [{ at = \"9 s\", end = true }] }",
        ),
        key(
            "expect",
            Takes::Table(&EXPECT),
            Some("every oracle holds"),
            "what must hold",
            "{ always = [\"prefix\"] }",
        ),
    ],
};

/// `seeds`.
pub static SEEDS: Place = Place {
    name: "seeds",
    keys: &[
        key("from", Takes::Seed, Some("1"), "the first seed", "1"),
        key("pr", Count, Some("4"), "runs on each change", "6"),
        key("nightly", Count, Some("500"), "runs each night", "2000"),
    ],
};

/// `[estate]`, and a file of `estates/`.
pub static ESTATE: Place = Place {
    name: "[estate]",
    keys: &[
        key(
            "extends",
            Text,
            Some(""),
            "an estate file that this table changes",
            "\"estates/two-servers.toml\"",
        ),
        key(
            "scale",
            Count,
            Some("1"),
            "factor by which sizes and rates are divided when it is played; times are not",
            "1",
        ),
        key(
            "machines",
            Tables(&MACHINE),
            Some("erp-db with 4 MiB and 2 MiB"),
            "protected machines, in the site `source`",
            "[{ name = \"erp-db\", disks = [\"4 MiB\"] }]",
        ),
        key(
            "process-servers",
            Tables(&SERVER),
            Some("ps1 in `source`"),
            "process servers; an agent tries them in this order",
            "[{ name = \"ps1\", site = \"target\" }]",
        ),
        key("disk", Word(disks), Some("datastore"), "hardware model of all disks", "\"spinning\""),
        key("link", Word(links), Some("wan"), "hardware model of the link between the sites", "\"wan-slow\""),
        key(
            "bandwidth",
            Amount(Unit::Bytes),
            Some("that of the link's model"),
            "what the link between the sites carries, each way",
            "\"100 Mbit/s\"",
        ),
        key("store", Word(stores), Some("cloud"), "hardware model of the vault's store", "\"local\""),
        key(
            "spool-memory",
            Amount(Unit::Bytes),
            Some("1 MiB"),
            "what an agent holds in memory before it spills",
            "\"256 KiB\"",
        ),
        key(
            "spill",
            Amount(Unit::Bytes),
            Some("64 MiB"),
            "what an agent spills before order is lost",
            "\"4 MiB\"",
        ),
        key(
            "stage",
            Amount(Unit::Bytes),
            Some("32 MiB"),
            "what a process server stages before it grants no more",
            "\"2 MiB\"",
        ),
        key("points", Amount(Unit::Millis), Some("3 s"), "time between recovery points", "\"1 s\""),
        key(
            "keep",
            Amount(Unit::Count),
            Some(""),
            "the newest so many points stay; else the usual rules",
            "\"3\"",
        ),
    ],
};

/// A machine of the estate.
pub static MACHINE: Place = Place {
    name: "a machine",
    keys: &[
        key("name", Text, None, "its host name", "\"erp-db\""),
        key("count", Count, Some("1"), "so many of them; the `*` of the name becomes a number", "120"),
        key("disks", Texts, None, "sizes of its disks, multiples of 4 KiB", "[\"4 MiB\"]"),
    ],
};

/// A process server of the estate.
pub static SERVER: Place = Place {
    name: "a process server",
    keys: &[
        key("name", Text, None, "its host name", "\"ps1\""),
        key("site", Word(sites), Some("source"), "where it stands", "\"target\""),
    ],
};

/// `[protect.NAME]`.
pub static GROUP: Place = Place {
    name: "a group of [protect]",
    keys: &[
        key("machines", Texts, None, "its machines; names or patterns", "[\"erp-*\"]"),
        key("rpo", Amount(Unit::Millis), Some(""), "the promise that objectives call `rpo`", "\"30 s\""),
    ],
};

/// Keys of `[protect]` that are known and not there yet.
pub const PROTECT_LATER: &[(&str, &str)] = &[
    ("from", "the lab has one direction, from `source` to `target`"),
    ("to", "the lab has one direction, from `source` to `target`"),
    ("rto", "nothing fails over yet, so no time of recovery is measured"),
    (
        "points",
        "all machines have the interval of `points` in [estate]; application points and retention by group are not there yet",
    ),
];

/// Verbs of `do` that are known and not there yet.
pub const VERBS_LATER: &[&str] = &[
    "protect",
    "unprotect",
    "failover",
    "commit",
    "change-point",
    "cancel",
    "reprotect",
    "failback",
    "resync",
    "pause",
    "resume",
];

/// `[load]`.
pub static LOAD: Place = Place {
    name: "a load",
    keys: &[
        key("model", Word(loads), Some("mixed"), "what kind of guest", "\"database\""),
        key("rate", Takes::Ranged(Unit::Count), Some("40 /s"), "operations per second", "\"30..60 /s\""),
        key(
            "writes",
            Takes::Ranged(Unit::Bytes),
            Some(""),
            "bytes written per second, in pages, instead of a rate of operations",
            "\"40..60 KiB/s\"",
        ),
        key(
            "day",
            Takes::Table(&DAY),
            Some("all day alike"),
            "the hours in which `writes` holds; the run begins at midnight",
            "{ from = \"8 h\", until = \"18 h\", outside = \"10 %\" }",
        ),
        key(
            "entropy",
            Amount(Unit::Ppm),
            Some("about half"),
            "share of what is written that compression cannot save",
            "\"100 %\"",
        ),
        key("jobs", Takes::Ranged(Unit::Count), Some("4"), "operations under way at once", "\"2..4\""),
        key(
            "seed",
            Text,
            Some("drawn"),
            "seed of the guest's own choices, in hexadecimal digits; frozen scenarios have it",
            "\"2f\"",
        ),
    ],
};

/// `day` of a load.
pub static DAY: Place = Place {
    name: "day",
    keys: &[
        key("from", Amount(Unit::Millis), None, "since midnight", "\"8 h\""),
        key(
            "until",
            Amount(Unit::Millis),
            None,
            "since midnight; before `from` it is the next day",
            "\"18 h\"",
        ),
        key("outside", Amount(Unit::Ppm), Some("0 %"), "share of `writes` at all other hours", "\"10 %\""),
    ],
};

/// `[timeline]`.
pub static TIMELINE: Place = Place {
    name: "[timeline]",
    keys: &[
        key("steps", Tables(&STEP), None, "the steps", "[{ at = \"9 s\", end = true }]"),
        key(
            "also",
            Tables(&STEP),
            Some(""),
            "steps beside those of the file that is extended",
            "[{ at = \"5 s\", do = \"point\", on = \"erp-db\" }]",
        ),
    ],
};

/// A step of the timeline; its verb may take more keys.
pub static STEP: Place = Place {
    name: "this step",
    keys: &[
        key(
            "at",
            Moment,
            None,
            "when: `10 s`, `$cut`, `cut + 5 s` (after its end), `cut.start + $gap`",
            "\"5 s\"",
        ),
        key("do", Text, Some(""), "an act of the operator", "\"point\""),
        key(
            "fault",
            Text,
            Some(""),
            "a fault by name, or a pattern of which one match is drawn",
            "\"link.cut\"",
        ),
        key("heal", Text, Some(""), "ends the fault with this label", "\"cut\""),
        key("check", Text, Some(""), "an inspection", "\"points\""),
        key("end", Flag, Some(""), "faults are lifted, guests stop, everything must converge", "true"),
        key("on", Text, Some(""), "host, site or link; a pattern or a `$choice` draws one", "\"erp-db\""),
        key("for", Drawn(Unit::Millis), Some("until `heal` or the end"), "how long a fault lasts", "\"5 s\""),
        key("chance", Amount(Unit::Ppm), Some("100 %"), "share of the seeds in which it happens", "\"50 %\""),
        key("id", Text, Some(""), "label for `at` and `heal`", "\"cut\""),
    ],
};

/// `[expect]`.
pub static EXPECT: Place = Place {
    name: "[expect]",
    keys: &[
        key(
            "objectives",
            Texts,
            Some("none"),
            "promises in figures: `lag.p99 <= rpo`, `point-age.max <= 30 s`",
            "[\"lag.p99 <= 30 s\"]",
        ),
        key("always", Words(oracles), Some("every oracle"), "oracles that must hold", "[\"prefix\"]"),
        key(
            "eventually",
            Texts,
            Some("converges within 60 s"),
            "what must come to pass",
            "[\"converges within 60 s\"]",
        ),
        key(
            "sometimes",
            Words(marks),
            Some("none"),
            "marks that at least one seed of a run set must reach",
            "[\"spilled\"]",
        ),
    ],
};

/// A file of `weather/`.
pub static WEATHER: Place = Place {
    name: "a weather",
    keys: &[
        key("format", Format, None, "version of this language", "1"),
        key("title", Text, None, "what it is like", "\"Rough\""),
        key("why", Text, None, "what it is for", "\"Nobody has a perfect network.\""),
        key(
            "faults",
            Tables(&GUST),
            None,
            "what comes and goes",
            "[{ fault = \"link.cut\", on = \"wan\", every = \"9 s\", for = \"1 s\" }]",
        ),
    ],
};

/// A recurring fault of a weather.
pub static GUST: Place = Place {
    name: "a fault of the weather",
    keys: &[
        key(
            "fault",
            Text,
            None,
            "a fault by name, or a pattern of which one match is drawn each time",
            "\"link.cut\"",
        ),
        key("on", Text, Some(""), "host, site or link; a pattern draws one each time", "\"wan\""),
        key(
            "every",
            Takes::Ranged(Unit::Millis),
            None,
            "time from one end to the next begin",
            "\"10..20 s\"",
        ),
        key("for", Takes::Ranged(Unit::Millis), None, "how long it lasts", "\"1..3 s\""),
        key(
            "chance",
            Amount(Unit::Ppm),
            Some("100 %"),
            "share of the seeds in which it occurs at all",
            "\"50 %\"",
        ),
    ],
};
