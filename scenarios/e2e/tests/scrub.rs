//! A scrub of a real vault under a running service: damage is named with exactly what it takes, and the source
//! heals the newest state.
#![allow(clippy::disallowed_methods)]

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use redoubt_e2e::nbd::Client;
use redoubt_e2e::service::{Service, Site};
use redoubt_e2e::{Place, binary, run, text, try_run};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const FAILED: i32 = 5;
const WARNED: i32 = 6;
const MIB: usize = 1 << 20;

fn random(seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; 12 * MIB];
    ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

fn scrub(site: &Site, more: &[&str]) -> (Option<i32>, Value, String) {
    let fixed = ["scrub", "--state", text(&site.state), "--vault", text(&site.vault), "--format", "json"];
    let output = try_run(binary().as_os_str(), &[&fixed[..], more].concat(), None).unwrap();
    let all: Value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code(), all[0].clone(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn segments(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { segments(&path) } else { vec![path] }).collect()
}

fn slot_of(point: &str) -> (u64, u64) {
    let (slot, ordinal) = point.split_once('.').unwrap();
    (slot.parse().unwrap(), ordinal.parse().unwrap())
}

#[test]
fn a_scrub_names_exactly_what_is_lost_and_the_source_heals_the_newest_state() {
    let place = Place::new();
    let image = place.image("disk.img", 32 << 20);
    let (site, socket) = (Site::new(&place), place.path("erp.sock"));
    let listen = format!("unix:{}", text(&socket));
    let (disk, state, vault) = (format!("erp={}", text(&image)), text(&site.state), text(&site.vault));
    // A marker every few seconds: a busy machine must not cut the large write into many small commits.
    let up = ["up", "--state", state, "--vault", vault, "--point-interval", "3s", "--disk", &disk];
    let service = Service::start(&[&up[..], &["--listen", &listen]].concat()).unwrap();
    let mut client = Client::connect(&socket, "erp").unwrap();
    client.write(MIB as u64, &random(1)).unwrap();
    client.flush().unwrap();
    let old = site.caught_up().unwrap();

    for more in [&[][..], &["--without-key"]] {
        let (exit, whole, stderr) = scrub(&site, more);
        assert_eq!((exit, whole["verdict"].as_str()), (Some(0), Some("whole")), "{stderr}{whole}");
        assert_eq!(whole["checked"], whole["objects"], "{whole}");
    }

    // One byte of the largest segment, while the service runs.
    let machine = std::fs::read_dir(site.vault.join("g")).unwrap().next().unwrap().unwrap().path();
    let files = segments(&machine.join("seg"));
    let spoilt = files.iter().max_by_key(|file| std::fs::metadata(file).unwrap().len()).unwrap();
    let mut bytes = std::fs::read(spoilt).unwrap();
    bytes[200] ^= 1;
    std::fs::write(spoilt, &bytes).unwrap();
    let name = spoilt.strip_prefix(&site.vault).unwrap().to_str().unwrap();

    let (exit, found, stderr) = scrub(&site, &["--without-key"]);
    assert_eq!((exit, found["damage"][0]["takes"].as_str()), (Some(FAILED), Some("unknown")), "{stderr}");
    assert_eq!(found["damage"][0]["object"], name);
    let (exit, found, stderr) = scrub(&site, &[]);
    assert_eq!(exit, Some(FAILED), "{stderr}{found}");
    assert!(stderr.contains("recovery points have lost content"), "{stderr}");
    let damage = found["damage"].as_array().unwrap();
    let [damage] = &damage[..] else { panic!("one damaged unit: {found}") };
    assert_eq!((&damage["object"], damage["from"].as_u64()), (&Value::from(name), Some(128)));
    let [newest] = &damage["newest"].as_array().unwrap()[..] else { panic!("{damage}") };
    assert_eq!((newest[0].as_str(), newest[1]["bytes"].as_u64()), (Some("erp"), Some(64 << 10)));
    let offset = newest[1]["offset"].as_u64().unwrap();
    assert!(offset % (64 << 10) == 0 && (MIB as u64..13 * MIB as u64).contains(&offset), "{damage}");
    assert!(hit(damage, &old), "{damage}");

    let (exit, healed, stderr) = scrub(&site, &["--repair"]);
    assert_eq!(exit, Some(FAILED), "older points stay damaged: {stderr}{healed}");
    let point = healed["repair"]["whole_since"].as_str().unwrap().to_owned();
    assert!(slot_of(&point) > slot_of(&old), "{healed}");
    assert_eq!(healed["repair"]["bytes"].as_u64(), Some(64 << 10));
    let exported = place.path("healed.img");
    run(binary().as_os_str(), &["export", &point, text(&exported), "--state", state]).unwrap();
    assert!(std::fs::read(exported).unwrap() == std::fs::read(&image).unwrap(), "the new point is the disk");

    let (_, after, _) = scrub(&site, &[]);
    let damage = &after["damage"][0];
    assert_eq!(damage["newest"].as_array().unwrap().len(), 0, "the newest state is whole: {after}");
    assert!(hit(damage, &old) && !hit(damage, &point), "{after}");
    assert!(service.terminate().unwrap().success());
    // Without a service there is no source.
    let (exit, _, stderr) = scrub(&site, &["--repair"]);
    assert!(exit == Some(FAILED), "nothing of the newest state is lost: {stderr}");

    // What counts for nothing is told, too.
    let claim = segments(&machine.join("claim")).remove(0);
    let mut bytes = std::fs::read(&claim).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&claim, bytes).unwrap();
    std::fs::write(spoilt, unspoilt(spoilt)).unwrap();
    let (exit, found, stderr) = scrub(&site, &[]);
    assert_eq!((exit, found["verdict"].as_str()), (Some(WARNED), Some("harmless")), "{stderr}{found}");
}

