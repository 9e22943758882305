//! The language of scenarios: what every slip is called and where it is shown, and what files, matrices,
//! patterns and weathers come to.

use proptest::prelude::*;
use redoubt_sim::plan::{self, Action};
use redoubt_sim::scenario::{self, Code, Problems, Scenario};
use std::collections::{BTreeMap, BTreeSet};

/// A good scenario; each slip changes one place of it.
const GOOD: &str = r#"format = 1
title  = "A link is cut"
why    = "To have something to break."
tags   = ["wan"]
seeds  = { pr = 2, nightly = 20 }

[estate]
machines = [{ name = "erp-db", disks = ["2 MiB"] }, { name = "erp-app", disks = ["1 MiB"] }]
link     = "wan"

[protect.erp]
machines = ["erp-*"]
rpo      = "30 s"

[load]
erp-db = { model = "mixed", rate = "40..60 /s" }

[vary]
cut  = "2..5 s"
loss = "1..3 %"

[timeline]
steps = [
  { at = "$cut", fault = "link.cut", on = "wan", for = "4 s", id = "cut" },
  { at = "cut + 1 s", fault = "link.loss", on = "wan", rate = "$loss", id = "lossy" },
  { at = "cut.start + 9 s", heal = "lossy", id = "back" },
  { at = "back + 5 s", do = "point", on = "erp-db" },
  { at = "back + 9 s", end = true },
]

[expect]
objectives = ["lag.p99 <= rpo + 15 s", "point-age.max <= 60 s"]
always     = ["prefix", "converges"]
eventually = ["converges within 60 s", "protected(erp) within 20 s of back"]
sometimes  = ["spilled"]
"#;

type Files = BTreeMap<&'static str, &'static str>;

fn files() -> Files {
    BTreeMap::from([
        (
            "estates/one.toml",
            "format = 1\ntitle = \"One\"\nmachines = [{ name = \"solo\", disks = [\"1 MiB\"] }]\n",
        ),
        ("estates/loop.toml", "extends = \"estates/pool.toml\"\n"),
        ("estates/pool.toml", "extends = \"estates/loop.toml\"\n"),
        (
            "weather/rough.toml",
            "format = 1\ntitle = \"Rough\"\nwhy = \"Nobody has a perfect network.\"\nfaults = [\n  \
             { fault = \"store.*\", every = \"1..2 s\", for = \"500 ms\" },\n  \
             { fault = \"link.loss\", on = \"wan\", every = \"1 s\", for = \"1 s\", rate = \"1 %\", chance = \"50 %\" },\n]\n",
        ),
        (
            "weather/hard.toml",
            "format = 1\ntitle = \"Hard\"\nwhy = \"x\"\nfaults = [{ fault = \"site.lost\", on = \"source\", every = \"1 s\", for = \"1 s\" }]\n",
        ),
    ])
}

fn read(source: &str) -> Result<Vec<Scenario>, Box<Problems>> {
    scenario::load_scenarios("story.toml", "story", source, &files())
}

fn good(source: &str) -> Vec<Scenario> {
    read(source).unwrap_or_else(|problems| panic!("{}", problems.render(false)))
}

