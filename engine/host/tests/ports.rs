//! The real ports on a real directory: what the kernel grants, and each refusal in clear words.
#![allow(clippy::disallowed_methods)]

use bytes::Bytes;
use redoubt_core::{Extent, Sectors};
use redoubt_host::{HostDisk, HostFiles, HostNet, LocalStore};
use redoubt_ports::{Disk, Endpoint, Files, IoKind, Net, NetError, OpenMode, RawStore, StoreError, StoreKey};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const MIB: u64 = 1 << 20;

fn image(directory: &std::path::Path, bytes: u64) -> String {
    let path = directory.join("disk.img");
    std::fs::File::create(&path).unwrap().set_len(bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_disk_keeps_writes_zeroes_and_holes() {
    let directory = tempfile::tempdir().unwrap();
    let disk = HostDisk::open(&image(directory.path(), 8 * MIB), false).unwrap();
    assert_eq!(disk.info().sectors, Sectors(16384));
    let small = Bytes::from(vec![7; 1024]);
    let large = Bytes::from(vec![9; MIB as usize]);
    disk.write(Extent::new(4096, 2), small.clone(), true).await.unwrap();
    disk.write(Extent::new(8192, 2048), large.clone(), false).await.unwrap();
    disk.flush().await.unwrap();
    assert_eq!(disk.read(Extent::new(4096, 2)).await.unwrap(), small);
    assert_eq!(disk.read(Extent::new(8192, 2048)).await.unwrap(), large);
    let runs = disk.data_extents(Extent::new(0, 16384)).await.unwrap();
    assert!(runs.iter().any(|run| run.overlaps(Extent::new(4096, 2))), "{runs:?}");
    assert!(!runs.iter().any(|run| run.overlaps(Extent::new(12288, 4096))), "{runs:?}");
    disk.write_zeroes(Extent::new(8192, 1024), true, true).await.unwrap();
    disk.write_zeroes(Extent::new(4096, 1), false, false).await.unwrap();
    assert!(disk.read(Extent::new(8192, 1024)).await.unwrap().iter().all(|b| *b == 0));
    assert_eq!(disk.read(Extent::new(4096, 2)).await.unwrap()[511..514], [0, 7, 7]);
    disk.resize(Sectors(20480)).await.unwrap();
    assert_eq!(disk.read(Extent::new(20479, 1)).await.unwrap(), Bytes::from(vec![0; 512]));
}

#[tokio::test]
async fn the_stamp_of_an_image_stays_until_somebody_writes_to_it() {
    let directory = tempfile::tempdir().unwrap();
    let name = image(directory.path(), MIB);
    let disk = HostDisk::open(&name, false).unwrap();
    disk.write(Extent::new(8, 1), Bytes::from(vec![7; 512]), false).await.unwrap();
    disk.flush().await.unwrap();
    let stamp = disk.stamp().await.unwrap();
    assert!(stamp.is_some());
    disk.read(Extent::new(0, 64)).await.unwrap();
    drop(disk);
    let disk = HostDisk::open(&name, false).unwrap();
    assert_eq!(disk.stamp().await.unwrap(), stamp, "who reads and who opens changes nothing");
    // The clock of a file system has coarse ticks: set, so that the test needs none to pass.
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(1);
    std::fs::File::options().write(true).open(&name).unwrap().set_modified(later).unwrap();
    assert_ne!(disk.stamp().await.unwrap(), stamp);
}

#[test]
fn a_state_directory_that_hangs_holds_up_nobody_else() {
    let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let files = HostFiles::open(directory.path()).unwrap();
        let file = files.open("extents.log", OpenMode::CreateOrOpen).await.unwrap();
        // The pool's only thread stands for a device that does not answer.
        let (answer, device) = std::sync::mpsc::channel::<()>();
        let hung = tokio::task::spawn_blocking(move || device.recv().is_err());
        let parts = [Bytes::from_static(b"mark")];
        let work = async {
            file.write_at(0, &parts).await.unwrap();
            file.sync().await.unwrap();
            let read = file.read_at(0, 4).await.unwrap();
            (read, file.len().await.unwrap(), files.free_bytes().await.unwrap().is_some())
        };
        let mut work = std::pin::pin!(work);
        tokio::select! {
            biased;
            _ = &mut work => panic!("it was done in place"),
            () = tokio::task::yield_now() => {}
        }
        tokio::select! {
            biased;
            _ = file.len() => panic!("its length was asked for in place"),
            _ = file.read_at(0, 4) => panic!("it was read in place"),
            _ = files.free_bytes() => panic!("free space was asked for in place"),
            () = tokio::task::yield_now() => {}
        }
        drop(answer);
        assert_eq!(work.await, (Bytes::from_static(b"mark"), 4, true));
        assert!(hung.await.unwrap());
    });
}

