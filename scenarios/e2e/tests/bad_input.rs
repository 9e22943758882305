//! Wrong input: one clear error, the promised exit code, and nothing changed.
#![allow(clippy::disallowed_methods)]

use redoubt_e2e::service::Site;
use redoubt_e2e::{Place, binary, text, try_run};

const USAGE: i32 = 2;
const UNREACHABLE: i32 = 3;
const REFUSED: i32 = 4;

/// Runs a command that must fail, and returns its stderr.
fn refused(place: &Place, exit: i32, words: &str, arguments: &[&str]) -> String {
    let before = place.names();
    let output = try_run(binary().as_os_str(), arguments, Some(&place.path("."))).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = arguments.join(" ");
    assert_eq!(output.status.code(), Some(exit), "redoubt {line}\n{stderr}");
    assert!(stderr.contains(words), "redoubt {line} must say {words:?}:\n{stderr}");
    assert_eq!(stderr.matches("error:").count(), 1, "redoubt {line} must give one error:\n{stderr}");
    assert!(output.stdout.is_empty(), "redoubt {line} must print no data");
    assert_eq!(place.names(), before, "redoubt {line} must change nothing");
    stderr
}

#[test]
fn a_wrong_disk_is_named_and_nothing_is_made() {
    let place = Place::new();
    place.image("odd.img", 1000);
    place.image("empty.img", 0);
    place.image("ok.img", 1 << 20);
    refused(&place, UNREACHABLE, "none.img", &["up", "--disk", "a=none.img"]);
    refused(&place, REFUSED, "not a multiple of the 512-byte sector", &["up", "--disk", "a=odd.img"]);
    refused(&place, REFUSED, "its size is zero", &["up", "--disk", "a=empty.img"]);
    refused(&place, REFUSED, "neither an image file nor a block device", &["up", "--disk", "a=/dev/null"]);
    refused(&place, USAGE, "NAME=PATH", &["up", "--disk", "ok.img"]);
    refused(&place, USAGE, "no disk to protect", &["up"]);
    refused(&place, USAGE, "two disks are called", &["up", "--disk", "a=ok.img", "--disk", "a=odd.img"]);
    refused(&place, REFUSED, "is protected as", &["up", "--disk", "a=ok.img", "--disk", "b=ok.img"]);
}

#[test]
fn a_missing_directory_or_option_is_named_with_a_remedy() {
    let place = Place::new();
    place.image("ok.img", 1 << 20);
    let up = ["up", "--disk", "a=ok.img"];
    refused(&place, UNREACHABLE, "mkdir -p no", &[&up[..], &["--state", "no/such"]].concat());
    refused(&place, UNREACHABLE, "mkdir -p no", &[&up[..], &["--vault", "no/such"]].concat());
    refused(&place, UNREACHABLE, "does not exist", &[&up[..], &["--listen", "unix:no/x.sock"]].concat());
    refused(&place, USAGE, "'--vault'", &[&up[..], &["--vualt", "x"]].concat());
    refused(&place, USAGE, "500ms, 15s or 5m", &[&up[..], &["--point-interval", "15"]].concat());
    refused(&place, USAGE, "no vault is given", &["points"]);
    refused(&place, UNREACHABLE, "no vault directory", &["points", "--vault", "v"]);
    refused(&place, UNREACHABLE, "no service runs", &["status"]);
}

#[test]
fn every_mistake_of_a_settings_file_is_shown_where_it_is() {
    let place = Place::new();
    std::fs::write(place.path("r.toml"), "vualt = \"v\"\npoint-interval = \"15\"\n").unwrap();
    let output =
        try_run(binary().as_os_str(), &["up", "--config", "r.toml"], Some(&place.path("."))).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(USAGE));
    for words in ["r.toml:1:1", "did you mean `vault`?", "^^^^^", "r.toml:2:18"] {
        assert!(stderr.contains(words), "{words:?} is missing in:\n{stderr}");
    }
}

#[test]
fn a_taken_disk_state_or_address_is_refused() {
    let place = Place::new();
    place.image("ok.img", 1 << 20);
    place.image("other.img", 1 << 20);
    let site = Site::new(&place);
    let listen = format!("unix:{}", text(&place.path("a.sock")));
    let disk = format!("a={}", text(&place.path("ok.img")));
    let service = site.up(&["--disk", &disk, "--listen", &listen]).unwrap();
    let state = text(&site.state).to_owned();
    let second = ["up", "--state", "s2", "--vault", "v2", "--disk"];
    let try_second = |words: &str, more: &[&str]| {
        let output =
            try_run(binary().as_os_str(), &[&second[..], more].concat(), Some(&place.path("."))).unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(REFUSED), "{stderr}");
        assert!(stderr.contains(words), "{stderr}");
        assert!(!place.path("s2").exists() && !place.path("v2").exists(), "nothing may be made");
    };
    try_second("another process uses this disk", &["b=ok.img"]);
    try_second("is in use by another process", &["b=other.img", "--listen", &listen]);
    let output = try_run(
        binary().as_os_str(),
        &["up", "--state", &state, "--vault", "v2", "--disk", "b=other.img"],
        Some(&place.path(".")),
    );
    assert_eq!(output.unwrap().status.code(), Some(REFUSED));
    assert!(!place.path("v2").exists());
    assert!(service.terminate().unwrap().success());
}

#[test]
fn a_wrong_key_a_damaged_state_and_a_foreign_vault_are_refused_unchanged() {
    let place = Place::new();
    let disk = format!("a={}", text(&place.image("ok.img", 1 << 20)));
    let site = Site::new(&place);
    let service = site.up(&["--disk", &disk]).unwrap();
    site.caught_up().unwrap();
    assert!(service.terminate().unwrap().success());
    let vault = text(&site.vault).to_owned();
    std::fs::write(place.path("wrong.key"), format!("{}\n", "5a".repeat(32))).unwrap();
    std::fs::write(place.path("torn.key"), "5a5a").unwrap();
    let points = ["points", "--vault", &vault];
    refused(&place, REFUSED, "wrong vault key", &[&points[..], &["--key", "wrong.key"]].concat());
    refused(&place, REFUSED, "key file torn.key is damaged", &[&points[..], &["--key", "torn.key"]].concat());
    refused(&place, UNREACHABLE, "no.key", &[&points[..], &["--key", "no.key"]].concat());
    let up = ["up", "--state", "s2", "--disk", "b=other.img", "--vault", &vault];
    place.image("other.img", 1 << 20);
    refused(&place, REFUSED, "wrong vault key", &[&up[..], &["--key", "wrong.key"]].concat());
    refused(
        &place,
        REFUSED,
        "no recovery point 99.0",
        &["mount", "99.0", "--vault", &vault, "--listen", "unix:m"],
    );
    refused(
        &place,
        REFUSED,
        "no volume \"b\"",
        &["export", "newest", "x.img", "--volume", "b", "--vault", &vault],
    );
    place.image("there.img", 512);
    refused(&place, REFUSED, "exists already", &["export", "newest", "there.img", "--vault", &vault]);
    let record = site.state.join("redoubt.json");
    let good = std::fs::read(&record).unwrap();
    std::fs::write(&record, &good[..good.len() / 2]).unwrap();
    let again = ["up", "--state", text(&site.state), "--vault", &vault];
    refused(&place, REFUSED, "redoubt.json is unusable", &again);
}
