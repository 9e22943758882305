//! A vault in a cloud's store: the machine that was protected is gone with all it had, and any of its points
//! comes back from the store, the recovery kit and the credentials alone. A byte that changed in the store takes the
//! points that need it, by name, and no other.
#![allow(clippy::disallowed_methods)]

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use redoubt_e2e::nbd::Client;
use redoubt_e2e::servers::Server;
use redoubt_e2e::service::{Service, Site};
use redoubt_e2e::{Place, binary, run, text, try_run};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

const UNREACHABLE: i32 = 3;
const FAILED: i32 = 5;
const WARNED: i32 = 6;
const DISK_BYTES: u64 = 4 << 20;
const STEP: usize = 1 << 20;

fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut noise);
    noise
}

/// Fails unless the point is this image, every byte of it.
fn is_exact(place: &Place, vault: &[&str], point: &str, image: &[u8]) {
    let socket = place.path(&format!("{point}.sock"));
    let listen = format!("unix:{}", text(&socket));
    // Disks of two machines may have one name: each keeps its cache to itself.
    let cache = place.path(&format!("{point}.cache"));
    let mount = ["mount", point, "--listen", &listen, "--cache-dir", text(&cache)];
    let mount = Service::start(&[&mount, vault].concat()).unwrap();
    let mut client = Client::connect(&socket, "erp").unwrap();
    for offset in (0..DISK_BYTES).step_by(STEP) {
        let wanted = &image[offset as usize..offset as usize + STEP];
        assert!(
            client.read(offset, STEP as u32).unwrap() == wanted,
            "point {point} differs at or after {offset}"
        );
    }
    assert!(mount.terminate().unwrap().success());
}

fn a_lost_machine_comes_back(server: &Server, place: &Place) {
    let url = format!("{}/dr/erp", server.holder("vaults").unwrap());
    let (image, socket, key) = (place.path("disk.img"), place.path("erp.sock"), place.path("kept.key"));
    let oldest = noise(1, DISK_BYTES as usize);
    std::fs::write(&image, &oldest).unwrap();
    let site = Site { state: place.path("state"), vault: PathBuf::from(&url) };
    let (disk, listen) = (format!("erp={}", text(&image)), format!("unix:{}", text(&socket)));
    let own = ["--key", text(&key), "--disk", &disk, "--listen", &listen];
    let service = site.up(&[&own, &server.options()[..]].concat()).unwrap();
    site.caught_up().unwrap();
    let mut client = Client::connect(&socket, "erp").unwrap();
    let mut newest = oldest.clone();
    for (seed, offset) in [(2, 0), (3, 3 << 20), (4, (3 << 20) + 4096)] {
        let written = noise(seed, 64 << 10);
        client.write(offset as u64, &written).unwrap();
        client.flush().unwrap();
        newest[offset..offset + written.len()].copy_from_slice(&written);
        site.caught_up().unwrap();
    }
    drop(client);
    assert!(service.terminate().unwrap().success());
    // What the state directory says of the vault is enough for the machine itself.
    run(binary(), &["points", "--state", text(&site.state)]).unwrap();
    let (kit, phrase) = (place.path("kit.txt"), place.path("phrase"));
    std::fs::write(&phrase, "walrus pencil harbour tulip\n").unwrap();
    std::fs::set_permissions(&phrase, std::fs::Permissions::from_mode(0o600)).unwrap();
    let state = ["--state", text(&site.state), "--passphrase-file", text(&phrase)];
    run(binary(), &[&["keys", "export-kit", text(&kit)], &state[..]].concat()).unwrap();
    std::fs::remove_dir_all(&site.state).unwrap();
    std::fs::remove_file(&image).unwrap();
    std::fs::remove_file(&key).unwrap();
    // The kit says where the vault is.
    let kit = ["--recovery-kit", text(&kit), "--passphrase-file", text(&phrase)];
    let vault = [&kit[..], &["--vault-credentials", text(&server.credentials)]].concat();
    let list = run(binary(), &[&["points", "--format", "json"], &vault[..]].concat()).unwrap();
    let list: Value = serde_json::from_str(&list).unwrap();
    let names: Vec<&str> =
        list["points"].as_array().unwrap().iter().map(|point| point["point"].as_str().unwrap()).collect();
    assert!(names.len() >= 4, "{names:?}");
    for point in list["points"].as_array().unwrap() {
        assert_eq!(point["volumes"][0]["name"], "erp", "the vault says what the disk was called: {point}");
        assert_eq!(point["volumes"][0]["bytes"], DISK_BYTES);
    }
    let host = list["name"].as_str().unwrap();
    assert!(!host.is_empty(), "and its machine");
    is_exact(place, &vault, names[0], &oldest);
    is_exact(place, &vault, names[names.len() - 1], &newest);
    for point in [names[0], names[names.len() - 1]] {
        let proof = run(binary(), &[&["verify", point], &vault[..]].concat()).unwrap();
        assert!(proof.contains("PROVEN: the point is changes 1 to"), "{proof}");
    }
    let restored = place.path("restored.img");
    let export = ["export", names[0], text(&restored), "--volume", "erp", "--machine", host];
    run(binary(), &[&export, &vault[..]].concat()).unwrap();
    assert!(std::fs::read(&restored).unwrap() == oldest, "exported by the names that the vault knows");
    let log = "g/MACHINE/log/0000000000000002".replace("MACHINE", list["machine"].as_str().unwrap());
    let kit_only = [&["vault-dump", &log], &vault[..]].concat();
    let dump = run(binary(), &kit_only).unwrap();
    assert!(dump.contains("erp") && dump.contains(host), "{dump}");
    as_the_readme_says(place, names[0]);
    let scrubbed = run(binary(), &[&["scrub"], &vault[..]].concat()).unwrap();
    assert!(scrubbed.contains("WHOLE: every unit opens"), "{scrubbed}");
    if server.rot().unwrap() {
        let keyless = [&["--vault", &url], &server.options()[..]].concat();
        rot_is_named(place, &vault, &keyless, &names);
    }
}