fn unspoilt(file: &Path) -> Vec<u8> {
    let mut bytes = std::fs::read(file).unwrap();
    bytes[200] ^= 1;
    bytes
}

/// Flips a bit of an object; returns its name.
fn spoil(site: &Site, file: &Path) -> String {
    let mut bytes = std::fs::read(file).unwrap();
    bytes[200] ^= 1;
    std::fs::write(file, bytes).unwrap();
    file.strip_prefix(&site.vault).unwrap().to_str().unwrap().to_owned()
}

/// The names that a scrub noted.
fn noted(notes: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(notes).unwrap_or_default();
    text.lines().skip(1).map(str::to_owned).collect()
}

/// Begins a slow scrub that keeps notes, interrupts it after a while as Ctrl-C does, and returns what it says.
fn interrupted(site: &Site, notes: &Path, after: Duration) -> (Option<i32>, Value) {
    let slow = ["scrub", "--vault", text(&site.vault), "--rate-max", "4MiB", "--resume", text(notes)];
    let child = Command::new(binary())
        .args(slow)
        .args(["--format", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(after);
    // SAFETY: a plain system call; the child has not been waited for, so the id is its own.
    assert_eq!(unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGINT) }, 0);
    let output = child.wait_with_output().unwrap();
    let all: Value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code(), all[0].clone())
}

/// Returns the objects that are damaged, in order.
fn told(found: &Value) -> Vec<String> {
    let damage = found["damage"].as_array().unwrap().iter();
    let mut objects: Vec<_> = damage.map(|damage| damage["object"].as_str().unwrap().to_owned()).collect();
    objects.sort();
    objects
}

#[test]
fn a_scrub_that_was_interrupted_reads_only_the_rest_and_tells_all_damage() {
    let place = Place::new();
    let site = Site::new(&place);
    let places = ["--state", text(&site.state), "--vault", text(&site.vault)];
    // Each import is a writer and a segment of its own, and the first copy makes a point that needs them all.
    let mut disks = Vec::new();
    for number in 0..6 {
        let image = place.path(&format!("{number}.img"));
        std::fs::write(&image, &random(number)[..6 * MIB]).unwrap();
        let disk = format!("d{number}={}", text(&image));
        run(binary(), &[&["import", &disk][..], &places].concat()).unwrap();
        disks.extend(["--disk".to_owned(), disk]);
    }
    let service = site.up(&disks.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    site.caught_up().unwrap();
    assert!(service.terminate().unwrap().success());
    let machine = std::fs::read_dir(site.vault.join("g")).unwrap().next().unwrap().unwrap().path();
    let mut files = segments(&machine.join("seg"));
    files.sort();
    assert_eq!(files.len(), 6, "{files:?}");
    let early = spoil(&site, &files[0]);

    let notes = place.path("notes");
    let part = (3..20)
        .map(|seconds| interrupted(&site, &notes, Duration::from_secs(seconds)))
        .find(|_| !noted(&notes).is_empty());
    let (exit, part) = part.expect("each is longer");
    assert_eq!(exit, Some(FAILED), "{part}");
    assert!(part["checked"].as_u64() < part["objects"].as_u64(), "it came not to its end: {part}");
    assert_eq!(told(&part), std::slice::from_ref(&early), "the first part has it: {part}");
    assert_eq!(part["whole_points"], Value::Array(Vec::new()), "nobody knows of the rest: {part}");
    let known = noted(&notes);
    assert!(!known.contains(&early), "what is damaged is not noted as whole: {known:?}");

    // Were it read again, it would be told.
    let late = spoil(&site, &site.vault.join(&known[0]));
    let (exit, all, stderr) = scrub(&site, &["--resume", text(&notes)]);
    assert_eq!((exit, all["verdict"].as_str()), (Some(FAILED), Some("damaged")), "{stderr}{all}");
    assert_eq!(all["checked"], all["objects"], "{all}");
    assert_eq!(all["resumed"].as_u64(), Some(known.len() as u64), "{all}");
    assert_eq!(
        told(&all),
        std::slice::from_ref(&early),
        "the rest alone was read, and the first part's damage is told"
    );
    assert!(!notes.exists(), "there is nothing to go on from");
    let (_, anew, _) = scrub(&site, &[]);
    let mut both = [early, late];
    both.sort();
    assert_eq!((anew["resumed"].as_u64(), &told(&anew)[..]), (Some(0), &both[..]), "{anew}");
}

/// Tells whether damage takes something of a point.
fn hit(damage: &Value, point: &str) -> bool {
    let holds = |hit: &Value| {
        let (from, to) = (hit["from"].as_str().unwrap(), hit["to"].as_str().unwrap());
        (slot_of(from)..=slot_of(to)).contains(&slot_of(point))
    };
    damage["points"].as_array().unwrap().iter().any(holds)
}
