//! Keys as users meet them: the site is gone and a kit is all there is; keys are replaced under a running service.
#![allow(clippy::disallowed_methods)]

use redoubt_e2e::nbd::Client;
use redoubt_e2e::service::{Service, Site};
use redoubt_e2e::{Place, binary, run, text, try_run};
use serde_json::Value;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

const REFUSED: i32 = 4;
const MIB: usize = 1 << 20;
const DISK: usize = 16 * MIB;
const PASSPHRASE: &str = "walrus pencil harbour tulip";

/// Runs a command that must end with an exit code; returns stdout, and stderr.
fn ends(arguments: &[&str], exit: i32) -> (String, String) {
    let output = try_run(binary().as_os_str(), arguments, None).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(exit), "{}: {said}", arguments.join(" "));
    (String::from_utf8_lossy(&output.stdout).into_owned(), said)
}

fn passphrase_file(place: &Place, name: &str, passphrase: &str) -> String {
    let path = place.path(name);
    std::fs::write(&path, format!("{passphrase}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    text(&path).to_owned()
}

/// Writes to some places of the disk and its image in memory, and returns the name of a point that has it.
fn write(site: &Site, client: &mut Client, image: &mut [u8], fill: u8) -> String {
    for at in [0, 5 * MIB + 4096 * usize::from(fill), DISK - MIB] {
        let payload = vec![fill; MIB / 2];
        client.write(at as u64, &payload).unwrap();
        image[at..at + MIB / 2].copy_from_slice(&payload);
    }
    client.flush().unwrap();
    site.caught_up().unwrap()
}

fn holds(socket: &Path, image: &[u8]) {
    let mut client = Client::connect(socket, "").unwrap();
    for (at, wanted) in image.chunks(MIB).enumerate() {
        let found = client.read((at * MIB) as u64, MIB as u32).unwrap();
        assert!(found == wanted, "MiB {at} differs");
    }
}

#[test]
fn a_kit_alone_opens_the_vault_when_the_site_is_gone() {
    let place = Place::new();
    let (site, socket) = (Site::new(&place), place.path("erp.sock"));
    let disk = place.image("disk.img", DISK as u64);
    let (service, mut client) = site.protect(&disk, &socket, &[]).unwrap();
    let mut image = vec![0; DISK];
    let old = write(&site, &mut client, &mut image, 1);
    let old_image = image.clone();
    let (kit, vault) = (place.path("kit.txt"), text(&site.vault).to_owned());
    let phrase = passphrase_file(&place, "phrase", PASSPHRASE);
    let export = ["keys", "export-kit", text(&kit), "--vault", &vault, "--passphrase-file", &phrase];
    ends(&export, 0);
    assert!(ends(&export, REFUSED).1.contains("kit.txt"), "a kit never overwrites a file");
    // A new data key in the middle of it: the kit opens what is sealed with it as well.
    ends(&["keys", "rotate", "--vault", &vault], 0);
    assert!(service.terminate().unwrap().success());
    let (service, mut client) = site.protect(&disk, &socket, &[]).unwrap();
    let new = write(&site, &mut client, &mut image, 2);
    service.kill().unwrap();
    // The disaster: state, disk and key file are gone; the vault is found again at another place.
    std::fs::remove_dir_all(&site.state).unwrap();
    std::fs::remove_file(place.path("disk.img")).unwrap();
    let key = std::fs::read_to_string(place.path("vault.key")).unwrap();
    std::fs::remove_file(place.path("vault.key")).unwrap();
    let elsewhere = Site { state: place.path("s2"), vault: place.path("elsewhere") };
    std::fs::rename(&site.vault, &elsewhere.vault).unwrap();
    let with_kit = ["--recovery-kit", text(&kit), "--passphrase-file", &phrase];
    let at = ["--vault", text(&elsewhere.vault)];
    let both = [&with_kit[..], &at[..]].concat();
    let points = [&["points", "--format", "json"], &both[..]].concat();
    let list: Value = serde_json::from_str(&ends(&points, 0).0).unwrap();
    let names: Vec<&str> =
        list["points"].as_array().unwrap().iter().filter_map(|p| p["point"].as_str()).collect();
    assert!(names.contains(&old.as_str()) && names.contains(&new.as_str()), "{names:?}");
    for (point, image) in [(&old, &old_image), (&new, &image)] {
        let socket = place.path("point.sock");
        let mount = elsewhere.mount(point, &socket, &with_kit).unwrap();
        holds(&socket, image);
        assert!(mount.terminate().unwrap().success());
    }
    let checked =
        ends(&[&["keys", "check-kit", text(&kit), "--passphrase-file", &phrase], &at[..]].concat(), 0);
    assert!(checked.0.contains("opens, newest"), "{}", checked.0);
    ends(&[&["verify", &new], &both[..]].concat(), 0);
    ends(&[&["diff", &old, &new], &both[..]].concat(), 0);
    ends(&[&["vault-dump"], &both[..]].concat(), 0);
    // Replication goes on to it from another machine, which has never had a key file.
    let fresh = format!("erp={}", text(&place.image("fresh.img", DISK as u64)));
    let arguments = [&["--disk", &fresh], &with_kit[..]].concat();
    let service = elsewhere.up(&arguments).unwrap();
    elsewhere.caught_up().unwrap();
    let line = std::fs::read(format!("/proc/{}/cmdline", service.pid())).unwrap();
    let line = String::from_utf8_lossy(&line).into_owned();
    assert!(!line.contains(PASSPHRASE) && !line.contains(key.trim()));
    assert!(service.terminate().unwrap().success());
    assert!(!place.path("elsewhere.key").exists(), "no key file is made of a kit");
}

/// Runs a command at a terminal of its own and types an answer to each question; returns its code, what the terminal
/// showed, and whether it shows what is typed again.
fn at_a_terminal(arguments: &[&str], answers: &[&str]) -> (Option<i32>, String, bool) {
    let (mut near, mut far) = (0, 0);
    let (name, modes, size) = (std::ptr::null_mut(), std::ptr::null(), std::ptr::null());
    // SAFETY: two places for the new descriptors; the rest may be null.
    assert_eq!(unsafe { libc::openpty(&mut near, &mut far, name, modes, size) }, 0);
    // SAFETY: they are new, and nobody else's.
    let (near, far) = unsafe { (OwnedFd::from_raw_fd(near), OwnedFd::from_raw_fd(far)) };
    let mut command = Command::new(binary());
    command.args(arguments).stdin(far.try_clone().unwrap());
    command.stdout(far.try_clone().unwrap()).stderr(far.try_clone().unwrap());
    // SAFETY: both calls are safe between fork and exec.
    unsafe {
        command.pre_exec(|| match libc::setsid() >= 0 && libc::ioctl(0, libc::TIOCSCTTY, 0) == 0 {
            true => Ok(()),
            false => Err(std::io::Error::last_os_error()),
        });
    }
    let mut child = command.spawn().unwrap();
    let mut terminal = std::fs::File::from(near);
    let (mut shown, mut part) = (String::new(), [0; 4096]);
    for answer in answers {
        while !shown.ends_with(": ") {
            let read = terminal.read(&mut part).unwrap();
            shown += &String::from_utf8_lossy(&part[..read]);
        }
        shown.push('\n');
        terminal.write_all(answer.as_bytes()).unwrap();
    }
    let ended = child.wait().unwrap();
    // SAFETY: a place for the modes of an open terminal.
    let modes = unsafe {
        let mut modes = std::mem::zeroed();
        assert_eq!(libc::tcgetattr(far.as_raw_fd(), &mut modes), 0);
        modes
    };
    // With the last of the other ends closed reading comes to an end.
    drop((far, command));
    while let Ok(read @ 1..) = terminal.read(&mut part) {
        shown += &String::from_utf8_lossy(&part[..read]);
    }
    (ended.code(), shown, modes.c_lflag & libc::ECHO != 0)
}

#[test]
fn a_passphrase_is_typed_unseen_and_giving_up_leaves_the_terminal_as_it_was() {
    let place = Place::new();
    let site = Site::new(&place);
    let disk = format!("erp={}", text(&place.image("disk.img", MIB as u64)));
    let service = site.up(&["--disk", &disk]).unwrap();
    site.caught_up().unwrap();
    assert!(service.terminate().unwrap().success());
    let (kit, vault) = (place.path("kit.txt"), text(&site.vault).to_owned());
    let export = ["keys", "export-kit", text(&kit), "--vault", &vault];
    let typed = format!("{PASSPHRASE}\n");
    let (code, shown, _) = at_a_terminal(&export, &[&typed, "walrus pencil harbour tulips\n"]);
    assert!(code == Some(2) && shown.contains("differ") && !kit.exists(), "{shown}");
    let (code, shown, echoes) = at_a_terminal(&export, &[&typed, &typed]);
    assert!(code == Some(0) && echoes && !shown.contains("walrus"), "{shown}");
    let points = ["points", "--recovery-kit", text(&kit)];
    let (code, shown, _) = at_a_terminal(&points, &[&typed]);
    assert!(code == Some(0) && shown.contains("oldest reachable point"), "{shown}");
    // Whether the command catches signals or not.
    for command in ["points", "scrub"] {
        let (code, shown, echoes) = at_a_terminal(&[command, "--recovery-kit", text(&kit)], &["wal\x03"]);
        assert!(code == Some(5) && echoes && shown.contains("interrupted"), "{shown}");
    }
}

#[test]
fn a_kit_that_does_not_open_is_told_why_before_anything_is_touched() {
    let place = Place::new();
    let make = |name: &str| {
        let vault = place.path(name);
        let disk = format!("erp={}", text(&place.image(&format!("{name}.img"), 1 << 20)));
        let state = place.path(&format!("{name}.state"));
        let site = Site { state, vault };
        let service = site.up(&["--disk", &disk]).unwrap();
        site.caught_up().unwrap();
        assert!(service.terminate().unwrap().success());
        site
    };
    let (one, two) = (make("one"), make("two"));
    let phrase = passphrase_file(&place, "phrase", PASSPHRASE);
    let wrong = passphrase_file(&place, "wrong", "walrus pencil harbour tulips");
    let kit = place.path("kit.txt");
    let export = ["keys", "export-kit", text(&kit), "--vault", text(&one.vault)];
    ends(&[&export[..], &["--passphrase-file", &phrase]].concat(), 0);
    let short = passphrase_file(&place, "short", "secret");
    let other = place.path("other.txt");
    let weak = ["keys", "export-kit", text(&other), "--vault", text(&one.vault), "--passphrase-file", &short];
    assert!(ends(&weak, 2).1.contains("12 characters"));
    let key = std::fs::read_to_string(place.path("one.key")).unwrap();
    let whole = std::fs::read_to_string(&kit).unwrap();
    let mut lines: Vec<String> = whole.lines().map(str::to_owned).collect();
    let begin = lines.iter().position(|line| line.contains("BEGIN REDOUBT")).unwrap();
    let slip = &mut lines[begin + 2];
    let last = slip.pop().unwrap();
    slip.push(if last == '7' { '8' } else { '7' });
    let damaged = place.path("damaged.txt");
    std::fs::write(&damaged, lines.join("\n")).unwrap();
    let before = place.contents();
    for (kit, phrase, vault, what) in [
        (&kit, &wrong, &one, "does not open"),
        (&damaged, &phrase, &one, "line 2"),
        (&kit, &phrase, &two, "the recovery kit is of vault"),
    ] {
        let with = ["--recovery-kit", text(kit), "--passphrase-file", phrase, "--vault", text(&vault.vault)];
        for command in [&["points"][..], &["mount", "newest", "--listen", "unix:none"], &["keys", "list"]] {
            let (out, said) = ends(&[command, &with[..]].concat(), REFUSED);
            assert!(said.contains(what), "{said}");
            assert!(out.is_empty() && !said.contains(PASSPHRASE) && !said.contains(key.trim()), "{said}");
        }
        let (_, said) = ends(&[&["up", "--state", text(&place.path("none"))], &with[..]].concat(), REFUSED);
        assert!(said.contains(what), "{said}");
    }
    assert_eq!(place.contents(), before, "nothing was touched");
}

#[test]
fn the_vault_key_is_replaced_under_a_running_service_and_the_old_one_retired() {
    let place = Place::new();
    let (site, socket) = (Site::new(&place), place.path("erp.sock"));
    let disk = place.image("disk.img", DISK as u64);
    let (service, mut client) = site.protect(&disk, &socket, &[]).unwrap();
    let mut image = vec![0; DISK];
    write(&site, &mut client, &mut image, 1);
    let (vault, key) = (text(&site.vault).to_owned(), place.path("new.key"));
    let new_key = ["--vault", &vault, "--key", text(&key)];
    ends(&["keys", "rewrap", "--new-key", text(&key), "--vault", &vault], 0);
    // The service goes on with the old key, and both keys open what it writes.
    let point = write(&site, &mut client, &mut image, 2);
    assert!(site.points().unwrap().contains(&point));
    let (list, _) = ends(&[&["keys", "list", "--format", "json"], &new_key[..]].concat(), 0);
    let list: Value = serde_json::from_str(&list).unwrap();
    assert_eq!(list["vault_keys"][1]["state"], "in force", "{list}");
    assert_eq!(list["machines"][0]["data_keys"][0]["wrapped_by"], serde_json::json!([1, 2]));
    let old_retires = ends(&["keys", "retire", "--vault", &vault], REFUSED).1;
    assert!(old_retires.contains("replaced by vault key 2"), "{old_retires}");
    assert!(service.terminate().unwrap().success());
    let (service, mut client) = site.protect(&disk, &socket, &["--key", text(&key)]).unwrap();
    ends(&[&["keys", "retire"], &new_key[..]].concat(), 0);
    let point = write(&site, &mut client, &mut image, 3);
    let (_, said) = ends(&["points", "--vault", &vault], REFUSED);
    assert!(said.contains("vault key 1 was replaced by vault key 2"), "{said}");
    let socket = place.path("point.sock");
    let listen = format!("unix:{}", text(&socket));
    let mount = [&["mount", &point, "--listen", &listen], &new_key[..]].concat();
    let mount = Service::start(&mount).unwrap();
    holds(&socket, &image);
    assert!(mount.terminate().unwrap().success() && service.terminate().unwrap().success());
    run(binary(), &[&["verify"], &new_key[..]].concat()).unwrap();
}
