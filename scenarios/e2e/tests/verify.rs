//! The second reader against a real vault: a whole one is proven, damage is named with what it takes.
#![allow(clippy::disallowed_methods)]

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use redoubt_e2e::nbd::Client;
use redoubt_e2e::service::{Service, Site};
use redoubt_e2e::{Place, binary, text, try_run};
use serde_json::Value;
use std::path::PathBuf;

const REFUSED: i32 = 4;
const FAILED: i32 = 5;
const WARNED: i32 = 6;
const MIB: usize = 1 << 20;

/// A vault whose older point needs all of its largest segment, and whose newer point none of it.
fn two_points(place: &Place, big: usize) -> (Site, String, String) {
    let image = place.image("disk.img", 32 << 20);
    let (site, socket) = (Site::new(place), place.path("erp.sock"));
    let listen = format!("unix:{}", text(&socket));
    // A marker every few seconds: a busy machine must not cut the large write into many small commits.
    let (disk, state, vault) = (format!("erp={}", text(&image)), text(&site.state), text(&site.vault));
    let up = ["up", "--state", state, "--vault", vault, "--point-interval", "3s", "--disk", &disk];
    let service = Service::start(&[&up[..], &["--listen", &listen]].concat()).unwrap();
    let mut client = Client::connect(&socket, "erp").unwrap();
    // Random bytes do not shrink: in one request they fill a segment beside the log.
    let mut bytes = vec![0; big * MIB];
    ChaCha8Rng::seed_from_u64(1).fill_bytes(&mut bytes);
    let mut point_of = |bytes: &[u8]| {
        client.write(MIB as u64, bytes).unwrap();
        client.flush().unwrap();
        site.caught_up().unwrap()
    };
    let (old, new) = (point_of(&bytes), point_of(&vec![7; big * MIB]));
    assert!(service.terminate().unwrap().success());
    (site, old, new)
}

fn verify(site: &Site, point: &[&str]) -> (Option<i32>, Value, String) {
    let fixed = ["verify", "--vault", text(&site.vault), "--format", "json"];
    let output = try_run(binary().as_os_str(), &[&fixed, point].concat(), None).unwrap();
    let verdict = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code(), verdict, String::from_utf8_lossy(&output.stderr).into_owned())
}

fn files(directory: PathBuf) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn machine_directory(site: &Site) -> PathBuf {
    files(site.vault.join("g")).remove(0)
}

#[test]
fn a_whole_vault_is_proven_and_damage_is_mapped_to_the_points_that_need_it() {
    let place = Place::new();
    let (site, old, new) = two_points(&place, 12);
    let before = place.contents();
    let (exit, whole, stderr) = verify(&site, &[]);
    assert_eq!((exit, whole["verdict"].as_str()), (Some(0), Some("proven")), "{stderr}{whole}");
    assert_eq!(whole["points"].as_u64(), Some(site.points().unwrap().len() as u64));
    assert_eq!(whole["volumes"][0]["data_bytes"].as_u64(), Some(12 * MIB as u64));
    assert_eq!(whole["volumes"][0]["bytes"].as_u64(), Some(32 * MIB as u64));
    assert!(place.contents() == before, "to verify changes nothing");

    // One byte of a unit that the older point needs; the newer one has other bytes everywhere.
    let segments = files(machine_directory(&site).join("seg")).into_iter().flat_map(files);
    let first = segments.max_by_key(|file| std::fs::metadata(file).unwrap().len()).unwrap();
    let good = std::fs::read(&first).unwrap();
    let mut rotten = good.clone();
    rotten[200] ^= 1;
    std::fs::write(&first, rotten).unwrap();
    let (exit, verdict, stderr) = verify(&site, &[&old]);
    assert_eq!((exit, verdict["verdict"].as_str()), (Some(FAILED), Some("not-proven")), "{verdict}");
    assert!(stderr.contains("is not proven") && stderr.contains("hint"), "{stderr}");
    let (damage, hits) = (&verdict["damage"][0], verdict["hits"].as_array().unwrap());
    let name = first.strip_prefix(&site.vault).unwrap();
    assert_eq!((damage["object"].as_str(), damage["from"].as_u64()), (name.to_str(), Some(128)));
    let of_old: Vec<_> = hits.iter().filter(|hit| hit["point"] == old.as_str()).collect();
    let [hit] = of_old[..] else { panic!("one range of the point: {hits:?}") };
    assert_eq!((&hit["volume"], hit["bytes"].as_u64()), (&whole["volumes"][0]["name"], Some(64 << 10)));
    let offset = hit["offset"].as_u64().unwrap();
    assert!(offset % (64 << 10) == 0 && (MIB as u64..13 * MIB as u64).contains(&offset), "{hit}");
    assert_eq!(verdict["volumes"][0]["lost_bytes"].as_u64(), Some(64 << 10));
    assert_eq!(
        verdict["volumes"][0]["differing_bytes"].as_u64(),
        Some(0),
        "both readers miss the same bytes"
    );
    let (exit, verdict, stderr) = verify(&site, &[&new]);
    assert_eq!((exit, verdict["verdict"].as_str()), (Some(WARNED), Some("proven-with-damage")), "{stderr}");
    assert!(stderr.contains("hint"), "{stderr}");
    // The object itself says the same, and the list of all objects names it alone.
    let name = name.to_str().unwrap();
    let shown = dump(&site, &[name], WARNED);
    assert_eq!((shown["object"].as_str(), shown["damage"][0]["from"].as_u64()), (Some(name), Some(128)));
    let all = dump(&site, &[], WARNED);
    let is_damaged = |line: &&Value| !line["damage"].as_array().unwrap().is_empty();
    let damaged: Vec<_> = all.as_array().unwrap().iter().filter(is_damaged).collect();
    assert!(damaged.len() == 1 && damaged[0]["object"] == name, "{damaged:?}");
    std::fs::write(&first, good).unwrap();
}

