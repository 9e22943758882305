//! The interval log of HdrHistogram: what was measured, one line for each scenario and measure, for the tools that
//! plot such logs. Values are milliseconds.

use crate::model::{Measure, RunSet};
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use std::time::Duration;

fn name(measure: Measure) -> &'static str {
    match measure {
        Measure::Lag => "lag",
        Measure::PointAge => "point-age",
        Measure::Loss => "loss",
        Measure::Resync => "resync",
        Measure::Converged => "converged",
    }
}

/// Makes the log of a set. The tag of a line is `SCENARIO/MEASURE`.
pub fn hdr_log(set: &RunSet) -> String {
    let mut bytes = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let mut builder = IntervalLogWriterBuilder::new();
    builder.add_comment("durations in milliseconds of simulated time; a tag is SCENARIO/MEASURE");
    // Writing to memory does not fail.
    let mut log = builder.begin_log_with(&mut bytes, &mut serializer).expect("a log begins");
    for scenario in &set.scenarios {
        for (measure, samples) in &scenario.measured {
            let tag = format!("{}/{}", scenario.name, name(*measure));
            let length = Duration::from_millis(scenario.totals.simulated_ms);
            let histogram = samples.histogram();
            // Names of scenarios are names of files without spaces and commas, which a tag must not have.
            log.write_histogram(&histogram, Duration::ZERO, length, Tag::new(&tag))
                .expect("a line is written");
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
