//! A set of runs with everything a report can show, made by a formula: no lab is needed to look at a page.

use redoubt_reports::Samples;
use redoubt_reports::model::*;
use std::collections::BTreeMap;

/// A name that has to be broken across lines.
pub(crate) const LONG: &str =
    "state-directory-hangs-during-a-cut-and-the-machine-dies-before-the-vault-is-back";

fn hardware() -> Vec<Hardware> {
    let model = |part: &str, model: &str, how: &str, note: &str, numbers: &[(&str, &str)]| Hardware {
        part: part.into(),
        model: model.into(),
        how: how.into(),
        note: note.into(),
        numbers: numbers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
    };
    vec![
        model(
            "disk",
            "flash",
            "assumed",
            "order of magnitude of a SATA flash disk; not fitted",
            &[("flush", "1 ms"), ("rate", "500 MB/s")],
        ),
        model("lan", "lan", "vendor", "1 Gbit/s inside a site", &[("delay", "0.2 ms")]),
        model("wan", "wan-slow", "measured", "8 Mbit/s across a continent", &[("delay", "35 ms")]),
        model("store", "cloud", "assumed", "a regional object store", &[("latency", "15 ms")]),
    ]
}

fn estate(machines: &[&str]) -> Estate {
    let machine = |name: &&str| Machine {
        name: (*name).into(),
        disks: vec![2 << 20, 1 << 20],
        load: "database, 30 to 60 op/s".into(),
    };
    let server = |name: &str, site: &str| Server { name: name.into(), site: site.into() };
    Estate {
        machines: machines.iter().map(machine).collect(),
        servers: vec![server("ps1", "source"), server("ps2", "target")],
        hardware: hardware(),
        bounds: BTreeMap::from([("spill".into(), 4 << 20), ("spool in memory".into(), 256 << 10)]),
        scale: None,
    }
}

/// The course of a run with a cut, a power loss and an operator.
pub(crate) fn course(seed: u64, found_ms: Option<u64>) -> Course {
    let span = |state, from_ms, to_ms| Span { state, from_ms, to_ms };
    let fault =
        |what: &str, from_ms, to_ms, is_operator| Fault { what: what.into(), is_operator, from_ms, to_ms };
    let lag = |second: u64| match second {
        8..30 => (second - 8) * 1000 + 140,
        30..34 => (34 - second) * 5000,
        _ => 60 + (second * 37 + seed * 11) % 90,
    };
    let states = vec![
        span(State::Resync, 0, 2500),
        span(State::Exact, 2500, 9000),
        span(State::Spilling, 9000, 24_000),
        span(State::Bitmap, 24_000, 30_000),
        span(State::Resync, 30_000, 34_000),
        span(State::Exact, 34_000, 41_000),
        span(State::Down, 41_000, 42_500),
        span(State::Exact, 42_500, 58_000),
    ];
    let machine = |name: &str| Track {
        name: name.into(),
        states: states.clone(),
        lag_ms: (0..58).map(lag).collect(),
        operations: (0..58).map(|second| if second < 48 { 30 + second * 7 % 25 } else { 0 }).collect(),
        points_ms: (1..28).filter(|n| !(12..17).contains(n)).map(|n| n * 2000).collect(),
    };
    let server = |name: &str, states: &[Span]| Track {
        name: name.into(),
        states: states.to_vec(),
        ..Track::default()
    };
    Course {
        drawn: BTreeMap::from([("away".into(), "22 s".into()), ("loss".into(), "3.2 %".into())]),
        lifted_ms: 48_000,
        faults: vec![
            fault("cut wan", 8000, 30_000, false),
            fault(
                "lose 3.2 % on wan, both ways, while the other site is away and nobody looks",
                31_000,
                36_000,
                false,
            ),
            fault("ask for a point of erp-db", 20_000, 20_000, true),
            fault("power off erp-db", 41_000, 42_500, false),
        ],
        machines: vec![machine("erp-db"), machine("erp-app-with-a-name-that-is-longer-than-usual")],
        servers: vec![
            server(
                "ps1",
                &[
                    span(State::Idle, 0, 500),
                    span(State::Writes, 500, 31_000),
                    span(State::Fenced, 31_000, 58_000),
                ],
            ),
            server("ps2", &[span(State::Idle, 0, 31_000), span(State::Writes, 31_000, 58_000)]),
        ],
        events: found_ms.map(events).unwrap_or_default(),
        found_ms,
    }
}

fn events(found_ms: u64) -> Vec<Event> {
    let event = |before: u64, what: &str, times| Event { at_ms: found_ms - before, what: what.into(), times };
    vec![
        event(9000, "cut wan", 1),
        event(8100, "WARN the session ended; the spool goes on in memory machine=erp-db", 1),
        event(
            5200,
            "INFO spilled a batch file=/var/lib/agent/spill-00000000000000000001.hrl bytes=262144",
            14,
        ),
        event(900, "heal wan", 1),
        event(120, "INFO resumed after the staged position machine=erp-db", 1),
        event(
            0,
            "found by prefix: erp-db: point 00000000000000000000000000004d01 holds a write that is not its own",
            1,
        ),
    ]
}

