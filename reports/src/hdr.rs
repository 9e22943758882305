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
        Measure::Mount => "mount",
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Build, Scenario};
    use crate::samples::Samples;
    use hdrhistogram::Histogram;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    fn histogram(letters: &str) -> Histogram<u64> {
        use base64::Engine;
        let bytes = base64::engine::general_purpose::STANDARD.decode(letters).unwrap();
        Deserializer::new().deserialize(&mut &bytes[..]).unwrap()
    }

    #[test]
    fn a_reader_of_such_logs_finds_every_sample_under_its_tag() {
        let samples = Samples::from(vec![(40, 90), (1200, 10)]);
        let measured = [(Measure::Lag, samples.clone()), (Measure::Resync, samples)].into();
        let scenario = Scenario { name: "wan-cut".into(), measured, ..Scenario::default() };
        let set = RunSet {
            format: 1,
            command: String::new(),
            build: Build::default(),
            marks: Default::default(),
            faults: Default::default(),
            oracles: Default::default(),
            scenarios: vec![scenario],
        };
        let log = hdr_log(&set);
        let mut found = Vec::new();
        for entry in IntervalLogIterator::new(log.as_bytes()) {
            if let LogEntry::Interval(interval) = entry.unwrap() {
                let histogram = histogram(interval.encoded_histogram());
                let tag = interval.tag().unwrap().as_str().to_owned();
                found.push((tag, histogram.len(), histogram.value_at_quantile(0.9), histogram.max() / 10));
            }
        }
        let wanted = |tag: &str| (tag.to_owned(), 100, 40, 120);
        assert_eq!(found, [wanted("wan-cut/lag"), wanted("wan-cut/resync")]);
    }
}