fn dump(site: &Site, object: &[&str], exit: i32) -> Value {
    let fixed = ["vault-dump", "--vault", text(&site.vault), "--format", "json"];
    let output = try_run(binary().as_os_str(), &[&fixed, object].concat(), None).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(exit), "{stderr}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_lost_record_takes_the_points_behind_it_by_name() {
    let place = Place::new();
    let (site, old, new) = two_points(&place, 1);
    let slot: usize = new.split('.').next().unwrap().parse().unwrap();
    let old_slot: usize = old.split('.').next().unwrap().parse().unwrap();
    assert!(old_slot < slot);
    // The record before that of the newer point, or the older one's own.
    assert!(dump(&site, &["g/"], 0).as_array().unwrap().len() > slot);
    let record = files(machine_directory(&site).join("log")).remove(slot - 2);
    std::fs::remove_file(&record).unwrap();
    let (exit, verdict, stderr) = verify(&site, &[&new]);
    assert_eq!(exit, Some(FAILED), "{stderr}");
    assert_eq!(verdict["slots"].as_u64(), Some(slot as u64 - 2));
    assert!(verdict["broken"]["what"].as_str().unwrap().contains("missing"), "{verdict}");
    let lost = verdict["lost"].as_array().unwrap();
    assert!(lost.iter().any(|point| point["point"] == new.as_str()), "{verdict}");
    // Whoever lists what is left must not miss that there was more.
    let points = ["points", "--vault", text(&site.vault), "--format", "json"];
    let output = try_run(binary().as_os_str(), &points, None).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(WARNED), "{stderr}");
    assert!(
        stderr.contains("has lost newer recovery points") && stderr.contains("redoubt verify"),
        "{stderr}"
    );
    let left: Value = serde_json::from_slice(&output.stdout).unwrap();
    let left = left["points"].as_array().unwrap();
    assert!(left.iter().all(|point| point["point"] != new.as_str()), "{left:?}");
    if let Some(last) = left.last() {
        // Nobody fails over to an older day by the word `newest`; by its name the point is whole.
        let last = last["point"].as_str().unwrap();
        let (exit, _, stderr) = verify(&site, &["newest"]);
        assert_eq!(exit, Some(REFUSED), "{stderr}");
        assert!(stderr.contains("the log is damaged") && stderr.contains(last), "{stderr}");
        let (exit, verdict, stderr) = verify(&site, &[last]);
        assert_eq!((exit, verdict["verdict"].as_str()), (Some(WARNED), Some("proven")), "{stderr}");
    }
    let (exit, _, stderr) = verify(&site, &["99.0"]);
    assert_eq!(exit, Some(REFUSED), "{stderr}");
    let named = ["there is no recovery point 99.0", "the damage takes every recovery point"];
    assert!(named.iter().any(|words| stderr.contains(words)) && stderr.contains("hint"), "{stderr}");
}