/// A scenario of which every `every`th seed fails with the finding.
fn scenario(name: &str, seeds: u64, every: u64, verdict: Verdict, oracle: &str, what: &str) -> Scenario {
    let (mut lag, mut age, mut resync, mut converged) = <(Samples, Samples, Samples, Samples)>::default();
    let weight = name.len() as u64;
    for second in 0..58 * seeds {
        lag.record(
            40 + second * second % (97 * weight) + if second % 50 == 0 { second * 13 % 21_000 } else { 0 },
        );
        age.record(300 + second * 131 % 2400 + if second % 40 == 0 { 9000 } else { 0 });
    }
    (0..seeds * 2).for_each(|n| resync.record(800 + n * 257 % 5200));
    (0..seeds).for_each(|n| converged.record(4000 + n * 911 % 17_000));
    let runs: Vec<Run> = (1..=seeds).map(|seed| run(name, seed, every, verdict, oracle, what)).collect();
    let held = runs.iter().filter(|run| run.verdict == Verdict::Held).count() as u64;
    Scenario {
        name: name.into(),
        title: "The way to the process server is cut; the agent spills and catches up".into(),
        why: "A cut must cost order nothing.".into(),
        tags: vec!["link".into()],
        seeds_asked: seeds,
        promises: Promises {
            converges_ms: 90_000,
            points_every_ms: 2000,
            always: vec!["prefix".into(), "converges".into()],
            sometimes: vec!["spilled".into(), "bitmap-mode-left".into()],
            objectives: Vec::new(),
        },
        estate: estate(&["erp-db", "erp-app"]),
        totals: Totals {
            runs: seeds,
            held,
            simulated_ms: 58_000 * seeds,
            operations: 2300 * seeds,
            points: 44 * seeds,
        },
        reached: BTreeMap::from([("spilled".into(), seeds), ("session-lost".into(), seeds)]),
        faults: BTreeMap::from([
            ("link.cut".into(), Met { turned: seeds, bit: seeds }),
            ("store.late".into(), Met { turned: seeds, bit: 0 }),
        ]),
        capacity: None,
        measured: BTreeMap::from([
            (Measure::Lag, lag),
            (Measure::PointAge, age),
            (Measure::Resync, resync),
            (Measure::Converged, converged),
        ]),
        runs,
    }
}

fn run(name: &str, seed: u64, every: u64, verdict: Verdict, oracle: &str, what: &str) -> Run {
    let is_failed = every > 0 && seed.is_multiple_of(every);
    let finding = Finding { oracle: oracle.into(), what: what.replace('%', &(seed * 17).to_string()) };
    let is_first = seed == every.max(1);
    Run {
        seed,
        verdict: if is_failed { verdict } else { Verdict::Held },
        digest: format!("{:016x}", seed * 0x9e37_79b9 + name.len() as u64),
        replay: format!("cargo sim replay {name}@{seed}"),
        simulated_ms: 58_000,
        lag_max_ms: 21_140,
        known: None,
        findings: if is_failed { vec![finding] } else { Vec::new() },
        course: is_first.then(|| course(seed, is_failed.then_some(39_400))),
    }
}

/// A set with failures of several kinds.
pub(crate) fn broken() -> RunSet {
    let prefix =
        "erp-db: point 00000000000000000000000000004d% at sequence %: sector % holds <a write> & not its own";
    let stuck = "no convergence within 90 s\nagent erp-db: Exact, not connected, issued % sent 20 staged 20 vaulted 20\n    \
                 process server ps1: connected, staged % vaulted 4, 0 bytes staged";
    let panic = "WM-1: vaulted % is behind staged at engine/core/src/watermarks.rs:88";
    let mut held = scenario("steady-stream", 6, 0, Verdict::Held, "", "");
    held.reached.insert("bitmap-mode-left".into(), 2);
    held.estate = estate(&["erp-db"]);
    let mut scenarios = vec![
        scenario("rot-is-reported-not-served", 4, 0, Verdict::Held, "", ""),
        held,
        scenario(LONG, 60, 9, Verdict::NotConverged, "converges", stuck),
        scenario("swarm", 160, 20, Verdict::Broken, "prefix", prefix),
        scenario("wan-cut-spills-and-points-survive", 12, 6, Verdict::Crashed, "assertion", panic),
    ];
    scenarios.sort_by(|a, b| a.name.cmp(&b.name));
    let marks = ["spilled", "bitmap-mode-left", "session-lost", "writer-fenced", "torn-tail-cut"];
    RunSet {
        format: FORMAT,
        command: "cargo sim run --seeds 160 swarm link".into(),
        build: Build { version: "0.1.0".into(), commit: Some("1a4a3fd80c1e".into()), planted_bug: None },
        marks: marks.map(str::to_owned).into(),
        faults: ["link.cut", "files.full", "store.late"].map(str::to_owned).into(),
        oracles: BTreeMap::from([(
            "prefix".into(),
            "each recovery point equals the state after an exact prefix of the acknowledged writes".into(),
        )]),
        scenarios,
    }
}

/// The same without failures, played by other figures.
pub(crate) fn held() -> RunSet {
    let mut set = broken();
    for scenario in &mut set.scenarios {
        scenario.totals.held = scenario.totals.runs;
        scenario.reached.insert("bitmap-mode-left".into(), 1);
        for run in &mut scenario.runs {
            run.verdict = Verdict::Held;
            run.findings.clear();
            if let Some(course) = &mut run.course {
                course.events.clear();
                course.found_ms = None;
            }
        }
        scenario.measured.entry(Measure::Lag).or_default().add(&Samples::from(vec![(900, 40), (26_000, 2)]));
    }
    set.build.commit = Some("0f00ba4".into());
    set
}