/// Runs the README's commands for this day as they are written, in a directory with the kit and the credentials.
fn as_the_readme_says(place: &Place, oldest: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let readme = std::fs::read_to_string(path).unwrap();
    let section = readme.split("### When the site is gone").nth(1).expect("the section");
    let block = section.split("```").nth(1).expect("its commands");
    let commands: Vec<&str> = block.lines().filter_map(|line| line.strip_prefix("$ redoubt ")).collect();
    assert_eq!(commands.len(), 6, "{commands:?}");
    let credentials = std::fs::read_dir(place.path(".")).unwrap().map(|entry| entry.unwrap().path());
    let credentials =
        credentials.into_iter().find(|path| path.extension().is_some_and(|end| end == "credentials"));
    std::fs::copy(credentials.unwrap(), place.path("vault.credentials")).unwrap();
    for command in commands {
        let is_left_running = command.ends_with('&');
        let command = command.trim_end_matches(" &").replace("mount 3.0 ", &format!("mount {oldest} "));
        let line = format!("exec {} {command} --passphrase-file phrase", text(&binary()));
        let mut shell = Command::new("sh");
        shell.args(["-c", &line]).current_dir(place.path(".")).stdin(Stdio::null());
        if is_left_running {
            let mut child = shell.stdout(Stdio::piped()).spawn().unwrap();
            let mut address = String::new();
            BufReader::new(child.stdout.take().unwrap()).read_line(&mut address).unwrap();
            // SAFETY: a plain system call; the child has not been waited for, so the id is its own.
            unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGTERM) };
            assert!(child.wait().unwrap().success() && address.starts_with("nbd+unix:"), "{line}: {address}");
        } else {
            let output = shell.output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && !output.stdout.is_empty(), "{line}: {said}");
        }
    }
}

/// Runs a command that prints JSON, whatever it ends with.
fn json(arguments: &[&[&str]]) -> (i32, Value) {
    let arguments = [&arguments.concat()[..], &["--format", "json"]].concat();
    let output = try_run(binary().as_os_str(), &arguments, None).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    (output.status.code().expect("a code"), serde_json::from_slice(&output.stdout).expect(&stderr))
}

