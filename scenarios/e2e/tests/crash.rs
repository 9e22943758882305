//! Power to the process is cut at random moments; every recovery point must be an exact prefix.
#![allow(clippy::disallowed_methods)]

use redoubt_e2e::nbd::Client;
use redoubt_e2e::pair::Pair;
use redoubt_e2e::service::Site;
use redoubt_e2e::stamps::{BLOCK_BYTES, Stamps};
use redoubt_e2e::{Place, setting, text};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::ScopedJoinHandle;

/// Small, so that the resync after each kill ends within a life and points are made.
const DISK_BYTES: u64 = 8 << 20;
/// Few blocks, so that most writes replace earlier ones and a wrong order shows.
const BLOCKS: u64 = 512;
/// Writes answered before a kill: from the first moments after a start to a settled stream.
const WRITES_MAX: u64 = 1000;

/// Writes until the connection breaks, with a flush after so many writes; `answered` counts.
fn write_until_killed(stamps: &mut Stamps, socket: &Path, answered: &AtomicU64, flush_after: u64) {
    let Ok(mut client) = Client::connect(socket, "erp") else { return };
    loop {
        let (offset, content) = stamps.next_write();
        if client.write(offset, &content).is_err() {
            return;
        }
        let answered = answered.fetch_add(1, Ordering::Release);
        if answered.is_multiple_of(flush_after) && client.flush().is_err() {
            return;
        }
    }
}

/// Waits until so many more writes are answered, or the writer has ended.
fn wait_for_writes(writer: &ScopedJoinHandle<'_, ()>, answered: &AtomicU64, more: u64) {
    let enough = answered.load(Ordering::Acquire) + more;
    while answered.load(Ordering::Acquire) < enough && !writer.is_finished() {
        std::thread::yield_now();
    }
}

/// The disk after a kill: every answered write is there, the last unanswered one perhaps.
fn judge_disk(stamps: &mut Stamps, image: &Path) {
    let disk = std::fs::read(image).unwrap();
    stamps.settle_last(&disk).unwrap();
    stamps.prefix(&disk).expect("the disk itself holds every answered write");
}

/// Writes a little more, undisturbed.
fn write_the_end(stamps: &mut Stamps, socket: &Path) {
    let mut client = Client::connect(socket, "erp").unwrap();
    for _ in 0..100 {
        let (offset, content) = stamps.next_write();
        client.write(offset, &content).unwrap();
    }
    client.flush().unwrap();
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
            let writer = scope.spawn(move || write_until_killed(stamps, socket, answered, u64::MAX));
            // Every second life lasts until it has made points of its own under load; else a run of
            // early deaths would leave no point to judge, and the test would prove nothing.
            if cycle % 2 == 0 {
                let more = |status: &serde_json::Value| status["points"].as_u64() > Some(points + 1);
                points = site.watch(more).unwrap()["points"].as_u64().unwrap();
            }
            wait_for_writes(&writer, answered, enough);
            service.kill().unwrap();
        });
        judge_disk(&mut stamps, &image);
    }
    let service = start();
    write_the_end(&mut stamps, &socket);
    let newest = site.caught_up().unwrap();
    assert!(service.terminate().unwrap().success());
    let judged = judge_points(&place, &site, &stamps, &newest);
    assert!(judged > points, "only {judged} points were judged, {points} were made before the last life");
}

#[test]
fn every_point_is_an_exact_prefix_when_agent_and_process_server_die_in_turns() {
    let seed = setting("REDOUBT_E2E_SEED", u64::from(std::process::id()));
    let cycles = setting("REDOUBT_E2E_CYCLES", 5);
    println!("REDOUBT_E2E_SEED={seed} REDOUBT_E2E_CYCLES={cycles}");
    let place = Place::new();
    let image = place.image("disk.img", DISK_BYTES);
    let (pair, mut server) = Pair::new(&place, text(&image), "").unwrap();
    let mut stamps = Stamps::new(seed, BLOCKS);
    let mut points = 0;
    for cycle in 0..cycles {
        let (enough, kills, both) = (stamps.below(WRITES_MAX), 1 + stamps.below(2), stamps.below(2) == 0);
        let pauses: Vec<u64> = (0..kills).map(|_| stamps.below(WRITES_MAX / 4)).collect();
        let agent = pair.start_agent(&[]).unwrap();
        let answered = AtomicU64::new(0);
        server = std::thread::scope(|scope| {
            let (stamps, answered, pair) = (&mut stamps, &answered, &pair);
            let writer = scope.spawn(move || write_until_killed(stamps, &pair.socket, answered, 8));
            for pause in pauses {
                wait_for_writes(&writer, answered, pause);
                server.kill().unwrap();
                // The guest never waits for replication: its writes are answered without a process server.
                wait_for_writes(&writer, answered, 100 + pause);
                server = pair.start_server().unwrap();
            }
            assert!(!writer.is_finished(), "the death of a process server is no business of the guest");
            if cycle % 2 == 0 {
                points = pair.more_points(points).unwrap();
            }
            wait_for_writes(&writer, answered, enough);
            agent.kill().unwrap();
            if both {
                server.kill().unwrap();
                server = pair.start_server().unwrap();
            }
            server
        });
        judge_disk(&mut stamps, &image);
    }
    let agent = pair.start_agent(&[]).unwrap();
    write_the_end(&mut stamps, &pair.socket);
    let newest = pair.caught_up().unwrap();
    assert!(agent.terminate().unwrap().success());
    assert!(server.terminate().unwrap().success());
    let site = Site { state: pair.agent_state.clone(), vault: pair.vault.clone() };
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
