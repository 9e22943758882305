//! Exported images and differences of points, judged by the tools of others and by the disk itself.
#![allow(clippy::disallowed_methods)]

use redoubt_e2e::service::Site;
use redoubt_e2e::{Place, binary, run, text, try_run};
use serde_json::Value;

/// More than two tables of level 2, and an end within a cluster.
const DISK_BYTES: u64 = (1 << 30) + (64 << 10) + 512;

#[test]
fn a_point_is_the_same_disk_as_raw_and_as_qcow2_and_differs_where_it_was_written() {
    let place = Place::new();
    let image = place.image("disk.img", DISK_BYTES);
    let (site, socket) = (Site::new(&place), place.path("erp.sock"));
    let (service, mut client) = site.protect(&image, &socket, &[]).unwrap();
    // The first sector, over a cluster's border, in a later table of level 2, the last sector.
    let places = [(0, 512), (65_000 / 512 * 512, 70_144), (700 << 20, 1 << 20), (DISK_BYTES - 512, 512)];
    for (number, (offset, length)) in places.into_iter().enumerate() {
        client.write(offset, &vec![number as u8 + 1; length]).unwrap();
    }
    client.flush().unwrap();
    let old = site.caught_up().unwrap();
    client.write(4096, &[9; 4096]).unwrap();
    client.write(700 << 20, &[8; 512]).unwrap();
    client.flush().unwrap();
    let new = site.caught_up().unwrap();
    // A monitoring system gets a line, and its code as the exit code.
    let check = ["status", "--check", "--state", text(&site.state), "--format", "json"];
    let output = try_run(binary().as_os_str(), &check, None).unwrap();
    let check: Value = serde_json::from_slice(&output.stdout).unwrap();
    let words = ["REDOUBT OK - ", "REDOUBT WARNING - ", "REDOUBT CRITICAL - "];
    let code = output.status.code().unwrap();
    assert_eq!(check["code"].as_i64(), Some(i64::from(code)));
    assert!(check["text"].as_str().unwrap().starts_with(words[code as usize]), "{check}");
    assert!(service.terminate().unwrap().success());
    let (raw, qcow2) = (place.path("new.img"), place.path("new.qcow2"));
    // The name says the form.
    for (file, form) in [(&raw, "raw"), (&qcow2, "qcow2")] {
        let export = ["export", &new, text(file), "--vault", text(&site.vault), "--format", "json"];
        let shown: Value = serde_json::from_str(&run(binary(), &export).unwrap()).unwrap();
        assert_eq!(shown["bytes"].as_u64(), Some(DISK_BYTES));
        assert_eq!(shown["image_format"].as_str(), Some(form));
    }
    // Errors and leaked clusters give an exit code of their own.
    let check = run("qemu-img", &["check", "-f", "qcow2", "--output", "json", text(&qcow2)]).unwrap();
    let check: Value = serde_json::from_str(&check).unwrap();
    assert_eq!((check["check-errors"].as_u64(), check["leaks"].as_u64()), (Some(0), None), "{check}");
    let info = run("qemu-img", &["info", "--output", "json", text(&qcow2)]).unwrap();
    let info: Value = serde_json::from_str(&info).unwrap();
    assert_eq!((info["format"].as_str(), info["virtual-size"].as_u64()), (Some("qcow2"), Some(DISK_BYTES)));
    assert!(std::fs::metadata(&qcow2).unwrap().len() < 4 << 20, "zeros take no space");
    for (file, format) in [(&raw, "raw"), (&qcow2, "qcow2")] {
        run("qemu-img", &["compare", "-f", "raw", "-F", format, text(&image), text(file)]).unwrap();
    }
    let old_image = place.path("old.img");
    run(binary(), &["export", &old, text(&old_image), "--vault", text(&site.vault), "--to-format", "qcow2"])
        .unwrap();
    let same = run("qemu-img", &["compare", "-f", "raw", "-F", "qcow2", text(&image), text(&old_image)]);
    assert!(same.is_err(), "the older point is another image");

    let diff = |a: &str, b: &str, more: &[&str]| -> Value {
        let fixed = ["diff", a, b, "--vault", text(&site.vault), "--format", "json"];
        serde_json::from_str(&run(binary(), &[&fixed, more].concat()).unwrap()).unwrap()
    };
    let ranges = |diff: &Value| -> Vec<(u64, u64)> {
        let ranges = diff["volumes"][0]["ranges"].as_array().unwrap().iter();
        ranges.map(|range| (range["offset"].as_u64().unwrap(), range["bytes"].as_u64().unwrap())).collect()
    };
    let found = diff(&old, &new, &[]);
    assert_eq!(ranges(&found), [(4096, 4096), (700 << 20, 512)], "{found}");
    assert_eq!(found["changed_bytes"].as_u64(), Some(4096 + 512));
    assert_eq!(ranges(&diff(&new, &old, &["--merge", "1GiB"])), [(4096, (700 << 20) - 4096 + 512)]);
    assert_eq!(ranges(&diff(&new, "newest", &[])), []);
}
