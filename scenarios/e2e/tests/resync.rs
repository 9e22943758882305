//! Somebody writes to a protected disk past Redoubt, and nothing notices it: a comparison that is asked for brings the
//! vault up to the disk, while its guest goes on.
#![allow(clippy::disallowed_methods)]

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use redoubt_e2e::service::Site;
use redoubt_e2e::{Place, binary, run, text, try_run};
use serde_json::Value;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;

const UNREACHABLE: i32 = 3;
const REFUSED: i32 = 4;
const MIB: u64 = 1 << 20;
const BLOCK: u64 = 64 << 10;

fn random(seed: u64, bytes: usize) -> Vec<u8> {
    let mut content = vec![0; bytes];
    ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut content);
    content
}

fn resync(site: &Site, arguments: &[&str]) -> (Option<i32>, Value, String) {
    let fixed = ["resync", "--state", text(&site.state), "--format", "json"];
    let output = try_run(binary().as_os_str(), &[&fixed[..], arguments].concat(), None).unwrap();
    let done = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code(), done, String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Returns the disk as it was at a point.
fn exported(place: &Place, site: &Site, point: &str) -> Vec<u8> {
    let path = place.path("exported.img");
    let _ = std::fs::remove_file(&path);
    run(binary(), &["export", point, text(&path), "--vault", text(&site.vault)]).unwrap();
    std::fs::read(path).unwrap()
}

/// Writes to the image itself, as a rescue system does that knows nothing of Redoubt.
fn edit(image: &Path, at: u64, content: &[u8]) {
    OpenOptions::new().write(true).open(image).unwrap().write_all_at(content, at).unwrap();
}

#[test]
fn what_was_written_past_the_splitter_is_in_the_point_behind_a_resync() {
    let place = Place::new();
    let image = place.image("disk.img", 32 * MIB);
    let (site, socket) = (Site::new(&place), place.path("erp.sock"));
    let (service, mut client) = site.protect(&image, &socket, &[]).unwrap();
    client.write(MIB, &random(1, 4 << 20)).unwrap();
    client.flush().unwrap();
    let old = site.caught_up().unwrap();
    let before = std::fs::read(&image).unwrap();
    // Under a running service: the fingerprint of its stop holds the edit already, so the next start finds nothing.
    edit(&image, 20 * MIB + 12_345, &random(2, 100_000));
    drop(client);
    assert!(service.terminate().unwrap().success());
    let (service, mut client) = site.protect(&image, &socket, &[]).unwrap();
    client.write(MIB, &random(3, 4096)).unwrap();
    client.flush().unwrap();
    let blind = site.caught_up().unwrap();
    let disk = std::fs::read(&image).unwrap();
    assert!(exported(&place, &site, &blind) != disk, "nobody noticed the edit");

    let machine = site.status().unwrap()["machine"].as_str().unwrap().to_owned();
    let (exit, done, stderr) = resync(&site, &[&machine]);
    assert_eq!(exit, Some(0), "{stderr}");
    assert_eq!((&done["machine"], &done["volumes"][0]), (&Value::from(machine), &Value::from("erp")));
    let copy = |field: &str| done["copy"][field].as_u64().unwrap();
    assert_eq!((done["bytes"].as_u64(), copy("compared_bytes")), (Some(32 * MIB), 32 * MIB), "{done}");
    assert_eq!((copy("sent_bytes"), copy("equal_bytes")), (2 * BLOCK, 32 * MIB - 2 * BLOCK), "{done}");
    let point = done["point"]["point"].as_str().unwrap();
    assert!(exported(&place, &site, point) == disk, "the point behind the resync is the disk");
    assert!(exported(&place, &site, &old) == before, "points before it stay as they are");

    // The guest goes on, and who asks again is taken in.
    let name = done["name"].as_str().unwrap();
    edit(&image, 30 * MIB, &random(4, 512));
    let (exit, taken, stderr) = resync(&site, &[name, "--volume", "erp", "--no-wait"]);
    assert_eq!((exit, &taken["copy"], &taken["point"]), (Some(0), &Value::Null, &Value::Null), "{stderr}");
    client.write(8 * MIB, &random(5, 1 << 20)).unwrap();
    client.flush().unwrap();
    let (exit, done, stderr) = resync(&site, &[name]);
    assert!(exit == Some(0) && done["point"]["point"].is_string(), "{stderr}{done}");
    let newest = site.caught_up().unwrap();
    assert!(
        exported(&place, &site, &newest) == std::fs::read(&image).unwrap(),
        "the newest point is the disk"
    );
    drop(client);
    assert!(service.terminate().unwrap().success());
}

#[test]
fn a_comparison_that_cannot_be_had_is_refused_with_a_next_step() {
    let place = Place::new();
    let image = place.image("disk.img", 4 * MIB);
    let (site, socket) = (Site::new(&place), place.path("erp.sock"));
    let (exit, _, stderr) = resync(&site, &["erp-host"]);
    assert_eq!(exit, Some(UNREACHABLE), "{stderr}");
    assert!(stderr.contains("no service runs") && stderr.contains("--state"), "{stderr}");
    let (service, client) = site.protect(&image, &socket, &[]).unwrap();
    site.caught_up().unwrap();
    let machine = site.status().unwrap()["machine"].as_str().unwrap().to_owned();
    let (exit, _, stderr) = resync(&site, &["nobody"]);
    assert_eq!(exit, Some(REFUSED), "{stderr}");
    assert!(stderr.contains(&machine) && stderr.contains("not nobody"), "{stderr}");
    let (exit, _, stderr) = resync(&site, &[&machine, "--volume", "logs"]);
    assert_eq!(exit, Some(REFUSED), "{stderr}");
    assert!(stderr.contains("logs") && stderr.contains("it has erp"), "{stderr}");
    drop(client);
    assert!(service.terminate().unwrap().success());
    let (exit, _, stderr) = resync(&site, &[&machine]);
    assert_eq!(exit, Some(UNREACHABLE), "{stderr}");
}