#[tokio::test]
async fn a_disk_refuses_what_is_outside_and_what_others_hold() {
    let directory = tempfile::tempdir().unwrap();
    let path = image(directory.path(), MIB);
    let disk = HostDisk::open(&path, false).unwrap();
    assert_eq!(disk.read(Extent::new(2047, 2)).await.unwrap_err().kind, IoKind::OutOfRange);
    assert_eq!(disk.read(Extent::new(u64::MAX - 1, 1)).await.unwrap_err().kind, IoKind::OutOfRange);
    assert_eq!(HostDisk::open(&path, false).unwrap_err().kind, IoKind::Busy);
    assert_eq!(HostDisk::open(&path, true).unwrap_err().kind, IoKind::Busy);
    drop(disk);
    let reader = HostDisk::open(&path, true).unwrap();
    let refused = reader.write(Extent::new(0, 1), Bytes::from(vec![1; 512]), false).await.unwrap_err();
    assert_eq!(refused.kind, IoKind::Denied);
    assert_eq!(HostDisk::open("/nonexistent/disk", false).unwrap_err().kind, IoKind::NotFound);
    let odd = image(directory.path(), 1000);
    drop(reader);
    let error = HostDisk::open(&odd, false).unwrap_err();
    assert!(error.to_string().contains("1000 bytes, not a multiple"), "{error}");
    assert!(HostDisk::open(directory.path().to_str().unwrap(), false).is_err());
}

#[tokio::test]
async fn a_directory_keeps_files_and_has_one_owner() {
    let directory = tempfile::tempdir().unwrap();
    let files = HostFiles::open(directory.path()).unwrap();
    let file = files.open("a", OpenMode::CreateNew).await.unwrap();
    let parts: Vec<Bytes> = (0..200u8).map(|n| Bytes::from(vec![n; 1000])).collect();
    file.write_at(5, &parts).await.unwrap();
    file.sync().await.unwrap();
    assert_eq!(file.len().await.unwrap(), 200_005);
    assert_eq!(file.read_at(5 + 199_500, 10_000).await.unwrap(), Bytes::from(vec![199; 500]));
    assert_eq!(files.open("a", OpenMode::CreateNew).await.err().unwrap().kind, IoKind::Exists);
    assert_eq!(files.open("b", OpenMode::Existing).await.err().unwrap().kind, IoKind::NotFound);
    assert!(files.open("../b", OpenMode::CreateOrOpen).await.is_err());
    files.rename("a", "c").await.unwrap();
    files.sync_dir().await.unwrap();
    assert_eq!(files.list().await.unwrap(), ["c"]);
    files.remove("c").await.unwrap();
    files.remove("c").await.unwrap();
    let lock = files.lock().await.unwrap();
    assert_eq!(files.lock().await.err().unwrap().kind, IoKind::Busy);
    drop(lock);
    files.lock().await.unwrap();
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_living_one_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.sock");
    let endpoint = Endpoint::Unix(path.to_str().unwrap().to_owned());
    // A listener of the standard library leaves its name behind, as a killed process does.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let listener = HostNet.listen(&endpoint).await.unwrap();
    let (mut client, accepted) = tokio::join!(HostNet.connect(&endpoint), listener.accept());
    let (mut server, _) = accepted.unwrap();
    client.as_mut().unwrap().write_all(b"hello").await.unwrap();
    let mut buffer = [0; 5];
    server.read_exact(&mut buffer).await.unwrap();
    assert_eq!(&buffer, b"hello");
    assert_eq!(HostNet.listen(&endpoint).await.err().unwrap(), NetError::InUse(endpoint.clone()));
    drop(listener);
    assert!(!path.exists(), "the name goes with the listener");
    assert_eq!(HostNet.connect(&endpoint).await.err().unwrap(), NetError::Refused(endpoint.clone()));
    std::fs::write(&path, "precious").unwrap();
    assert!(HostNet.listen(&endpoint).await.is_err());
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let any: Endpoint = "tcp:127.0.0.1:0".parse().unwrap();
    let listener = HostNet.listen(&any).await.unwrap();
    let taken = listener.endpoint();
    assert_eq!(HostNet.listen(&taken).await.err().unwrap(), NetError::InUse(taken.clone()));
    let (client, server) = tokio::join!(HostNet.connect(&taken), listener.accept());
    assert!(client.is_ok() && server.is_ok());
}

