//! Images as a seed: the first copy sends what differs and nothing else, and no seed, however old or wrong, ever
//! shows in a recovery point.
#![allow(clippy::disallowed_methods)]

use redoubt_e2e::pair::Pair;
use redoubt_e2e::service::{Service, Site, status, watch};
use redoubt_e2e::{Place, binary, run, text, try_run};
use serde_json::Value;
use std::path::{Path, PathBuf};

const BLOCK: u64 = 64 << 10;
/// An end within a block.
const DISK_BYTES: u64 = 512 * BLOCK + 512;

/// Fills a file so that every block of it differs from every other and from those of other seeds.
fn fill(path: &Path, seed: u8, bytes: u64) {
    let mut content = vec![0; bytes as usize];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut content);
    std::fs::write(path, content).unwrap();
}

/// Changes a byte.
fn touch(path: &Path, at: u64) {
    let mut content = std::fs::read(path).unwrap();
    content[at as usize] ^= 0xff;
    std::fs::write(path, content).unwrap();
}

fn import(site: &Site, images: &[&str]) -> Value {
    let fixed = ["--state", text(&site.state), "--vault", text(&site.vault), "--format", "json"];
    let printed = run(binary(), &[&["import"], images, &fixed].concat()).unwrap();
    serde_json::from_str(&printed).unwrap()
}

/// Compares the newest point with a disk, byte by byte, and has it proven.
fn is_exact(place: &Place, vault: &Path, volume: &str, disk: &Path) {
    let image = place.path(&format!("{volume}-restored.img"));
    run(binary(), &["export", "newest", text(&image), "--volume", volume, "--vault", text(vault)]).unwrap();
    assert!(std::fs::read(&image).unwrap() == std::fs::read(disk).unwrap(), "{volume}");
    run(binary(), &["verify", "newest", "--vault", text(vault)]).unwrap();
}

fn up(place: &Place, site: &Site, disk: &Path) -> Service {
    let listen = format!("unix:{}", text(&place.path("erp.sock")));
    site.up(&["--disk", &format!("erp={}", text(disk)), "--listen", &listen]).unwrap()
}

#[test]
fn the_first_copy_behind_a_seed_sends_only_what_differs() {
    let place = Place::new();
    let (site, disk, seed) = (Site::new(&place), place.path("disk.img"), place.path("seed.qcow2"));
    fill(&disk, 1, DISK_BYTES);
    run("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", text(&disk), text(&seed)]).unwrap();
    let image = format!("erp={}", text(&seed));
    let put = |imported: Value| imported["disks"][0]["put_bytes"].as_u64();
    assert_eq!(put(import(&site, &[&image])), Some(DISK_BYTES));
    assert_eq!(put(import(&site, &[&image])), Some(0), "the vault has it all");
    assert_eq!(site.points().unwrap(), Vec::<String>::new(), "a seed is no point");
    for at in [0, 7 * BLOCK, 7 * BLOCK + 5, DISK_BYTES - 1] {
        touch(&disk, at);
    }
    let service = up(&place, &site, &disk);
    site.caught_up().unwrap();
    let status = site.status().unwrap();
    let copy = |what: &str| status["copy"][what].as_u64().unwrap();
    assert_eq!(copy("compared_bytes"), 513 * BLOCK);
    assert_eq!((copy("sent_bytes"), copy("equal_bytes")), (3 * BLOCK, 510 * BLOCK), "{status}");
    assert_eq!((&status["health"], &status["last_error"]), (&"ok".into(), &Value::Null));
    assert!(service.terminate().unwrap().success());
    is_exact(&place, &site.vault, "erp", &disk);
}

#[test]
fn a_wrong_seed_costs_nothing_but_time() {
    let place = Place::new();
    let (disk, other) = (place.path("disk.img"), place.path("other.img"));
    fill(&disk, 1, DISK_BYTES);
    // Another disk's content that ends before the disk does, and behind it.
    for (number, bytes) in [DISK_BYTES / 2 / 512 * 512, DISK_BYTES + 9 * BLOCK].into_iter().enumerate() {
        let site =
            Site { state: place.path(&format!("s{number}")), vault: place.path(&format!("v{number}")) };
        fill(&other, 2, bytes);
        import(&site, &[&format!("erp={}", text(&other))]);
        let service = up(&place, &site, &disk);
        site.caught_up().unwrap();
        assert_eq!(site.status().unwrap()["copy"]["sent_bytes"].as_u64(), Some(513 * BLOCK));
        // It goes on after a crash as if there had been no seed.
        service.kill().unwrap();
        let service = up(&place, &site, &disk);
        site.caught_up().unwrap();
        assert!(service.terminate().unwrap().success());
        let restored = place.path("erp-restored.img");
        is_exact(&place, &site.vault, "erp", &disk);
        std::fs::remove_file(restored).unwrap();
    }
}

#[test]
fn a_seed_is_brought_to_the_process_servers_site() {
    let place = Place::new();
    let disks: Vec<PathBuf> = ["erp", "web"].map(|name| place.path(&format!("{name}.img"))).into();
    for (number, disk) in disks.iter().enumerate() {
        fill(disk, number as u8, 20 * BLOCK);
        std::fs::copy(disk, disk.with_extension("carried")).unwrap();
    }
    let more = format!("[[disk]]\nname = \"web\"\npath = {:?}\n", disks[1]);
    // Settings and import name the disks in different orders.
    let (pair, server) = Pair::new(&place, text(&disks[0]), &more).unwrap();
    let vault = ["--vault", text(&pair.vault), "--format", "json"];
    let images =
        ["web", "erp"].map(|name| format!("{name}={}", text(&place.path(&format!("{name}.carried")))));
    let arguments = [&["import", &images[0], &images[1], "--new-machine"], &vault[..]].concat();
    let imported: Value = serde_json::from_str(&run(binary(), &arguments).unwrap()).unwrap();
    let machine = imported["machine"].as_str().unwrap();
    let agent = pair.start_agent(&["--machine", machine]).unwrap();
    pair.caught_up().unwrap();
    let status = status(&pair.agent_state).unwrap();
    assert_eq!((&status["machine"], &status["copy"]["sent_bytes"]), (&machine.into(), &0.into()), "{status}");
    // Now it is protected: an import is refused, and the running service goes on.
    let again = [&["import", &images[0], "--machine", machine], &vault[..]].concat();
    let output = try_run(binary().as_os_str(), &again, None).unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stderr).contains("protected already"));
    watch(&pair.server_state, |status| status["health"] == "ok").unwrap();
    assert!(agent.terminate().unwrap().success() && server.terminate().unwrap().success());
    is_exact(&place, &pair.vault, "erp", &disks[0]);
    is_exact(&place, &pair.vault, "web", &disks[1]);
}
