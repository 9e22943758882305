//! NBD clients that others wrote, on a protected disk: each must find a plain, correct NBD server.
#![allow(clippy::disallowed_methods)]

use redoubt_e2e::service::Site;
use redoubt_e2e::{Place, binary, run, text, try_run};

const DISK_BYTES: u64 = 2 << 30;

/// Uses an export with every client, and leaves data on it.
fn use_everything(place: &Place, uri: &str) {
    assert_eq!(run("nbdinfo", &["--size", uri]).unwrap().trim(), DISK_BYTES.to_string());
    let info = run("nbdinfo", &[uri]).unwrap();
    for offered in
        ["can_flush: true", "can_fua: true", "can_trim: true", "can_zero: true", "is_read_only: false"]
    {
        assert!(info.contains(offered), "{offered} is missing in\n{info}");
    }
    let write =
        ["-f", "raw", "-c", "write -P 0x5a 1M 192k", "-c", "write -z 1100k 8k", "-c", "discard 1M 4k"];
    let read =
        ["-c", "flush", "-c", "read -P 0x5a 1028k 72k", "-c", "read -P 0 1100k 8k", "-c", "read -P 0 1M 4k"];
    let odd =
        ["-c", "write -P 0x77 2097153 1000", "-c", "read -P 0x77 2097153 1000", "-c", "read -P 0 2097152 1"];
    let out = run("qemu-io", &[&write[..], &read[..], &odd[..], &[uri]].concat()).unwrap();
    assert!(!out.contains("failed"), "{out}");
    let source = place.path("source.img");
    let pattern: Vec<u8> = (0..8u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::write(&source, &pattern).unwrap();
    run("nbdcopy", &[text(&source), uri]).unwrap();
    let back = place.path("back.img");
    run("nbdcopy", &[uri, text(&back)]).unwrap();
    let copied = std::fs::File::open(&back).unwrap();
    let mut head = vec![0; pattern.len()];
    std::os::unix::fs::FileExt::read_exact_at(&copied, &mut head, 0).unwrap();
    assert!(head == pattern, "nbdcopy read back something else");
    let compared = run("qemu-img", &["compare", "-f", "raw", "-F", "raw", uri, text(&back)]).unwrap();
    assert!(compared.contains("identical"), "{compared}");
    let fio = [
        "--name=verify",
        "--ioengine=nbd",
        &format!("--uri={uri}"),
        "--rw=randwrite",
        "--bs=4k",
        "--offset=64m",
        "--size=16m",
        "--iodepth=16",
        "--verify=crc32c",
        "--verify_state_save=0",
    ];
    run("fio", &fio).unwrap();
}

fn protect_and_compare(listen: &str) {
    let place = Place::new();
    let image = place.image("disk.img", DISK_BYTES);
    let site = Site::new(&place);
    let listen = listen.replace("DIR", text(&place.path("")).trim_end_matches('/'));
    let service = site.up(&["--disk", &format!("erp={}", text(&image)), "--listen", &listen]).unwrap();
    let uri = service.announced[0]["uri"].as_str().unwrap().to_owned();
    use_everything(&place, &uri);
    let point = site.caught_up().unwrap();
    assert!(service.terminate().unwrap().success(), "a stop that was asked for is no failure");
    let recovered = place.path("recovered.img");
    let export = ["export", &point, text(&recovered), "--volume", "erp", "--vault", text(&site.vault)];
    run(binary(), &export).unwrap();
    let compare = ["compare", "-f", "raw", "-F", "raw", text(&image), text(&recovered)];
    assert!(run("qemu-img", &compare).unwrap().contains("identical"));
    let blocks = std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(&recovered).unwrap());
    assert!(blocks * 512 < DISK_BYTES / 8, "the exported image must be sparse, but takes {blocks} blocks");
}

#[test]
fn every_client_works_over_a_unix_socket() {
    protect_and_compare("unix:DIR/erp.sock");
}

#[test]
fn every_client_works_over_tcp() {
    protect_and_compare("tcp:127.0.0.1:0");
}

#[test]
fn a_disk_added_at_run_time_is_protected_by_every_later_start() {
    let place = Place::new();
    let site = Site::new(&place);
    let service = site.up(&["--disk", &format!("a={}", text(&place.image("a.img", 16 << 20)))]).unwrap();
    let disk = format!("b={}", text(&place.image("b.img", 32 << 20)));
    let protect = ["protect", &disk, "--state", text(&site.state), "--format", "json"];
    let added: serde_json::Value = serde_json::from_str(&run(binary(), &protect).unwrap()).unwrap();
    assert_eq!(added[0]["volume"], "b");
    // Refused, and the record stays as it is: the service that runs and the next one protect the same.
    for wrong in ["b=a.img", "c=b.img", "d=missing.img"] {
        let protect = ["protect", wrong, "--state", text(&site.state)];
        assert!(
            !try_run(binary().as_os_str(), &protect, Some(&place.path("."))).unwrap().status.success(),
            "{wrong}"
        );
    }
    let odd = format!("d={}", text(&place.image("odd.img", 1000)));
    assert!(run(binary(), &["protect", &odd, "--state", text(&site.state)]).is_err());
    // The answer was given, so a crash right after it changes nothing.
    service.kill().unwrap();
    let service = site.up(&[]).unwrap();
    let names: Vec<&str> =
        service.announced.as_array().unwrap().iter().filter_map(|export| export["volume"].as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    let uri = added[0]["uri"].as_str().unwrap();
    run("qemu-io", &["-f", "raw", "-c", "write -P 0x33 1M 64k", uri]).unwrap();
    let point = site.caught_up().unwrap();
    assert!(service.terminate().unwrap().success());
    let recovered = place.path("b-recovered.img");
    let export = ["export", &point, text(&recovered), "--volume", "b", "--vault", text(&site.vault)];
    run(binary(), &export).unwrap();
    assert!(std::fs::read(&recovered).unwrap() == std::fs::read(place.path("b.img")).unwrap());
}
