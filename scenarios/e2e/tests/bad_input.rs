//! Wrong input: one clear error, the promised exit code, and nothing changed.
#![allow(clippy::disallowed_methods)]

use redoubt_e2e::service::Site;
use redoubt_e2e::{Place, binary, text, try_run};

const USAGE: i32 = 2;
const UNREACHABLE: i32 = 3;
const REFUSED: i32 = 4;
const FAILED: i32 = 5;

/// Runs a command that must fail, and returns its stderr.
fn refused(place: &Place, exit: i32, words: &str, arguments: &[&str]) -> String {
    let before = place.contents();
    let output = try_run(binary().as_os_str(), arguments, Some(&place.path("."))).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = arguments.join(" ");
    assert_eq!(output.status.code(), Some(exit), "redoubt {line}\n{stderr}");
    assert!(stderr.contains(words), "redoubt {line} must say {words:?}:\n{stderr}");
    assert_eq!(stderr.matches("error:").count(), 1, "redoubt {line} must give one error:\n{stderr}");
    assert!(output.stdout.is_empty(), "redoubt {line} must print no data");
    assert!(place.contents() == before, "redoubt {line} must change nothing");
    assert!(stderr.lines().count() < 2 || stderr.contains("help:") || exit == USAGE, "what to do?\n{stderr}");
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
    refused(&place, USAGE, "is no age and no time", &["points", "--since", "soon"]);
    refused(&place, USAGE, "--last", &["points", "--last", "0"]);
    refused(&place, UNREACHABLE, "no vault directory", &["points", "--vault", "v"]);
    refused(&place, UNREACHABLE, "no service runs", &["status"]);
    refused(&place, UNREACHABLE, "no vault directory", &["verify", "--vault", "v"]);
    std::fs::create_dir(place.path("other")).unwrap();
    refused(&place, UNREACHABLE, "there is no vault", &["points", "--vault", "other"]);
    refused(&place, UNREACHABLE, "no vault directory", &["vault-dump", "--vault", "v"]);
    refused(&place, USAGE, "no name of an object", &["vault-dump", "Vault", "--vault", "v"]);
}

#[test]
fn an_image_that_is_no_seed_is_named_and_nothing_is_made() {
    let place = Place::new();
    place.image("odd.img", 1000);
    place.image("ok.img", 1 << 20);
    let qcow2 = |name: &str, more: &[&str]| {
        let path = place.path(name);
        redoubt_e2e::run("qemu-img", &[&["create", "-q", "-f", "qcow2"], more, &[text(&path), "1M"]].concat())
    };
    qcow2("base.qcow2", &[]).unwrap();
    qcow2("half.qcow2", &["-b", text(&place.path("base.qcow2")), "-F", "qcow2"]).unwrap();
    qcow2("raw.img", &[]).unwrap();
    let import = |exit, words, more: &[&str]| {
        refused(&place, exit, words, &[&["import", "--vault", "v"], more].concat());
    };
    import(UNREACHABLE, "none.img", &["a=none.img"]);
    import(UNREACHABLE, "none.qcow2", &["a=none.qcow2"]);
    import(REFUSED, "not a multiple of the 512-byte sector", &["a=odd.img"]);
    import(REFUSED, "backing file", &["a=half.qcow2"]);
    import(REFUSED, "begins as a qcow2 one", &["a=raw.img"]);
    import(REFUSED, "no qcow2 image", &["a=ok.img", "--from-format", "qcow2"]);
    import(USAGE, "NAME=PATH", &["ok.img"]);
    import(USAGE, "two images are of disk", &["a=ok.img", "a=base.qcow2"]);
    import(USAGE, "cannot be used with", &["a=ok.img", "--new-machine", "--machine", &"0".repeat(32)]);
    refused(&place, USAGE, "no vault is given", &["import", "a=ok.img"]);
}

#[test]
fn a_monitoring_system_is_told_that_nothing_is_known() {
    let place = Place::new();
    let output = try_run(binary().as_os_str(), &["status", "--check"], Some(&place.path("."))).unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    // The interface's own code for "unknown".
    assert_eq!(output.status.code(), Some(3), "{stdout}");
    assert!(
        stdout.starts_with("REDOUBT UNKNOWN - no service runs") && stdout.lines().count() == 1,
        "{stdout}"
    );
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
    std::fs::write(place.path("d.toml"), "[[disk]]\nname = \"a\"\npath = \"a.img\"\nsize = \"1GiB\"\n")
        .unwrap();
    let up = ["up", "--config", "d.toml"];
    let shown = refused(&place, USAGE, "d.toml:4:1", &up);
    assert!(shown.contains("unknown setting `size`") && shown.contains("known here: name, path"), "{shown}");
    refused(&place, UNREACHABLE, "none.toml", &["agent", "--config", "none.toml"]);
}

