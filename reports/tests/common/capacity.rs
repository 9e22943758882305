//! A set of runs with the answer of `cargo sim capacity`.

use crate::common::{LONG, held};
use redoubt_reports::capacity::{Capacity, Group, Link, Places};
use redoubt_reports::model::*;

/// One scenario of an estate at a scale, with what its link keeps and which one would do.
pub(crate) fn capacity() -> RunSet {
    let mut set = held();
    set.command = "cargo sim capacity company".into();
    set.scenarios.retain(|scenario| scenario.name == LONG);
    let own = &mut set.scenarios[0];
    own.estate.scale = Some(Scale { by: 200, finest_ms: 82 });
    let text = "lag.p99 <= rpo".to_owned();
    own.promises.objectives =
        vec![Objective { text, measure: Measure::Lag, at_most_ms: [60_000, 300_000].into() }];
    let places = |p50: u64| Some(Places { p50, p95: p50 * 4, p99: p50 * 9, max: p50 * 14 });
    let group = |name: &str, machines, p50: u64| Group {
        name: name.into(),
        machines,
        writes: machines * 42_000,
        rpo_ms: Some(if machines > 100 { 300_000 } else { 60_000 }),
        lag_ms: places(p50),
        loss_ms: places(p50 + 4100),
        mount_ms: places(310),
    };
    let link = |link: u64, is_kept: bool, missed: &str| Link {
        link,
        verdict: if is_kept { "held".into() } else { "objective missed".into() },
        is_kept,
        lag_p99_ms: Some(900_000_000 / link * 100),
        loss_p99_ms: Some(990_000_000 / link * 100),
        is_crowded: !is_kept,
        missed: (!is_kept).then(|| missed.to_owned()).into_iter().collect(),
    };
    let missed = "lag.p99 <= rpo (at most 60 s): 71.25 s of databases-with-a-name-that-is-long-03";
    let given = link(1_250_000, false, missed);
    own.capacity = Some(Capacity {
        scenario: own.name.clone(),
        seeds: 2,
        scale: 200,
        link: given.link,
        finest_ms: 82,
        simulated_s: 172_800,
        groups: vec![
            group("desks", 160, 90),
            group("databases-with-a-name-that-is-long", 12, 7900),
            Group { rpo_ms: None, ..group("others", 1, 20) },
        ],
        tried: vec![given.clone(), link(2_100_000, true, ""), link(2_500_000, true, "")],
        given,
        smallest: Some(2_100_000),
        is_bound_by_scale: false,
    });
    set
}
