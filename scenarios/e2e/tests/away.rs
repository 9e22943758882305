//! A vault that is not there when its service starts: the disks are served all the same, the status says so, nothing is
//! made in its place, and what was written meanwhile becomes a recovery point when it is back.
#![allow(clippy::disallowed_methods)]

use redoubt_e2e::nbd::Client;
use redoubt_e2e::servers::Server;
use redoubt_e2e::service::Site;
use redoubt_e2e::{Place, binary, run, text};
use serde_json::Value;
use std::path::PathBuf;

const DISK_BYTES: u64 = 1 << 20;

fn write(place: &Place, byte: u8) {
    let mut client = Client::connect(&place.path("erp.sock"), "erp").unwrap();
    client.write(u64::from(byte) * 4096, &[byte; 4096]).unwrap();
    client.flush().unwrap();
}

/// Fails unless a status says that nothing is known of the points, and why.
fn is_away(status: &Value, why: &str) {
    assert_eq!((&status["points"], &status["newest_point"]), (&Value::Null, &Value::Null), "{status}");
    assert_eq!(status["health"], "warning", "{status}");
    assert!(status["last_error"].as_str().unwrap_or_default().contains(why), "{status}");
}

#[test]
fn disks_are_served_while_the_vault_is_not_mounted_and_none_is_made() {
    let place = Place::new();
    let site = Site::new(&place);
    let (disk, elsewhere) = (place.image("disk.img", DISK_BYTES), place.path("elsewhere"));
    let (disk, listen) = (format!("erp={}", text(&disk)), format!("unix:{}", text(&place.path("erp.sock"))));
    let options = ["--disk", &disk, "--listen", &listen];
    let service = site.up(&options).unwrap();
    write(&place, 1);
    site.caught_up().unwrap();
    assert!(service.terminate().unwrap().success());
    std::fs::rename(&site.vault, &elsewhere).unwrap();
    // First there is nothing, then an empty mount point, then the vault.
    let service = site.up(&options).unwrap();
    write(&place, 2);
    is_away(&site.status().unwrap(), "vault");
    std::fs::create_dir(&site.vault).unwrap();
    is_away(&site.status().unwrap(), "is it mounted?");
    write(&place, 3);
    assert_eq!(std::fs::read_dir(&site.vault).unwrap().count(), 0);
    std::fs::remove_dir(&site.vault).unwrap();
    std::fs::rename(&elsewhere, &site.vault).unwrap();
    site.watch(|status| status["connected"] == true && status["health"] == "ok").unwrap();
    let point = site.caught_up().unwrap();
    assert!(service.terminate().unwrap().success());
    let image = place.path("restored.img");
    run(binary(), &["export", &point, text(&image), "--vault", text(&site.vault)]).unwrap();
    assert!(std::fs::read(image).unwrap() == std::fs::read(place.path("disk.img")).unwrap());
}

#[test]
fn disks_are_served_while_the_vaults_server_does_not_answer() {
    let place = Place::new();
    let server = Server::moto(&place).unwrap();
    let url = format!("{}/erp", server.holder("vaults").unwrap());
    let site = Site { state: place.path("state"), vault: PathBuf::from(url) };
    let disk = format!("erp={}", text(&place.image("disk.img", DISK_BYTES)));
    let (key, listen) = (place.path("vault.key"), format!("unix:{}", text(&place.path("erp.sock"))));
    let own = ["--disk", &disk, "--listen", &listen, "--key", text(&key)];
    let up = |server: &[&str]| site.up(&[&own, server].concat()).unwrap();
    let service = up(&server.options());
    site.caught_up().unwrap();
    assert!(service.terminate().unwrap().success());
    // It takes connections and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let service = up(&["--vault-endpoint", &endpoint, "--vault-credentials", text(&server.credentials)]);
    write(&place, 2);
    is_away(&site.status().unwrap(), "did not answer");
    assert!(service.terminate().unwrap().success());
    let service = up(&server.options());
    let point = site.caught_up().unwrap();
    assert!(service.terminate().unwrap().success());
    let image = place.path("restored.img");
    let vault = ["--vault", text(&site.vault), "--key", text(&key)];
    run(binary(), &[&["export", &point, text(&image)], &vault[..], &server.options()].concat()).unwrap();
    assert!(std::fs::read(image).unwrap()[2 * 4096..3 * 4096] == [2; 4096]);
}
