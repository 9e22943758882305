//! Codes of problems, and what `cargo sim explain CODE` says about each.
//!
//! A code is a promise: it keeps its meaning, and its number is never given to another one.

/// The kind of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the table below says what each means")]
pub enum Code {
    Syntax,
    UnknownKey,
    MissingKey,
    WrongType,
    Format,
    NoQuantity,
    WrongUnit,
    EmptyRange,
    OutOfBounds,
    UnknownVerb,
    NotOneVerb,
    UnknownTarget,
    NothingLasts,
    MissingAmount,
    NothingMatches,
    Conflict,
    TooFine,
    UnknownLabel,
    Circle,
    Twice,
    NoTime,
    NoEnd,
    NoDate,
    UnknownVariable,
    UnusedVariable,
    WrongVariable,
    UnknownWord,
    UnknownMetric,
    NoObjective,
    NeverMeasured,
    UnknownPromise,
    NoFile,
    FileCircle,
    TooMany,
    BeyondBudget,
    Expired,
    NothingFails,
    NotYet,
}

impl Code {
    /// Every code.
    pub const ALL: &[Code] = &[
        Code::Syntax,
        Code::UnknownKey,
        Code::MissingKey,
        Code::WrongType,
        Code::Format,
        Code::NoQuantity,
        Code::WrongUnit,
        Code::EmptyRange,
        Code::OutOfBounds,
        Code::UnknownVerb,
        Code::NotOneVerb,
        Code::UnknownTarget,
        Code::NothingLasts,
        Code::MissingAmount,
        Code::NothingMatches,
        Code::Conflict,
        Code::TooFine,
        Code::UnknownLabel,
        Code::Circle,
        Code::Twice,
        Code::NoTime,
        Code::NoEnd,
        Code::NoDate,
        Code::UnknownVariable,
        Code::UnusedVariable,
        Code::WrongVariable,
        Code::UnknownWord,
        Code::UnknownMetric,
        Code::NoObjective,
        Code::NeverMeasured,
        Code::UnknownPromise,
        Code::NoFile,
        Code::FileCircle,
        Code::TooMany,
        Code::BeyondBudget,
        Code::Expired,
        Code::NothingFails,
        Code::NotYet,
    ];