/// Which points need what rotted is found by exporting each of them. Scrub and verify must say the same.
fn rot_is_named(place: &Place, vault: &[&str], keyless: &[&str], points: &[&str]) {
    let (mut lost, mut whole) = (Vec::new(), Vec::new());
    for point in points {
        let image = place.path(&format!("{point}-after.img"));
        let export = [&["export", point, text(&image)], vault].concat();
        let output = try_run(binary().as_os_str(), &export, None).unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        match output.status.code() {
            Some(0) => whole.push(*point),
            code => {
                assert_eq!(code, Some(FAILED), "{stderr}");
                assert!(
                    stderr.contains("the seal is broken") && stderr.contains("redoubt scrub"),
                    "{stderr}"
                );
                assert!(!image.exists(), "half an image is none");
                lost.push(*point);
            }
        }
    }
    assert!(lost.first() == points.first() && whole.last() == points.last(), "{lost:?} {whole:?}");
    let (exit, all) = json(&[&["scrub"], vault]);
    let [damage] = &all[0]["damage"].as_array().unwrap()[..] else { panic!("one place: {all}") };
    let at = |name: &Value| points.iter().position(|point| *point == name).expect("a point that is listed");
    let hits = damage["points"].as_array().unwrap().iter();
    let named: Vec<&str> = hits.flat_map(|hit| &points[at(&hit["from"])..=at(&hit["to"])]).copied().collect();
    assert_eq!((exit, &named), (FAILED, &lost), "{all}");
    assert_eq!(all[0]["whole_points"], serde_json::json!(whole), "{all}");
    // Whoever has no keys learns of the same place, and nothing of points.
    let (exit, all) = json(&[&["scrub", "--without-key"], keyless]);
    assert_eq!((exit, &all[0]["damage"][0]["object"]), (FAILED, &damage["object"]), "{all}");
    assert_eq!(all[0]["damage"][0]["takes"], "unknown", "{all}");
    for (point, exit, verdict) in
        [(lost[lost.len() - 1], FAILED, "not-proven"), (whole[0], WARNED, "proven-with-damage")]
    {
        let (code, proof) = json(&[&["verify", point], vault]);
        assert_eq!((code, proof["verdict"].as_str()), (exit, Some(verdict)), "{point}: {proof}");
        let hits = proof["hits"].as_array().unwrap();
        assert!(hits.iter().all(|hit| lost.iter().any(|lost| hit["point"] == *lost)), "{proof}");
    }
}

#[test]
fn a_machine_protected_into_azure_comes_back_from_there() {
    let place = Place::new();
    let server = Server::azurite(&place).unwrap();
    a_lost_machine_comes_back(&server, &place);
}

#[test]
fn a_machine_protected_into_a_server_of_s3_comes_back_from_there() {
    let place = Place::new();
    let server = Server::moto(&place).unwrap();
    a_lost_machine_comes_back(&server, &place);
}

#[test]
fn a_vault_that_cannot_be_is_refused_in_clear_words_and_nothing_is_made() {
    let place = Place::new();
    let server = Server::moto(&place).unwrap();
    place.image("disk.img", DISK_BYTES);
    let before = place.contents();
    let up = ["up", "--disk", "erp=disk.img", "--listen", "unix:erp.sock", "--vault"];
    let refused = |arguments: &[&str], code: i32, says: &[&str]| {
        let output = try_run(binary().as_os_str(), arguments, Some(&place.path("."))).unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        assert!(says.iter().all(|words| stderr.contains(words)), "{stderr}");
        assert!(place.contents() == before, "a refused start changes nothing");
    };
    let options = server.options();
    let with = |url: &'static str| [&up[..], &[url], &options].concat();
    refused(&with("s3://not-made/x"), UNREACHABLE, &["s3://not-made/x", "no bucket", "make it first"]);
    refused(&with("ftp://host/x"), 2, &["\"ftp\" is no kind of store", "s3"]);
    let missing = [&up[..], &["s3://b", "--vault-credentials", "nowhere"]].concat();
    refused(&missing, UNREACHABLE, &["nowhere", "No such file", "--vault-credentials"]);
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let endpoint = format!("http://{silent}");
    let credentials = text(&server.credentials);
    let silent =
        [&up[..], &["s3://b/x", "--vault-endpoint", &endpoint, "--vault-credentials", credentials]].concat();
    refused(&silent, UNREACHABLE, &["s3://b/x", "cannot connect", "check the address"]);
}
