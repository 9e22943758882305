//! An agent's own files, damaged between two runs: either a clear refusal, or a start that loses nothing.
#![allow(clippy::disallowed_methods)]

use redoubt_e2e::nbd::Client;
use redoubt_e2e::pair::Pair;
use redoubt_e2e::{Place, binary, run, text, try_run};
use std::path::{Path, PathBuf};

const DISK_BYTES: u64 = 4 << 20;
const REFUSED: i32 = 4;
/// Bytes of one of the two slots of `agent.state`.
const SLOT_BYTES: usize = 16 << 10;

#[derive(Clone, Copy, Debug)]
enum Damage {
    Cut,
    Flip(usize),
}

fn damage(file: &Path, how: Damage) {
    let mut bytes = std::fs::read(file).unwrap();
    match how {
        Damage::Cut => bytes.truncate(bytes.len() / 2 + 100),
        Damage::Flip(at) => bytes[at] ^= 1,
    }
    std::fs::write(file, bytes).unwrap();
}

fn file_of(directory: &Path, prefix: &str) -> PathBuf {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    let mut files = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    let file = files.next().unwrap_or_else(|| panic!("no {prefix} in {}", directory.display()));
    file.path()
}

/// Runs an agent that cannot reach its process server and dies with a spill: every kind of file is there.
fn leave_a_spill(pair: &Pair) {
    let agent =
        pair.start_agent(&["--process-server", "unix:/nonexistent", "--memory-max", "64KiB"]).unwrap();
    let mut client = Client::connect(&pair.socket, "erp").unwrap();
    for n in 0..32u64 {
        client.write(n * 65536, &[n as u8 + 1; 65536]).unwrap();
    }
    client.flush().unwrap();
    agent.kill().unwrap();
}

#[test]
fn a_damaged_log_spill_or_slot_costs_a_compare_and_loses_nothing() {
    for (prefix, how) in [
        ("extents-", Damage::Flip(60)),
        ("extents-", Damage::Cut),
        ("spill-", Damage::Flip(100_000)),
        ("spill-", Damage::Cut),
        ("agent.state", Damage::Flip(10)),
        ("agent.state", Damage::Flip(SLOT_BYTES + 10)),
    ] {
        let place = Place::new();
        let image = place.image("disk.img", DISK_BYTES);
        let (pair, server) = Pair::new(&place, text(&image), "").unwrap();
        leave_a_spill(&pair);
        damage(&file_of(&pair.agent_state.join("agent"), prefix), how);
        let agent = pair.start_agent(&[]).unwrap();
        let point = pair.caught_up().unwrap();
        assert!(agent.terminate().unwrap().success());
        assert!(server.terminate().unwrap().success());
        let recovered = place.path("recovered.img");
        run(binary(), &["export", &point, text(&recovered), "--vault", text(&pair.vault)]).unwrap();
        let same = std::fs::read(&recovered).unwrap() == std::fs::read(&image).unwrap();
        assert!(same, "{prefix} with {how:?}: point {point} differs from the disk");
    }
}

#[test]
fn a_record_of_which_nothing_is_left_is_refused_and_nothing_changes() {
    let place = Place::new();
    let image = place.image("disk.img", DISK_BYTES);
    let (pair, _server) = Pair::new(&place, text(&image), "").unwrap();
    leave_a_spill(&pair);
    let state = pair.agent_state.join("agent").join("agent.state");
    damage(&state, Damage::Flip(10));
    damage(&state, Damage::Flip(SLOT_BYTES + 10));
    let before = place.contents();
    let settings = text(&place.path("agent.toml")).to_owned();
    let command = ["agent", "--config", &settings];
    let output = try_run(binary().as_os_str(), &command, None).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(REFUSED), "{stderr}");
    assert!(stderr.contains("agent.state") && stderr.contains("help:"), "{stderr}");
    let changed: Vec<_> =
        place.contents().into_iter().filter(|(name, hash)| before.get(name) != Some(hash)).collect();
    assert!(changed.is_empty(), "a refused start changes nothing: {changed:?}");
}
