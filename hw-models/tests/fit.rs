//! Fits of measurements whose truth is known: what a benchmark would have measured on a model of the tree.

use redoubt_hw_models::fit::{self, FitError};
use redoubt_hw_models::{DISKS, DiskClock, DiskModel, LINKS, LinkModel, Operation, Quantiles, find, parse};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Plays a job on a model and returns what fio would write of it.
fn measure(model: &DiskModel, name: &str, what: Operation, at_once: u32, pattern: &str) -> Value {
    let requests = 30_000_u64;
    let mut clock = DiskClock::default();
    let mut lanes = vec![Duration::ZERO; at_once as usize];
    let (mut bins, mut sum) = (BTreeMap::<u64, u64>::new(), Duration::ZERO);
    for request in 0..requests {
        // 7919 is coprime to the count: each chance comes once, in no order.
        let chance = (request * 7919 % requests * 1_000_000 / requests) as u32;
        let lane = lanes.iter_mut().min().unwrap();
        let end = clock.serve(model, *lane, what, chance).end;
        *bins.entry((end - *lane).as_nanos() as u64).or_default() += 1;
        sum += end - *lane;
        *lane = end;
    }
    let total = lanes.into_iter().max().unwrap().as_secs_f64();
    let (reads, block) = match what {
        Operation::Read(bytes) => (true, bytes),
        Operation::Write(bytes) | Operation::DurableWrite(bytes) => (false, bytes),
        Operation::Flush => (false, 4096),
    };
    let times = json!({
        "min": bins.keys().next(), "max": bins.keys().last(),
        "bins": bins.iter().map(|(time, count)| (time.to_string(), json!(count))).collect::<serde_json::Map<_, _>>(),
    });
    let nothing = json!({ "total_ios": 0, "bw_bytes": 0, "iops": 0.0, "clat_ns": { "min": 0, "max": 0 } });
    let iops = requests as f64 / total;
    let did =
        json!({ "total_ios": requests, "bw_bytes": iops * block as f64, "iops": iops, "clat_ns": times });
    let flushed = what == Operation::Flush;
    let sync =
        if flushed { json!({ "total_ios": requests, "lat_ns": times }) } else { json!({ "total_ios": 0 }) };
    json!({
        "jobname": name,
        "job options": { "rw": pattern, "bs": block.to_string(), "iodepth": at_once.to_string() },
        "read": if reads { did.clone() } else { nothing.clone() },
        "write": if reads { nothing } else { did },
        "sync": sync,
    })
}

fn measured(model: &DiskModel) -> Value {
    json!({ "fio version": "fio-3.33", "jobs": [
        measure(model, "read-latency", Operation::Read(4096), 1, "randread"),
        measure(model, "write-latency", Operation::Write(4096), 1, "randwrite"),
        measure(model, "flush-latency", Operation::Flush, 1, "randwrite"),
        measure(model, "read-rate", Operation::Read(1 << 20), 16, "read"),
        measure(model, "write-rate", Operation::Write(1 << 20), 16, "write"),
        measure(model, "read-queue", Operation::Read(4096), 64, "randread"),
    ]})
}

fn near(fitted: u64, truth: u64, part: f64) -> bool {
    (fitted as f64 - truth as f64).abs() <= truth as f64 * part + 2.0
}

#[test]
fn a_disk_that_is_measured_is_found_again() {
    // With more places its rate would hide how many there are.
    let truth = DiskModel { queue_depth: 8, ..find(&DISKS, "flash").unwrap().unwrap() };
    let text = format!("fio: a warning that comes first\n{}", measured(&truth));
    let fit = fit::disk(&text, "a disk of known numbers", true).unwrap();
    let pairs =
        |a: &Quantiles, b: &Quantiles| [(a.p50, b.p50), (a.p90, b.p90), (a.p99, b.p99), (a.p99_9, b.p99_9)];
    for (found, told) in [
        (&fit.model.read_us, &truth.read_us),
        (&fit.model.write_us, &truth.write_us),
        (&fit.model.flush_us, &truth.flush_us),
    ] {
        assert!(pairs(found, told).into_iter().all(|(a, b)| near(a, b, 0.03)), "{found}\n{told}");
    }
    assert!(near(fit.model.read_bytes_per_second, truth.read_bytes_per_second, 0.02), "{}", fit.model);
    assert!(near(u64::from(fit.model.queue_depth), u64::from(truth.queue_depth), 0.1), "{}", fit.model);
    let (median, worst) = fit.error().unwrap();
    assert!(median < 0.03 && worst.error().abs() < 0.15, "{median} {worst}");
    assert_eq!(parse::<DiskModel>(&fit.model.to_string()).unwrap(), fit.model);
}