#[tokio::test]
async fn a_store_creates_once_and_reads_ranges() {
    let directory = tempfile::tempdir().unwrap();
    let store = LocalStore::open(directory.path()).unwrap();
    let key = |name: &str| StoreKey::new(name);
    store.put_if_absent(&key("seg/a/02"), Bytes::from_static(b"second")).await.unwrap();
    store.put_if_absent(&key("seg/a/01"), Bytes::from_static(b"first")).await.unwrap();
    let again = store.put_if_absent(&key("seg/a/01"), Bytes::from_static(b"other")).await;
    assert_eq!(again, Err(StoreError::AlreadyExists));
    assert_eq!(store.get(&key("seg/a/01"), Some(1..3)).await.unwrap().unwrap(), "ir");
    assert_eq!(store.get(&key("seg/a/01"), Some(3..99)).await.unwrap().unwrap(), "st");
    assert_eq!(store.get(&key("seg/a/01"), Some(7..9)).await.unwrap().unwrap(), "");
    for absent in ["seg/a/03", "seg/a", "seg/a/01/x"] {
        assert_eq!(store.get(&key(absent), None).await.unwrap(), None, "{absent}");
    }
    let all = store.list_after("seg/a/0", None, 9).await.unwrap();
    assert_eq!(all, [(key("seg/a/01"), 5), (key("seg/a/02"), 6)]);
    assert_eq!(store.list_after("seg/", Some(&key("seg/a/01")), 9).await.unwrap().len(), 1);
    assert_eq!(store.list_after("none/", None, 9).await.unwrap(), []);
    store.delete(&key("seg/a/01")).await.unwrap();
    store.delete(&key("seg/a/01")).await.unwrap();
    assert_eq!(store.list_after("", None, 9).await.unwrap().len(), 1);
}

/// What `tree` holds, names only.
fn names(tree: &std::path::Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(tree).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => names.extend(self::names(&entry.path())),
            false => names.push(entry.file_name().into_string().unwrap()),
        }
    }
    names.sort();
    names
}

#[tokio::test]
async fn uploads_of_the_dead_are_swept_by_writers_and_those_at_work_by_nobody() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("seg")).unwrap();
    for (name, age) in [("00", 0), ("00#1", 7200), ("01#1", 60), ("02#x", 7200)] {
        let file = std::fs::File::create(directory.path().join("seg").join(name)).unwrap();
        file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(age)).unwrap();
    }
    let before = names(directory.path());
    let store = LocalStore::open(directory.path()).unwrap();
    assert_eq!(store.list_after("seg/", None, 9).await.unwrap().len(), 1);
    store.get(&StoreKey::new("seg/00"), None).await.unwrap().unwrap();
    assert_eq!(names(directory.path()), before, "ST-4: who only reads changes nothing");
    store.put_if_absent(&StoreKey::new("seg/03"), Bytes::from_static(b"x")).await.unwrap();
    assert_eq!(names(directory.path()), ["00", "01#1", "02#x", "03"]);
}
