//! A block device instead of an image: a loop device, with its own size, trim and holder.
#![allow(clippy::disallowed_methods)]

use redoubt_e2e::nbd::Client;
use redoubt_e2e::service::Site;
use redoubt_e2e::{Place, binary, run, text, try_run};

const DISK_BYTES: u64 = 32 << 20;
const REFUSED: i32 = 4;

/// A loop device over an image, detached on drop.
struct Loop(String);

impl Loop {
    fn attach(image: &std::path::Path) -> Loop {
        Loop(run("losetup", &["-f", "--show", text(image)]).unwrap().trim().to_owned())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = run("losetup", &["-d", &self.0]);
    }
}

#[test]
fn a_block_device_is_protected_written_trimmed_and_recovered() {
    let place = Place::new();
    let image = place.image("backing.img", DISK_BYTES);
    let device = Loop::attach(&image);
    let (site, socket) = (Site::new(&place), place.path("erp.sock"));
    let (disk, listen) = (format!("erp={}", device.0), format!("unix:{}", text(&socket)));
    let service = site.up(&["--disk", &disk, "--listen", &listen]).unwrap();
    let uri = service.announced[0]["uri"].as_str().unwrap().to_owned();
    assert_eq!(run("nbdinfo", &["--size", &uri]).unwrap().trim(), DISK_BYTES.to_string());
    let fio = [
        "--name=verify",
        "--ioengine=nbd",
        &format!("--uri={uri}"),
        "--rw=randwrite",
        "--bs=4k",
        "--size=8m",
        "--iodepth=16",
        "--verify=crc32c",
        "--verify_state_save=0",
    ];
    run("fio", &fio).unwrap();
    let commands = [
        "write -P 0x5a 16M 1M",
        "discard 16896k 64k",
        "write -z 16500k 3k",
        "write -P 0x77 20971521 1000",
        "flush",
        "read -P 0 16896k 64k",
        "read -P 0 16500k 3k",
        "read -P 0x77 20971521 1000",
        "read -P 0x5a 16M 100k",
    ];
    let mut arguments = vec!["-f", "raw"];
    commands.iter().for_each(|command| arguments.extend(["-c", command]));
    let out = run("qemu-io", &[&arguments[..], &[&uri]].concat()).unwrap();
    assert!(!out.contains("failed"), "{out}");
    // A device that is taken is refused, by this program and by the kernel.
    let second = ["up", "--state", "s2", "--vault", "v2", "--disk", &format!("x={}", device.0)];
    let output = try_run(binary().as_os_str(), &second, Some(&place.path("."))).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(REFUSED), "{stderr}");
    assert!(stderr.contains(&device.0) && stderr.contains("stop the other process first"), "{stderr}");
    let mut client = Client::connect(&socket, "erp").unwrap();
    client.write(DISK_BYTES - 512, &[9; 512]).unwrap();
    assert!(client.write(DISK_BYTES, &[9; 512]).is_err(), "there is nothing behind the end");
    client.flush().unwrap();
    drop(client);
    let point = site.caught_up().unwrap();
    assert!(service.terminate().unwrap().success());
    let recovered = place.path("recovered.img");
    run(binary(), &["export", &point, text(&recovered), "--volume", "erp", "--vault", text(&site.vault)])
        .unwrap();
    let compare = ["compare", "-f", "raw", "-F", "raw", &device.0, text(&recovered)];
    assert!(run("qemu-img", &compare).unwrap().contains("identical"));
    // A clean stop flushed the device: its backing file holds the same.
    assert!(run("qemu-img", &["compare", "-f", "raw", "-F", "raw", text(&image), text(&recovered)]).is_ok());
}
