//! Power to the process is cut at random moments; every recovery point must be an exact prefix.
#![allow(clippy::disallowed_methods)]

use redoubt_e2e::nbd::Client;
use redoubt_e2e::service::Site;
use redoubt_e2e::stamps::{BLOCK_BYTES, Stamps};
use redoubt_e2e::{Place, setting, text};
use std::sync::atomic::{AtomicU64, Ordering};

/// Small, so that the resync after each kill ends within a life and points are made.
const DISK_BYTES: u64 = 8 << 20;
/// Few blocks, so that most writes replace earlier ones and a wrong order shows.
const BLOCKS: u64 = 512;
/// Writes answered before a kill: from the first moments after a start to a settled stream.
const WRITES_MAX: u64 = 1000;

/// Writes until the connection breaks; `answered` counts.
fn write_until_killed(stamps: &mut Stamps, socket: &std::path::Path, answered: &AtomicU64) {
    let Ok(mut client) = Client::connect(socket, "erp") else { return };
    loop {
        let (offset, content) = stamps.next_write();
        if client.write(offset, &content).is_err() {
            return;
        }
        answered.fetch_add(1, Ordering::Release);
    }
}

#[test]
fn every_point_is_an_exact_prefix_however_often_the_process_is_killed() {
    let seed = setting("REDOUBT_E2E_SEED", u64::from(std::process::id()));
    let cycles = setting("REDOUBT_E2E_CYCLES", 5);
    println!("REDOUBT_E2E_SEED={seed} REDOUBT_E2E_CYCLES={cycles}");
    let place = Place::new();
    let image = place.image("disk.img", DISK_BYTES);
    let (site, socket) = (Site::new(&place), place.path("erp.sock"));
    let (disk, listen) = (format!("erp={}", text(&image)), format!("unix:{}", text(&socket)));
    let start = || site.up(&["--disk", &disk, "--listen", &listen]).unwrap();
    let mut stamps = Stamps::new(seed, BLOCKS);
    let mut points = 0;
    for cycle in 0..cycles {
        let enough = stamps.below(WRITES_MAX);
        let service = start();
        let answered = AtomicU64::new(0);
        std::thread::scope(|scope| {
            let (stamps, socket, answered) = (&mut stamps, &socket, &answered);
            let writer = scope.spawn(move || write_until_killed(stamps, socket, answered));
            // Every second life lasts until it has made points of its own under load; else a run of
            // early deaths would leave no point to judge, and the test would prove nothing.
            if cycle % 2 == 0 {
                let more = |status: &serde_json::Value| status["points"].as_u64() > Some(points + 1);
                points = site.watch(more).unwrap()["points"].as_u64().unwrap();
            }
            let enough = answered.load(Ordering::Acquire) + enough;
            while answered.load(Ordering::Acquire) < enough && !writer.is_finished() {
                std::thread::yield_now();
            }
            service.kill().unwrap();
        });
        let disk = std::fs::read(&image).unwrap();
        stamps.settle_last(&disk).unwrap();
        stamps.prefix(&disk).expect("the disk itself holds every answered write");
    }
    let service = start();
    let mut client = Client::connect(&socket, "erp").unwrap();
    for _ in 0..100 {
        let (offset, content) = stamps.next_write();
        client.write(offset, &content).unwrap();
    }
    client.flush().unwrap();
    drop(client);
    let newest = site.caught_up().unwrap();
    assert!(service.terminate().unwrap().success());
    let judged = judge_points(&place, &site, &stamps, &newest);
    assert!(judged > points, "only {judged} points were judged, {points} were made before the last life");
}

fn judge_points(place: &Place, site: &Site, stamps: &Stamps, newest: &str) -> u64 {
    let points = site.points().unwrap();
    assert!(points.iter().any(|point| point == newest));
    let (mut before, mut seen) = (0, false);
    for point in &points {
        let socket = place.path("point.sock");
        let mount = site.mount(point, &socket, &["--volume", "erp"]).unwrap();
        let mut client = Client::connect(&socket, "").unwrap();
        assert_eq!(client.size, DISK_BYTES);
        let image = client.read(0, (BLOCKS * BLOCK_BYTES) as u32).unwrap();
        let k = stamps.prefix(&image).unwrap_or_else(|error| panic!("point {point}: {error}"));
        assert!(k >= before, "point {point} is older ({k}) than the one before it ({before})");
        assert!(client.write(0, &[1; 512]).is_err(), "a mounted point takes no writes");
        drop(client);
        assert!(mount.terminate().unwrap().success());
        seen |= point == newest;
        assert!(!seen || k == stamps.len(), "point {point} holds {k} of {} writes", stamps.len());
        before = k;
    }
    println!("{} points, {} writes", points.len(), stamps.len());
    points.len() as u64
}
