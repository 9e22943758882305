//! Mounted points: several at once, with and without an overlay, ended in every way a mount can end.
#![allow(clippy::disallowed_methods)]

use redoubt_e2e::nbd::Client;
use redoubt_e2e::service::Site;
use redoubt_e2e::{Place, binary, text, try_run};
use std::path::Path;

const REFUSED: i32 = 4;
const MIB: usize = 1 << 20;

/// A vault with two points of a small disk: its first MiB is all 1, then all 2.
fn two_points(place: &Place) -> (Site, String, String) {
    let image = place.image("disk.img", 16 << 20);
    let (site, socket) = (Site::new(place), place.path("erp.sock"));
    let (service, mut client) = site.protect(&image, &socket, &[]).unwrap();
    let mut point_of = |fill: u8| {
        client.write(0, &vec![fill; MIB]).unwrap();
        client.flush().unwrap();
        site.caught_up().unwrap()
    };
    let (old, new) = (point_of(1), point_of(2));
    assert!(service.terminate().unwrap().success());
    (site, old, new)
}

fn holds(client: &mut Client, offset: u64, fill: u8) {
    let found = client.read(offset, 4096).unwrap();
    assert!(found.iter().all(|byte| *byte == fill), "expected {fill} at {offset}, found {}", found[0]);
}

#[test]
fn points_are_mounted_side_by_side_and_do_not_see_each_others_writes() {
    let place = Place::new();
    let (site, old, new) = two_points(&place);
    let file = |name: &str| text(&place.path(name)).to_owned();
    let socket = |name: &str| place.path(name);
    let one = site.mount(&old, &socket("1.sock"), &[]).unwrap();
    let two = site.mount(&new, &socket("2.sock"), &[]).unwrap();
    let three = site.mount(&new, &socket("3.sock"), &["--overlay", "--overlay-file", &file("3.ov")]).unwrap();
    let small = ["--overlay", "--overlay-file", &file("4.ov"), "--overlay-max", "1MiB"];
    let four = site.mount(&new, &socket("4.sock"), &small).unwrap();
    let mut clients =
        ["1.sock", "2.sock", "3.sock", "4.sock"].map(|name| Client::connect(&socket(name), "").unwrap());
    clients[2].write(0, &vec![3; MIB]).unwrap();
    clients[3].write(0, &vec![4; MIB]).unwrap();
    // The bound of one overlay is felt by its own clients only, and what it holds stays usable.
    let refused = clients[3].write(2 << 20, &vec![4; 4096]).unwrap_err().to_string();
    assert!(refused.contains(&format!("error {}", libc::ENOSPC)), "{refused}");
    clients[3].write(4096, &vec![5; 4096]).unwrap();
    clients[2].write(2 << 20, &vec![3; 4096]).unwrap();
    for (client, fill) in clients.iter_mut().zip([1, 2, 3, 4]) {
        client.flush().unwrap();
        holds(client, 0, fill);
    }
    holds(&mut clients[3], 4096, 5);
    holds(&mut clients[3], 2 << 20, 0);
    assert!(clients[0].write(0, &[1; 512]).is_err(), "a mount without overlay takes no writes");
    // Clients are still connected: a stop does not wait for them.
    for (mount, ctrl_c) in [(one, true), (two, false), (three, true), (four, false)] {
        let ended = if ctrl_c { mount.interrupt() } else { mount.terminate() };
        assert!(ended.unwrap().success());
    }
    for name in ["1.sock", "2.sock", "3.sock", "4.sock", "3.ov", "4.ov"] {
        assert!(!place.path(name).exists(), "{name} must be gone with its mount");
    }
}

#[test]
fn an_overlay_outlives_a_killed_mount_and_serves_its_own_point_only() {
    let place = Place::new();
    let (site, old, new) = two_points(&place);
    let (socket, file) = (place.path("m.sock"), place.path("m.ov"));
    let overlay = ["--overlay", "--overlay-file", text(&file)];
    let mount = site.mount(&old, &socket, &overlay).unwrap();
    let mut client = Client::connect(&socket, "").unwrap();
    client.write(4096, &[7; 8192]).unwrap();
    client.flush().unwrap();
    let second =
        try_mount(&place, &site, &old, &["--listen", "unix:n.sock", "--overlay", "--overlay-file", "m.ov"]);
    assert!(second.contains("in use by another process"), "{second}");
    mount.kill().unwrap();
    assert!(file.exists());
    // The file of one point is refused for another, for another file's content, and when it is damaged.
    let good = std::fs::read(&file).unwrap();
    let again = ["--listen", "unix:n.sock", "--overlay", "--overlay-file", "m.ov"];
    assert!(try_mount(&place, &site, &new, &again).contains("of another recovery point"));
    let damage = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 4;
        std::fs::write(&file, bytes).unwrap();
    };
    // In the header, then in the first sector of the log.
    for at in [30, 4096 + 30] {
        damage(at);
        let refused = try_mount(&place, &site, &old, &again);
        assert!(refused.contains("m.ov") && refused.contains("is damaged"), "{refused}");
    }
    std::fs::write(&file, &good[..good.len() - 512]).unwrap();
    assert!(try_mount(&place, &site, &old, &again).contains("shorter than its header says"));
    let image = ["--listen", "unix:n.sock", "--overlay", "--overlay-file", "disk.img"];
    assert!(try_mount(&place, &site, &old, &image).contains("it is no overlay"));
    std::fs::write(&file, &good).unwrap();
    let mount = site.mount(&old, &socket, &overlay).unwrap();
    let mut client = Client::connect(&socket, "").unwrap();
    for (offset, fill) in [(0, 1), (4096, 7), (8192, 7), (12288, 1)] {
        holds(&mut client, offset, fill);
    }
    assert!(mount.terminate().unwrap().success());
    assert!(!file.exists() && !socket.exists());
}

/// Runs a mount that must be refused without a change, and returns what it says.
fn try_mount(place: &Place, site: &Site, point: &str, more: &[&str]) -> String {
    let before = place.contents();
    let arguments = [&["mount", point, "--vault", text(&site.vault)], more].concat();
    let output = try_run(binary().as_os_str(), &arguments, Some(Path::new(text(&place.path("."))))).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(REFUSED), "{stderr}");
    assert_eq!(stderr.matches("error:").count(), 1, "{stderr}");
    assert!(stderr.contains("help:"), "{stderr}");
    assert!(place.contents() == before, "a refused mount changes nothing");
    stderr
}