#[test]
fn programs_get_every_error_as_json() {
    let place = Place::new();
    for (exit, words, arguments) in [
        (USAGE, "unexpected argument '--vualt' found", &["up", "--vualt", "x", "--format", "json"][..]),
        (USAGE, "unrecognized subcommand", &["upp", "--format=json"][..]),
        (UNREACHABLE, "no vault directory v", &["points", "--vault", "v", "--format", "json"][..]),
    ] {
        let output = try_run(binary().as_os_str(), arguments, Some(&place.path("."))).unwrap();
        let error: serde_json::Value = serde_json::from_slice(&output.stderr).expect("one JSON value");
        assert!(error["error"].as_str().unwrap().contains(words), "{error}");
        assert_eq!((output.status.code(), error["exit"].as_i64()), (Some(exit), Some(i64::from(exit))));
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
    let key = format!("{}.key", text(&site.vault));
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = format!("tcp:{}", port.local_addr().unwrap());
    let (up, other) = (["up", "--vault", "v2"], ["--disk", "b=other.img"]);
    let agent = ["agent", "--key", &key, "--process-server", "unix:none"];
    let server = ["process-server", "--vault", "v2", "--state", "s2", "--listen"];
    let refused = |words: &str, command: [&[&str]; 3]| {
        let command = command.concat();
        let output = try_run(binary().as_os_str(), &command, Some(&place.path("."))).unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(REFUSED), "{command:?}\n{stderr}");
        assert!(stderr.contains(words) && stderr.contains("help:"), "{command:?}\n{stderr}");
        for made in ["s2", "v2", "v2.key"] {
            assert!(!place.path(made).exists(), "{command:?} must not make {made}");
        }
    };
    let s2 = &["--state", "s2"][..];
    // Two writers of one disk: the second one would lose what the first one captured.
    for role in [&up[..], &agent[..]] {
        refused("another process uses this disk", [role, s2, &["--disk", "b=ok.img"]]);
    }
    refused("is in use by another process", [&up, s2, &[&other[..], &["--listen", &listen]].concat()]);
    refused(&taken, [&up, s2, &[&other[..], &["--listen", &taken]].concat()]);
    refused(&taken, [&server, &[&taken], &[]]);
    refused("used by another redoubt process", [&up, &["--state", &state], &other]);
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
    refused(&place, REFUSED, "no recovery point 99.0", &["verify", "99.0", "--vault", &vault]);
    refused(&place, REFUSED, "no recovery point 99.0", &["diff", "newest", "99.0", "--vault", &vault]);
    refused(
        &place,
        REFUSED,
        "neither point holds a volume \"b\"",
        &["diff", "newest", "newest", "--volume", "b", "--vault", &vault],
    );
    refused(&place, REFUSED, "no object's name begins with", &["vault-dump", "zz", "--vault", &vault]);
    refused(
        &place,
        USAGE,
        "a vmdk image cannot be written",
        &["export", "newest", "x.vmdk", "--vault", &vault],
    );
    for command in ["verify", "vault-dump"] {
        let wrong = [command, "--vault", &vault, "--key", "wrong.key"];
        refused(&place, REFUSED, "wrong vault key", &wrong);
    }
    place.image("there.img", 512);
    refused(&place, REFUSED, "exists already", &["export", "newest", "there.img", "--vault", &vault]);
    let said = refused(&place, REFUSED, "exists already", &["export", "newest", ".", "--vault", &vault]);
    assert!(said.contains("a new file in that directory"), "{said}");
    let again = ["up", "--state", text(&site.state), "--vault", &vault];
    damaged(&place, &site.state.join("redoubt.json"), REFUSED, "redoubt.json is unusable", &again);
    let header = site.vault.join("vault");
    let good = std::fs::read(&header).unwrap();
    let mut newer = good.clone();
    newer[8] += 1;
    let end = newer.len() - 4;
    let crc = crc32c(&newer[..end]);
    newer[end..].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(&header, newer).unwrap();
    for command in [
        &points[..],
        &again[..],
        &["process-server", "--vault", &vault, "--listen", "unix:p", "--state", "s3"],
    ] {
        refused(&place, REFUSED, "vault has format 2.x, this program knows 1.x", command);
    }
    std::fs::write(&header, good).unwrap();
    // Its twin alone would do.
    std::fs::remove_file(site.vault.join("vault.twin")).unwrap();
    damaged(&place, &header, FAILED, "vault is damaged", &points);
}

/// The checksum of the vault's objects, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32| (0..8).fold(crc, |crc, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()));
    !bytes.iter().fold(!0, |crc, byte| step(crc ^ u32::from(*byte)))
}

/// Cuts a file short, then flips a bit in the middle: each is refused with these words, and nothing changes.
fn damaged(place: &Place, file: &std::path::Path, exit: i32, words: &str, command: &[&str]) {
    let good = std::fs::read(file).unwrap();
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    for wrong in [&good[..good.len() / 2], &flipped] {
        std::fs::write(file, wrong).unwrap();
        refused(place, exit, words, command);
    }
    std::fs::write(file, good).unwrap();
}
