//! The bars that are measured, by name. What each means is in the module that measures it.

use super::figure::Figure;
use super::{churn, first_copy, hashing, index, lab, ladder, lag, pipeline, serving, write_path};
use anyhow::Result;

/// Takes so many interleaved rounds.
type Measure = fn(usize) -> Result<Vec<Figure>>;

/// One measurement and the bars it gives figures for.
pub(crate) struct Measurement {
    /// Bars, such as `P1`.
    pub(crate) bars: &'static [&'static str],
    /// What is measured, for people who wait.
    pub(crate) title: &'static str,
    /// How.
    pub(crate) measure: Measure,
}

const fn measurement(bars: &'static [&'static str], title: &'static str, measure: Measure) -> Measurement {
    Measurement { bars, title, measure }
}

/// Every measurement, in the order in which they run.
pub(crate) const ALL: [Measurement; 14] = [
    measurement(&["P1", "P2"], "price of replication for the guest", write_path::cost_of_replication),
    measurement(&["P3"], "plain export against NBD servers of others", write_path::plain_export),
    measurement(&["P4"], "pipeline against the roofline of its parts", pipeline::roofline),
    measurement(&["P5"], "bytes uploaded for random churn", churn::amplification),
    measurement(&["P6"], "bytes written over a day of the ladder", ladder::amplification),
    measurement(&["P7"], "lag and points each second", lag::lag),
    measurement(&["P8", "P15"], "the vault's index: 1 TiB, 20 M extents, 1 000 points", index::index),
    measurement(&["P9"], "reads from a mounted point", serving::reads),
    measurement(&["P11"], "proof of a point, comparison for a resync", hashing::hashing),
    measurement(&["P12"], "first copy into the vault", first_copy::first_copy),
    measurement(&["P13"], "restore of a whole disk", serving::restore),
    measurement(&["L1"], "speed of the lab", lab::speed),
    measurement(&["L2"], "speed of the core tier", lab::core_speed),
    measurement(&["L3"], "seeds of the lab, and how many find a planted bug", lab::seeds),
];