/// A curve that six quantiles cannot follow: the error says so.
#[test]
fn a_model_that_does_not_fit_says_by_how_much() {
    let truth: DiskModel = find(&DISKS, "flash").unwrap().unwrap();
    let mut jobs = measured(&truth);
    let bins = json!({ "50000": 7000, "60000": 500, "4000000": 2500 });
    jobs["jobs"][0]["read"]["clat_ns"] = json!({ "min": 50_000, "max": 4_000_000, "bins": bins });
    let fit = fit::disk(&jobs.to_string(), "two humps", true).unwrap();
    let (_, worst) = fit.error().unwrap();
    assert!(worst.job.starts_with("read") && worst.error() > 1.0, "{worst}");
}

#[test]
fn what_was_not_measured_is_named_with_its_remedy() {
    let truth: DiskModel = find(&DISKS, "flash").unwrap().unwrap();
    let all = measured(&truth);
    for (job, missing) in
        [(0, "latency of a read"), (2, "latency of a flush"), (4, "rate of a write"), (5, "many at once")]
    {
        let mut some = all.clone();
        some["jobs"].as_array_mut().unwrap().remove(job);
        let error = fit::disk(&some.to_string(), "", true).unwrap_err().to_string();
        assert!(error.contains(missing) && error.contains("hw jobs"), "{error}");
    }
    assert!(matches!(fit::disk("no such thing", "", true), Err(FitError::Json { tool: "fio", .. })));
}

/// Returns what ping prints of round trips in microseconds, of which every tenth is lost.
fn pings(trips: impl Iterator<Item = u64>) -> String {
    let mut text = String::from("PING far (192.0.2.1) 56(84) bytes of data.\n");
    let mut answers = 0;
    for (number, trip) in trips.enumerate() {
        answers += 1;
        text +=
            &format!("64 bytes from 192.0.2.1: icmp_seq={number} ttl=61 time={:.3} ms\n", trip as f64 / 1e3);
    }
    text + &format!(
        "--- far ping statistics ---\n{} packets transmitted, {answers} received\n",
        answers * 10 / 9
    )
}

#[test]
fn a_link_that_is_measured_is_found_again() {
    let truth: LinkModel = find(&LINKS, "wan").unwrap().unwrap();
    let ping = pings((0..1000).map(|at| 2 * truth.delay_us.at(at * 1000 + 500)));
    let iperf = json!({ "end": {
        "sum_received": { "bits_per_second": truth.bytes_per_second as f64 * 8.0 },
        "streams": [{ "sender": { "max_rtt": 100_000 } }],
    }});
    let fit = fit::link(&ping, &iperf.to_string(), "a link of known numbers").unwrap();
    assert_eq!(fit.model.bytes_per_second, truth.bytes_per_second);
    assert!(near(fit.model.delay_us.p50, truth.delay_us.p50, 0.01), "{}", fit.model);
    assert!(near(fit.model.delay_us.p99, truth.delay_us.p99, 0.05), "{}", fit.model);
    assert!(near(u64::from(fit.model.loss_ppm), 51_000, 0.05), "a tenth of the round trips: {}", fit.model);
    assert!(near(fit.model.queue_bytes, 1_000_000, 0.01), "80 ms of queue: {}", fit.model);
    assert_eq!(parse::<LinkModel>(&fit.model.to_string()).unwrap(), fit.model);
}

#[test]
fn too_few_pings_make_no_distribution() {
    let iperf = json!({ "end": { "sum_received": { "bits_per_second": 8e6 } } }).to_string();
    let error = fit::link(&pings((0..9).map(|_| 20_000)), &iperf, "").unwrap_err().to_string();
    assert!(error.contains("9 answers") && error.contains("ping -c 500"), "{error}");
    let none = json!({ "end": { "sum_received": { "bits_per_second": 0.0 } } }).to_string();
    let error = fit::link(&pings((0..99).map(|_| 20_000)), &none, "").unwrap_err().to_string();
    assert!(error.contains("a rate was not measured"), "{error}");
}
