//! A disk that takes no more: the error says where and what to do, nothing is left behind, and once there is room
//! the same command works. A limit for files (`ulimit -f`) plays the full disk.
#![allow(clippy::disallowed_methods)]

use redoubt_e2e::service::Site;
use redoubt_e2e::{Place, binary, run, text, try_run};
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;

const UNREACHABLE: i32 = 3;
const FAILED: i32 = 5;
const MIB: usize = 1 << 20;

/// Runs a command that may write files of so many blocks of 512 bytes; returns its code and what it said.
fn limited(place: &Place, blocks: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let script = "ulimit -f $1; shift; exec \"$@\"";
    let redoubt = binary();
    let line = [&["-c", script, "sh", blocks, text(&redoubt)], arguments].concat();
    let output = try_run(OsStr::new("sh"), &line, Some(&place.path("."))).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(said.matches("error:").count(), 1, "{arguments:?}: {said}");
    (output.status.code(), said)
}

#[test]
fn a_disk_that_is_full_is_told_and_nothing_is_left_behind() {
    let place = Place::new();
    let (site, socket) = (Site::new(&place), place.path("erp.sock"));
    let image = place.image("disk.img", 8 * MIB as u64);
    let (service, mut client) = site.protect(&image, &socket, &[]).unwrap();
    client.write(MIB as u64, &vec![7; 4 * MIB]).unwrap();
    client.flush().unwrap();
    site.caught_up().unwrap();
    assert!(service.terminate().unwrap().success());
    let phrase = place.path("phrase");
    std::fs::write(&phrase, "walrus pencil harbour tulip\n").unwrap();
    std::fs::set_permissions(&phrase, std::fs::Permissions::from_mode(0o600)).unwrap();
    // The vault keeps the empty directory of a pin that came and went.
    let contents = || {
        let mut contents = place.contents();
        contents.retain(|path, _| !path.starts_with(&site.vault));
        contents
    };
    let before = contents();
    let at = ["--vault", text(&site.vault)];
    let export = [&["export", "newest", "out.img"][..], &at].concat();
    let kit = [&["keys", "export-kit", "kit.txt", "--passphrase-file", text(&phrase)][..], &at].concat();
    let mount = [&["mount", "newest", "--overlay", "--listen", "unix:m.sock"][..], &at].concat();
    for (blocks, command, exit, made) in [
        ("1024", &export, FAILED, "out.img.part"),
        ("0", &kit, FAILED, "recovery kit kit.txt"),
        ("1024", &mount, UNREACHABLE, "erp-"),
    ] {
        let (code, said) = limited(&place, blocks, command);
        assert_eq!(code, Some(exit), "{said}");
        assert!(said.contains(made) && said.contains("make room"), "{said}");
        // A socket that was listened at stays, as ever.
        let _ = std::fs::remove_file(place.path("m.sock"));
        assert!(contents() == before, "{command:?} left something behind");
    }
    run("sh", &["-c", &format!("cd {} && {} {}", text(&place.path(".")), text(&binary()), export.join(" "))])
        .unwrap();
}

#[test]
fn a_first_start_on_a_full_disk_leaves_no_key_that_is_none() {
    let place = Place::new();
    place.image("disk.img", MIB as u64);
    let up =
        ["up", "--disk", "erp=disk.img", "--vault", "vault", "--state", "state", "--listen", "unix:e.sock"];
    let (code, said) = limited(&place, "0", &up);
    assert_eq!(code, Some(FAILED), "{said}");
    assert!(said.contains("key file vault.key") && said.contains("make room"), "{said}");
    assert!(!place.path("vault.key").exists() && !place.path("vault").exists());
    // With room the same start works.
    let site = Site::new(&place);
    let disk = format!("erp={}", text(&place.path("disk.img")));
    let service = site.up(&["--disk", &disk]).unwrap();
    site.caught_up().unwrap();
    assert!(service.terminate().unwrap().success());
}

#[test]
fn output_that_is_cut_off_is_no_success() {
    let place = Place::new();
    let site = Site::new(&place);
    let disk = format!("erp={}", text(&place.image("disk.img", MIB as u64)));
    let service = site.up(&["--disk", &disk]).unwrap();
    site.caught_up().unwrap();
    assert!(service.terminate().unwrap().success());
    let points = format!("{} points --vault {}", text(&binary()), text(&site.vault));
    let ends = |redirect: &str| {
        let output = try_run(OsStr::new("sh"), &["-c", &format!("{points} {redirect}")], None).unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = ends("> /dev/full");
    assert_eq!(code, Some(FAILED), "{said}");
    assert!(said.contains("cannot write all of the output") && said.contains("help:"), "{said}");
    // A reader that has seen enough is no fault.
    assert_eq!(ends("| true"), (Some(0), String::new()));
}