/// What is written instead of what, which code that gets, where it is shown, and a part of the advice.
type Slip = (&'static str, &'static str, Code, (usize, usize), &'static str);

const SLIPS: &[Slip] = &[
    ("format = 1", "format = ", Code::Syntax, (1, 10), ""),
    ("title  =", "titel  =", Code::UnknownKey, (2, 1), "\"title\""),
    ("title  = \"A link is cut\"\n", "", Code::MissingKey, (1, 1), "title = \"A link is cut\""),
    ("[\"wan\"]\n", "\"wan\"\n", Code::WrongType, (4, 10), ""),
    ("format = 1", "format = 2", Code::Format, (1, 10), ""),
    ("pr = 2", "pr = \"2\"", Code::WrongType, (5, 17), ""),
    ("pr = 2", "pr = 0", Code::OutOfBounds, (5, 17), ""),
    ("\"2 MiB\"", "\"2 Mib\"", Code::NoQuantity, (8, 41), "\"MiB\""),
    ("\"2 MiB\"", "\"2 s\"", Code::WrongUnit, (8, 41), "4 MiB"),
    ("\"2 MiB\"", "\"5 KiB\"", Code::OutOfBounds, (8, 41), ""),
    ("name = \"erp-app\"", "name = \"erp-db\"", Code::Twice, (8, 62), ""),
    ("name = \"erp-app\"", "nmae = \"erp-app\"", Code::UnknownKey, (8, 55), "\"name\""),
    ("link     = \"wan\"", "link     = \"wam\"", Code::UnknownWord, (9, 12), "\"wan\""),
    ("link     = \"wan\"", "extends  = \"estates/two.toml\"", Code::NoFile, (9, 12), "\"estates/one.toml\""),
    ("link     = \"wan\"", "extends  = \"estates/loop.toml\"", Code::FileCircle, (1, 11), ""),
    ("[\"erp-*\"]", "[\"crm-*\"]", Code::NothingMatches, (12, 13), "erp-db, erp-app"),
    ("[\"erp-*\"]", "[\"erp-bd\"]", Code::UnknownTarget, (12, 13), "\"erp-db\""),
    ("rpo      =", "rto      =", Code::NotYet, (13, 1), ""),
    ("name = \"erp-app\"", "name = \"erp-*\"", Code::Conflict, (8, 62), "count = 2"),
    ("name = \"erp-app\"", "name = \"erp-app\", count = 3", Code::Conflict, (8, 81), "web-*"),
    ("name = \"erp-app\"", "name = \"erp-*-*\", count = 3", Code::Conflict, (8, 62), ""),
    ("name = \"erp-app\"", "name = \"erp-*\", count = 0", Code::OutOfBounds, (8, 79), ""),
    ("name = \"erp-app\"", "name = \"erp-*\", count = 2000", Code::OutOfBounds, (8, 79), ""),
    ("name = \"erp-app\"", "name = \"erp-*\", count = 1000", Code::TooMany, (8, 12), ""),
    ("link     = \"wan\"", "bandwidth = \"100 Mbps\"", Code::NoQuantity, (9, 13), "\"Mbit/s\""),
    ("link     = \"wan\"", "scale    = 0", Code::OutOfBounds, (9, 12), ""),
    ("link     = \"wan\"", "scale    = \"2\"", Code::WrongType, (9, 12), ""),
    ("link     = \"wan\"", "scale    = 1000", Code::TooFine, (9, 12), "250 MiB"),
    (
        "link     = \"wan\"",
        "bandwidth = \"1 Mbit/s\"\nscale = 20",
        Code::TooFine,
        (10, 9),
        "a scale of at most 15",
    ),
    ("link     = \"wan\"", "scale    = 4", Code::Conflict, (9, 12), "pages, trickle, database"),
    ("rate = \"40..60 /s\"", "writes = \"1 MiB/s\"", Code::Conflict, (16, 20), "pages"),
    ("model = \"mixed\"", "writes = \"1 MiB/s\"", Code::Conflict, (16, 32), "leave one"),
    ("model = \"mixed\", rate = \"40..60 /s\"", "writes = \"1 /s\"", Code::WrongUnit, (16, 21), "4 MiB"),
    ("model = \"mixed\"", "day = { from = \"8 h\", until = \"9 h\" }", Code::Conflict, (16, 12), "writes ="),
    (
        "model = \"mixed\", rate = \"40..60 /s\"",
        "writes = \"1 MiB/s\", day = { from = \"8 h\", until = \"8 h\" }",
        Code::OutOfBounds,
        (16, 38),
        "leave `day` out",
    ),
    (
        "model = \"mixed\", rate = \"40..60 /s\"",
        "writes = \"1 MiB/s\", day = { from = \"8 h\", until = \"30 h\" }",
        Code::OutOfBounds,
        (16, 62),
        "",
    ),
    ("model = \"mixed\"", "entropy = \"140 %\"", Code::OutOfBounds, (16, 22), ""),
    ("erp-db = {", "erp-bd = {", Code::UnknownTarget, (16, 1), "\"erp-db\""),
    ("\"mixed\"", "\"mixd\"", Code::UnknownWord, (16, 20), "\"mixed\""),
    ("\"40..60 /s\"", "\"40..60 %\"", Code::WrongUnit, (16, 36), ""),
    ("\"2..5 s\"", "\"5..2 s\"", Code::EmptyRange, (19, 8), "\"2..5 s\""),
    ("\"2..5 s\"", "\"2..5 sec\"", Code::NoQuantity, (19, 8), "\"s\""),
    ("\"2..5 s\"", "\"2..5 MiB\"", Code::WrongVariable, (24, 11), "30 s"),
    ("cut  =", "cat  =", Code::UnknownVariable, (24, 11), "\"cat\""),
    ("cut  =", "spare = \"1 s\"\ncut  =", Code::UnusedVariable, (19, 1), "\"$spare\""),
    ("\"link.cut\"", "\"link.cutt\"", Code::UnknownVerb, (24, 26), "\"link.cut\""),
    ("\"link.cut\"", "\"lnk.*\"", Code::NothingMatches, (24, 26), "link.cut"),
    ("\"link.cut\"", "\"vault.*\"", Code::BeyondBudget, (24, 26), "timeline"),
    ("fault = \"link.cut\"", "fualt = \"link.cut\"", Code::NotOneVerb, (24, 3), "\"fault\""),
    ("on = \"wan\", for", "on = \"wam\", for", Code::UnknownTarget, (24, 44), "\"wan\""),
    ("on = \"wan\", for", "on = \"erp-db<->ps2\", for", Code::UnknownTarget, (24, 53), "\"ps1\""),
    ("on = \"wan\", for", "for", Code::MissingKey, (24, 3), "wan"),
    ("for = \"4 s\"", "for = \"4\"", Code::WrongUnit, (24, 56), "30 s"),
    ("for = \"4 s\"", "for = \"0 s\"", Code::OutOfBounds, (24, 56), ""),
    ("for = \"4 s\"", "fro = \"4 s\"", Code::UnknownKey, (24, 50), "\"for\""),
    ("id = \"cut\"", "id = \"lossy\"", Code::Twice, (25, 77), ""),
    ("rate = \"$loss\"", "rate = \"140 %\"", Code::OutOfBounds, (25, 63), ""),
    ("rate = \"$loss\", ", "", Code::MissingAmount, (25, 3), "5 %"),
    ("at = \"cut + 1 s\"", "at = \"cat + 1 s\"", Code::UnknownLabel, (25, 11), "\"cut\""),
    ("at = \"cut + 1 s\"", "at = \"cut + soon\"", Code::NoTime, (25, 17), "label + 5 s"),
    ("at = \"cut + 1 s\"", "at = \"cut + 1 %\"", Code::WrongUnit, (25, 17), "30 s"),
    ("at = \"cut + 1 s\", ", "", Code::MissingKey, (25, 3), ""),
    ("at = \"cut + 1 s\"", "at = \"back + 1 s\"", Code::Circle, (25, 11), ""),
    ("heal = \"lossy\"", "heal = \"loss\"", Code::UnknownLabel, (26, 36), "\"lossy\""),
    ("do = \"point\", on = \"erp-db\"", "heal = \"back\"", Code::NothingLasts, (27, 31), ""),
    ("do = \"point\", on", "do = \"point\", for = \"1 s\", on", Code::NothingLasts, (27, 44), ""),
    ("do = \"point\", on = \"erp-db\"", "do = \"failover\"", Code::NotYet, (27, 29), ""),
    ("do = \"point\", on = \"erp-db\"", "end = true", Code::NoEnd, (28, 3), ""),
    ("  { at = \"back + 9 s\", end = true },\n", "", Code::NoEnd, (22, 1), "end = true"),
    ("lag.p99", "lage.p99", Code::UnknownMetric, (32, 16), "\"lag\""),
    ("lag.p99", "lag.p98", Code::UnknownMetric, (32, 20), "lag.p99"),
    ("lag.p99", "downtime.p99", Code::NotYet, (32, 16), ""),
    ("lag.p99", "loss.p99", Code::NeverMeasured, (32, 16), ""),
    ("lag.p99", "mount.p99", Code::NeverMeasured, (32, 16), "mounts"),
    ("lag.p99 <= rpo", "lag.p99 < rpo", Code::NoObjective, (32, 15), "lag.p99 <= 30 s"),
    ("rpo + 15 s", "rpo + 15 MiB", Code::WrongUnit, (32, 33), "rpo + 15 s"),
    ("rpo      = \"30 s\"\n", "", Code::NeverMeasured, (31, 15), "rpo = \"30 s\""),
    ("\"prefix\"", "\"prefixx\"", Code::UnknownWord, (33, 15), "\"prefix\""),
    ("converges within 60 s\"", "soon\"", Code::UnknownPromise, (34, 15), "converges within 60 s"),
    ("protected(erp)", "protected(erq)", Code::UnknownTarget, (34, 51), "\"erp\""),
    ("of back", "of bakc", Code::UnknownLabel, (34, 71), "\"back\""),
    ("\"spilled\"", "\"spilt\"", Code::UnknownWord, (35, 15), "\"spilled\""),
    ("tags ", "weather = \"ruogh\"\ntags ", Code::NoFile, (4, 11), ""),
    ("tags ", "weather = \"hard\"\ntags ", Code::BeyondBudget, (4, 21), "timeline"),
    ("tags ", "extends = \"bass.toml\"\ntags ", Code::NoFile, (4, 11), ""),
    ("[vary]", "[matrix]\ndisk = [\"flash\"]\n[vary]", Code::UnusedVariable, (19, 1), "\"$disk\""),
    ("[vary]", "[matrix]\ncut = [\"1 s\"]\n[vary]", Code::Twice, (19, 1), ""),
    (
        "[vary]",
        "[matrix]\na = [\"1\", \"2\", \"3\", \"4\", \"5\", \"6\", \"7\", \"8\", \"9\"]\nb = [\"1\", \"2\", \"3\", \"4\", \"5\", \"6\", \"7\", \"8\"]\n[vary]",
        Code::TooMany,
        (18, 1),
        "two files",
    ),
];

#[test]
fn each_slip_is_told_once_at_its_place_with_its_code_and_advice() {
    assert_eq!(good(GOOD).len(), 1);
    let mut failures = Vec::new();
    for (from, to, code, place, advice) in SLIPS {
        assert_eq!(GOOD.matches(from).count().min(1), 1, "{from} is not in the good scenario");
        let source = GOOD.replacen(from, to, 1);
        let Err(problems) = read(&source) else {
            failures.push(format!("{from} -> {to}: nobody noticed"));
            continue;
        };
        let shown = problems.shown(false);
        let found = problems.list.iter().zip(&shown).any(|(problem, shown)| {
            problem.code == *code && (shown.line, shown.column) == *place && shown.text.contains(advice)
        });
        if !found {
            failures.push(format!(
                "{from} -> {to}: not {} at {place:?}\n{}",
                code.name(),
                problems.render(false)
            ));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn what_follows_from_a_slip_is_not_told_as_another_one() {
    for (from, to) in [
        ("title  =", "titel  ="),
        ("name = \"erp-app\"", "nmae = \"erp-app\""),
        ("rpo      = \"30 s\"", "rpo      = 30"),
        ("\"2..5 s\"", "5"),
        ("\"2..5 s\"", "\"2..5 sec\""),
        ("at = \"cut + 1 s\"", "att = \"cut + 1 s\""),
    ] {
        let problems = read(&GOOD.replacen(from, to, 1)).unwrap_err();
        assert_eq!(problems.list.len(), 1, "{from} -> {to}\n{}", problems.render(false));
        assert!(problems.list[0].help.is_some(), "{to} has no advice");
    }
    // A variable that is there and wrong is still the one that was meant.
    let source = GOOD.replacen("\"2..5 s\"", "\"2..5 sec\"", 1).replacen("\"$cut\"", "\"$cutt\"", 1);
    let shown = read(&source).unwrap_err().render(false);
    assert!(shown.contains("did you mean \"cut\"?"), "{shown}");
}

/// Codes about known failures, which have a file of their own.
fn of_known_failures() -> Vec<Code> {
    let entry = |expires: &str| {
        format!(
            "format = 1\n[known.x]\nscenario = \"*\"\noracle = \"prefix\"\nsays = \"*\"\nissue = \"x\"\nsince = \
             \"2026-11-01\"\nexpires = \"{expires}\"\nwhy = \"x\"\n"
        )
    };
    let (known, today) =
        (scenario::load_known("x", &entry("2026-11-02")).unwrap(), "2026-11-02".parse().unwrap());
    let all = [
        *scenario::load_known("x", &entry("2026-11-31")).unwrap_err(),
        known.expired("2026-11-03".parse().unwrap()),
        known.idle(today, &BTreeSet::new(), |_| true),
    ];
    all.iter().flat_map(|problems| &problems.list).map(|problem| problem.code).collect()
}

#[test]
fn every_code_is_given_by_some_slip() {
    let given: BTreeSet<Code> = SLIPS.iter().map(|slip| slip.2).chain(of_known_failures()).collect();
    let missing: Vec<&str> =
        Code::ALL.iter().filter(|code| !given.contains(code)).map(|code| code.name()).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn seven_slips_in_one_file_are_seven_errors() {
    let mut source = GOOD.to_owned();
    let chosen =
        ["titel  =", "\"2 Mib\"", "\"5..2 s\"", "\"link.cutt\"", "id = \"lossy\"", "lage.p99", "\"spilt\""];
    for (from, to, ..) in SLIPS.iter().filter(|slip| chosen.contains(&slip.1)) {
        source = source.replacen(from, to, 1);
    }
    let problems = read(&source).unwrap_err();
    assert!(problems.list.len() >= chosen.len());
    insta::assert_snapshot!(problems.render(false));
}

#[test]
fn an_error_in_a_file_below_shows_both_files() {
    let base = GOOD.replace("\"1 MiB\"", "\"1 MB\"").replace("cut + 1 s", "cot + 1 s");
    let base: &'static str = base.leak();
    let library = Files::from([("base.toml", base), ("estates/bad.toml", "disk = \"flush\"\n")]);
    let own = "format = 1\ntitle = \"Over it\"\nwhy = \"x\"\nextends = \"base.toml\"\n[estate]\nextends = \"estates/bad.toml\"\n";
    let problems = scenario::load_scenarios("own.toml", "own", own, &library).unwrap_err();
    insta::assert_snapshot!(problems.render(false));
}

#[test]
fn steps_that_wait_for_each_other_are_shown_all() {
    let source = GOOD.replace("at = \"$cut\"", "at = \"back\"");
    let problems = read(&source).unwrap_err();
    insta::assert_snapshot!(problems.render(false));
}

#[test]
fn a_file_changes_the_one_it_extends() {
    let base: &'static str = GOOD;
    let library = Files::from([("base.toml", base), ("estates/one.toml", files()["estates/one.toml"])]);
    let own = r#"format = 1
title = "On spinning disks"
why = "x"
extends = "base.toml"
seeds = { pr = 9 }
[estate]
disk = "spinning"
[timeline]
also = [{ at = "cut + 2 s", check = "points" }]
"#;
    let load = |own: &str| {
        let found = scenario::load_scenarios("own.toml", "own", own, &library);
        found.unwrap_or_else(|problems| panic!("{}", problems.render(false))).swap_remove(0)
    };
    let base = &good(GOOD)[0];
    let scenario = load(own);
    assert_eq!((scenario.title.as_str(), scenario.tags.clone()), ("On spinning disks", base.tags.clone()));
    assert_eq!((scenario.seeds.pr, scenario.seeds.nightly), (9, 20));
    assert_eq!(
        scenario.estate,
        redoubt_sim::scenario::Estate { disk: "spinning".into(), ..base.estate.clone() }
    );
    assert_eq!(scenario.steps.len(), base.steps.len() + 1);
    let whole = load(
        "format = 1\ntitle = \"x\"\nwhy = \"x\"\nestate = \"estates/one.toml\"\n[timeline]\nsteps = [{ at = \"1 s\", end = true }]\n",
    );
    assert_eq!(whole.estate.machines[0].name, "solo");
}

#[test]
fn a_step_may_refer_to_a_later_one() {
    let source = GOOD.replace("at = \"back + 5 s\"", "at = \"cut + 5 s\"");
    let turned: Vec<&str> = source.lines().collect();
    let mut turned = turned.clone();
    turned.swap(23, 26);
    let (plan, same) = (plan::draw(&good(&source)[0], 7), plan::draw(&good(&turned.join("\n"))[0], 7));
    assert_eq!(plan.events.len(), same.events.len());
    assert_eq!(plan.length, same.length);
}

#[test]
fn many_machines_are_one_entry_and_the_scale_divides_nothing_that_is_read() {
    let source = GOOD
        .replace(
            "{ name = \"erp-app\", disks = [\"1 MiB\"] }",
            "{ name = \"erp-app-*\", count = 12, disks = [\"1 GiB\"] }",
        )
        .replace("[\"2 MiB\"]", "[\"1 GiB\"]")
        .replace(
            "link     = \"wan\"",
            "scale = 100\nbandwidth = \"800 Mbit/s\"\nspool-memory = \"8 MiB\"\nspill = \"1 GiB\"\nstage = \"4 GiB\"",
        )
        .replace(
            "erp-db = { model = \"mixed\", rate = \"40..60 /s\" }",
            "\"*\" = { writes = \"40..60 KiB/s\", day = { from = \"22 h\", until = \"4 h\", outside = \"5 %\" }, entropy = \"90 %\" }",
        );
    let scenario = &good(&source)[0];
    let names: Vec<&str> = scenario.estate.machines.iter().map(|machine| machine.name.as_str()).collect();
    assert_eq!((names.len(), names[1], names[12]), (13, "erp-app-01", "erp-app-12"));
    assert_eq!(scenario.groups["erp"].machines.len(), 13, "a pattern means all of them");
    assert_eq!((scenario.estate.scale, scenario.estate.bandwidth), (100, Some(100_000_000)));
    assert_eq!(scenario.estate.machines[5].disks, [1 << 30]);
    let plan = plan::draw(scenario, 3);
    let guest = &plan.guests["erp-app-07"];
    assert!((40 << 10..=60 << 10).contains(&guest.writes.unwrap()), "{guest:?}");
    assert_eq!((guest.model.as_str(), guest.jobs, guest.entropy), ("pages", 4, Some(900_000)));
    assert!(scenario::tell(scenario).contains("erp-db .. erp-app-12, 13 machines  1 GiB"));
    let frozen = redoubt_sim::freeze::Frozen::new(scenario, &plan);
    let again = frozen.scenario("story").unwrap_or_else(|problems| panic!("{}", problems.render(false)));
    assert_eq!(again.estate, scenario.estate);
    assert_eq!(plan::draw(&again, plan.seed).guests, plan.guests);
}

#[test]
fn a_matrix_makes_a_scenario_of_each_combination() {
    let source = GOOD.replace("link     = \"wan\"", "link     = \"$link\"\nstage    = \"$stage\"").replace(
        "[vary]",
        "[matrix]\nlink  = [\"wan\", \"wan-slow\"]\nstage = [\"2 MiB\", \"4 MiB\"]\n\n[vary]",
    );
    let scenarios = good(&source);
    let names: Vec<&str> = scenarios.iter().map(|scenario| scenario.name.as_str()).collect();
    assert_eq!(names, ["story.wan.2-mib", "story.wan.4-mib", "story.wan-slow.2-mib", "story.wan-slow.4-mib"]);
    assert_eq!((scenarios[3].estate.link.as_str(), scenarios[3].estate.stage), ("wan-slow", 4 << 20));
}

#[test]
fn patterns_and_chances_are_drawn_once_per_seed() {
    let source = GOOD.replace(
        "do = \"point\", on = \"erp-db\"",
        "fault = \"disk.*-errors\", on = \"erp-*\", for = \"1 s\", chance = \"50 %\"",
    );
    let scenario = &good(&source)[0];
    let mut kinds = BTreeSet::new();
    let mut none = 0;
    for seed in 0..200 {
        let plan = plan::draw(scenario, seed);
        let begun = plan.events.iter().find_map(|event| match &event.action {
            Action::DiskErrors(host, kind, ppm) if *ppm > 0 => Some(format!("{host} {kind:?}")),
            _ => None,
        });
        none += usize::from(begun.is_none());
        kinds.extend(begun);
    }
    let all = ["erp-app Read", "erp-app Write", "erp-db Read", "erp-db Write"].map(str::to_owned);
    assert_eq!(kinds, BTreeSet::from(all), "a failed flush is never drawn");
    assert!((60..140).contains(&none), "about half of the seeds: {none}");
}

#[test]
fn weather_comes_and_goes_and_keeps_away_from_what_the_story_does() {
    let source = GOOD.replace("tags ", "weather = \"rough\"\ntags ");
    let scenario = &good(&source)[0];
    assert_eq!(scenario.weather.as_ref().unwrap().title, "Rough");
    let mut with_loss = 0;
    for seed in 0..50 {
        let plan = plan::draw(scenario, seed);
        let gusts =
            plan.events.iter().filter(|event| matches!(event.action, Action::Store(_, ppm) if ppm > 0));
        assert!(gusts.count() >= 4, "{plan}");
        // The story cuts the link at first, and has it lossy until nobody uses it: weather must not heal it.
        let cut = plan.events.iter().position(|event| matches!(event.action, Action::Cut(_))).unwrap();
        let healed =
            plan.events[cut..].iter().find(|event| matches!(event.action, Action::HealLink(_))).unwrap();
        assert_eq!(healed.at, plan.events[cut].at + 4000, "{plan}");
        let one = |event: &&plan::Event| matches!(event.action, Action::Loss(_, 10_000));
        with_loss += usize::from(plan.events.iter().filter(one).any(|event| event.at < plan.events[cut].at));
    }
    assert!((5..45).contains(&with_loss), "a chance of 50 %: {with_loss} of 50");
}

/// The good scenario with everything in it that the others show one by one.
fn rich() -> String {
    GOOD.replace("tags ", "weather = \"rough\"\nswarm = [\"disk.*\"]\ntags ")
        .replace("link     = \"wan\"", "link     = \"$link\"")
        .replace("[vary]", "[matrix]\nlink = [\"wan\", \"wan-slow\"]\n\n[vary]")
        .replace(
            "do = \"point\", on = \"erp-db\"",
            "fault = \"files.*\", on = \"*\", for = \"1 s\", chance = \"50 %\"",
        )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn whatever_is_written_is_read_or_told_and_what_is_read_can_be_drawn(
        cuts in proptest::collection::vec((any::<prop::sample::Index>(), 0usize..12, "[a-z0-9$\"=,{}\\[\\] .+*%\n]{0,3}"), 1..4),
    ) {
        let mut source = rich();
        for (at, length, text) in cuts {
            let at = at.index(source.len());
            let end = (at + length).min(source.len());
            source.replace_range(at..end, &text);
        }
        match read(&source) {
            Ok(scenarios) => {
                for scenario in scenarios {
                    let _ = (plan::draw(&scenario, 1), scenario::tell(&scenario));
                }
            }
            Err(problems) => prop_assert!(!problems.render(false).is_empty()),
        }
        if let Ok(text) = scenario::layout(&source, scenario::FileKind::Scenario) {
            prop_assert_eq!(scenario::layout(&text, scenario::FileKind::Scenario), Ok(text));
        }
    }
}

#[test]
fn the_rich_scenario_is_good() {
    assert_eq!(good(&rich()).len(), 2);
}
