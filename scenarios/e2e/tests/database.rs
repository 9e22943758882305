//! A site is lost under a working database; what was committed before the point must be there.
#![allow(clippy::disallowed_methods)]

use redoubt_e2e::filesystem::{LoopDevice, Mounted, missing};
use redoubt_e2e::service::Site;
use redoubt_e2e::{Place, run, text};

const COMMITS: u64 = 100;

fn sqlite(database: &std::path::Path, statements: &str) -> String {
    run("sqlite3", &["-batch", text(database), statements]).unwrap()
}

#[test]
fn a_database_survives_the_loss_of_its_site() {
    if let Some(reason) = missing() {
        println!("skipped: {reason}");
        return;
    }
    let place = Place::new();
    let (site, socket) = (Site::new(&place), place.path("erp.sock"));
    let image = place.image("disk.img", 256 << 20);
    let listen = format!("unix:{}", text(&socket));
    let service = site.up(&["--disk", &format!("erp={}", text(&image)), "--listen", &listen]).unwrap();
    let device = LoopDevice::attach(&place, "fuse", &socket).unwrap();
    run("mkfs.ext4", &["-q", &device.device]).unwrap();
    let mounted = Mounted::new(&place, "mnt", device).unwrap();
    let database = mounted.path.join("erp.db");
    sqlite(
        &database,
        "PRAGMA journal_mode=WAL; CREATE TABLE orders (number INTEGER PRIMARY KEY, text TEXT);",
    );
    let commit = |from: u64| {
        let mut statements = String::from("PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=20;");
        for number in from..from + COMMITS {
            statements += &format!("INSERT INTO orders VALUES ({number}, hex(randomblob(200)));");
        }
        sqlite(&database, &statements);
    };
    commit(0);
    // Everything committed so far must be in this point, while the file system stays mounted.
    let point = site.caught_up().unwrap();
    commit(COMMITS);
    drop(mounted);
    service.kill().unwrap();
    std::fs::remove_dir_all(&site.state).unwrap();
    std::fs::remove_file(&image).unwrap();
    recover(&place, &site, &point);
}

fn recover(place: &Place, site: &Site, point: &str) {
    let socket = place.path("point.sock");
    let overlay = place.path("point.overlay");
    let more = ["--volume", "erp", "--overlay", "--overlay-file", text(&overlay)];
    let mount = site.mount(point, &socket, &more).unwrap();
    let device = LoopDevice::attach(place, "fuse2", &socket).unwrap();
    let name = device.device.clone();
    let mounted = Mounted::new(place, "mnt2", device).unwrap();
    let database = mounted.path.join("erp.db");
    assert_eq!(sqlite(&database, "PRAGMA integrity_check;").trim(), "ok");
    let rows = sqlite(&database, "SELECT count(*), max(number) FROM orders;");
    let (count, newest) = rows.trim().split_once('|').expect("two columns");
    let (count, newest): (u64, u64) = (count.parse().unwrap(), newest.parse().unwrap());
    assert!(count >= COMMITS, "{count} of {COMMITS} committed orders are there");
    assert_eq!(newest + 1, count, "the orders must be a prefix");
    println!("point {point}: {count} orders");
    run("umount", &[text(&mounted.path)]).unwrap();
    // The journal was replayed by the mount, so the check must find nothing at all.
    run("e2fsck", &["-fn", &name]).unwrap();
    drop(mounted);
    assert!(mount.terminate().unwrap().success());
}