    /// Returns its name.
    pub fn name(self) -> &'static str {
        self.entry().0
    }

    /// Returns what is wrong, in a few words.
    pub fn title(self) -> &'static str {
        self.entry().1
    }

    /// Returns why it is wrong and what to write instead.
    pub fn text(self) -> &'static str {
        self.entry().2
    }

    /// Finds a code by its name, in any case.
    pub fn find(name: &str) -> Option<Code> {
        Code::ALL.iter().copied().find(|code| code.name().eq_ignore_ascii_case(name))
    }

    fn entry(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Code::Syntax => (
                "S001",
                "the file is no TOML",
                "A scenario is TOML 1.1. The usual slips are a missing quote, a missing comma between two steps, and a key that is given twice.",
            ),
            Code::UnknownKey => (
                "S002",
                "nobody knows this key",
                "A key that nobody reads would be a wish that is never granted, so it is an error. `sim/docs/scenarios.md` lists the keys of each table.",
            ),
            Code::MissingKey => (
                "S003",
                "a key is missing",
                "Every scenario says `format`, `title`, `why` and has a `[timeline]`; every step says `at`. A file that extends another one still says its own title and why.",
            ),
            Code::WrongType => (
                "S004",
                "another type of value is needed",
                "Quantities are strings with a unit (`\"30 s\"`), names are strings, lists stand in brackets, and only counts may be plain numbers.",
            ),
            Code::Format => (
                "S005",
                "another format",
                "This lab reads `format = 1`. A file of another format needs another lab.",
            ),
            Code::NoQuantity => (
                "S010",
                "this is no quantity",
                "A quantity is a number, or a range `a..b`, and a unit: `\"250 ms\"`, `\"10..20 s\"`, `\"4 MiB\"`, `\"256 KiB/s\"`, `\"3 %\"`, `\"40 /s\"`. A range is drawn once per seed.",
            ),
            Code::WrongUnit => (
                "S011",
                "the unit belongs to something else",
                "A key takes one kind of quantity: a duration, a size, a share or a count. A speed such as `256 KiB/s` counts as a size.",
            ),
            Code::EmptyRange => (
                "S012",
                "the range is empty",
                "In `a..b` the first number is the smaller one; both ends belong to the range.",
            ),
            Code::OutOfBounds => (
                "S013",
                "the quantity is out of bounds",
                "A share lies between 0 and 100 %, a fault lasts some time, a disk is a multiple of 4 KiB, and only a step of a clock may be negative.",
            ),
            Code::UnknownVerb => (
                "S020",
                "the lab cannot do this",
                "A step names something from the catalogue (`sim/docs/scenarios.md`): `fault = \"link.cut\"`, `do = \"point\"`, `check = \"points\"`. A pattern such as `store.*` draws one of what it matches.",
            ),
            Code::NotOneVerb => (
                "S021",
                "a step does exactly one thing",
                "Each step has one of `do`, `fault`, `heal`, `check`, `end`. Two things at one time are two steps with the same `at`.",
            ),
            Code::UnknownTarget => (
                "S022",
                "nothing in the estate is called so",
                "`on` names a host, a site or a link of the estate, whichever the verb acts on: `erp-db`, `ps1`, `source`, `wan`, `erp-db<->ps1`, `target->source`.",
            ),
            Code::NothingLasts => (
                "S023",
                "there is nothing that lasts",
                "What is over at once takes no `for` and cannot be healed; an end by itself needs no `heal`.",
            ),
            Code::MissingAmount => (
                "S024",
                "a quantity is missing",
                "Some faults need a measure: how much is lost (`rate`), how slow it gets (`speed`), by how much a clock steps (`by`).",
            ),
            Code::NothingMatches => (
                "S025",
                "the pattern matches nothing",
                "`*` stands for any characters, `?` for one: `store.*`, `erp-*`. A pattern that matches nothing would silently do nothing.",
            ),
            Code::Conflict => (
                "S026",
                "these do not go together",
                "`writes` is met by pages and takes the place of `rate`; `day` bends `writes`; a `*` in the name of a machine takes its `count`, and a `count` needs the `*`; guests of a scaled estate write pages or trickle, since one large write would stand for a thousand.",
            ),
            Code::TooFine => (
                "S027",
                "the scale is too large",
                "What is divided must stay large enough to play: a disk keeps 256 KiB, each machine's part of a stage and its spill 1 MiB, its spool 64 KiB; and one page must pass the link within 500 ms, since machines with a backlog take turns and a session ends after 16 s of silence. Take a smaller `scale`, or larger bounds (decision 0030).",
            ),
            Code::UnknownLabel => (
                "S030",
                "no step has this label",
                "`at = \"cut + 5 s\"` means 5 s after the end of the step with `id = \"cut\"`; `cut.start` means its begin. `heal` names a label as well.",
            ),
            Code::Circle => (
                "S031",
                "steps wait for each other",
                "Each step's time must be known before those that refer to it. At least one step of the circle needs a time of its own.",
            ),
            Code::Twice => ("S032", "the name is taken", "Labels, hosts and groups have one meaning each."),
            Code::NoTime => (
                "S033",
                "this is no time",
                "A time is a sum: `\"10 s\"`, `\"$cut\"`, `\"cut + 5 s\"`, `\"cut.start + $gap\"`. A label stands first.",
            ),
            Code::NoEnd => (
                "S034",
                "the story has no end",
                "At `end = true` all faults are lifted and the guests stop; from then on everything must converge. There is one end.",
            ),
            Code::NoDate => (
                "S035",
                "this is no day",
                "A day is year, month and day in digits, in quotes: `\"2026-12-15\"`.",
            ),
            Code::UnknownVariable => (
                "S040",
                "no variable is called so",
                "`$name` stands for what `[vary]` draws once per seed under this name, or for a value of `[matrix]`.",
            ),
            Code::UnusedVariable => (
                "S041",
                "the variable is never used",
                "What is drawn and not used looks as if something varied. Use it as `$name`, or delete it.",
            ),
            Code::WrongVariable => (
                "S042",
                "the variable does not fit here",
                "A variable of durations cannot be a share, and only a choice of names can be an `on`.",
            ),
            Code::UnknownWord => (
                "S050",
                "the word is not one of those known here",
                "Models of hardware and guests, oracles, marks, sites and weathers have fixed names; `sim/docs/scenarios.md` lists them.",
            ),
            Code::UnknownMetric => (
                "S051",
                "nothing is measured under this name",
                "Objectives are about what is measured: `lag`, `point-age`, `loss`, `resync`, `converged`; each as `.p50`, `.p90`, `.p95`, `.p99` or `.max`.",
            ),
            Code::NoObjective => (
                "S052",
                "this is no objective",
                "An objective reads `METRIC.STATISTIC <= BOUND`: `lag.p99 <= 30 s`, `point-age.max <= rpo`, `loss.max <= rpo + 15 s`.",
            ),
            Code::NeverMeasured => (
                "S053",
                "this story never measures it",
                "An objective about something that cannot happen in the story is always met and proves nothing: `loss` needs a site that is lost, `converged` one that is not, `rpo` a group in `[protect]`.",
            ),
            Code::UnknownPromise => (
                "S054",
                "nobody keeps this promise",
                "`eventually` knows `converges within 60 s`, and `protected(GROUP) within 30 s of LABEL`.",
            ),
            Code::NoFile => (
                "S060",
                "a file is missing",
                "Files are looked for beside the file that names them, then in the directory of scenarios. `weather = \"rough\"` is `weather/rough.toml`.",
            ),
            Code::FileCircle => (
                "S061",
                "files extend each other",
                "A file extends one that does not, directly or by others, extend it.",
            ),
            Code::TooMany => (
                "S062",
                "too many",
                "A matrix multiplies: more than 64 combinations are seldom meant, and cost as many runs for each seed.",
            ),
            Code::BeyondBudget => (
                "S070",
                "beyond the fault budget",
                "Weather and drawn faults stay within what the design promises to survive at any time (`sim/docs/fault-budget.md`). What ends a story, or needs one before it, belongs in the timeline.",
            ),
            Code::Expired => (
                "S080",
                "a known failure has expired",
                "An entry of the known failures excuses a failure until a day. After it the failure counts again, and the entry fails the set by itself, so that somebody decides: mend it, or enter it anew with a reason.",
            ),
            Code::NothingFails => (
                "S081",
                "nothing failed in this way",
                "An entry of the known failures described nothing in a set that played what it is about. It fails nothing. If the failure is mended, delete the entry: it would excuse the next one like it. A failure that is seldom needs a night to be missed.",
            ),
            Code::NotYet => (
                "S090",
                "not yet",
                "The word is known and planned, but the engine or the lab cannot do it yet. It is refused rather than ignored, so that no file promises what nobody checks.",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_code_has_its_own_name_and_is_found_by_it() {
        let names: BTreeSet<_> = Code::ALL.iter().map(|code| code.name()).collect();
        assert_eq!(names.len(), Code::ALL.len());
        for code in Code::ALL {
            assert_eq!(Code::find(&code.name().to_lowercase()), Some(*code));
            assert!(code.text().len() > 40 && !code.title().is_empty());
        }
        assert!(Code::ALL.is_sorted(), "in the order of the enum");
    }
}
