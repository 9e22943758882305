//! Our NBD server against clients that others wrote: libnbd, QEMU, fio.
//!
//! Each test starts its own plain export of an image file. The clients are Debian packages:
//! libnbd-bin, python3-libnbd, qemu-utils, fio.
#![allow(clippy::disallowed_methods, missing_docs)]

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use tempfile::TempDir;

const SIZE: u64 = 64 << 20;

/// Returns the binary under test: `REDOUBT_BIN`, or built once in the profile of this test.
fn server_program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        if let Some(path) = std::env::var_os("REDOUBT_BIN") {
            return PathBuf::from(path);
        }
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "-p", "redoubt"]);
        if !cfg!(debug_assertions) {
            cargo.arg("--release");
        }
        assert!(cargo.status().expect("cargo runs").success(), "the binary builds");
        let test = std::env::current_exe().expect("this test has a path");
        let profile = test.parent().and_then(Path::parent).expect("target/PROFILE/deps");
        profile.join("redoubt")
    })
}

/// A running export of `disk.img` in its own directory.
struct Server {
    process: Child,
    uri: String,
    place: TempDir,
}

impl Server {
    fn start(extra: &[&str]) -> Server {
        let place = TempDir::new().expect("a directory");
        let socket = place.path().join("nbd.sock");
        Server::listening_at(&format!("unix:{}", socket.display()), place, extra)
    }

    fn listening_at(endpoint: &str, place: TempDir, extra: &[&str]) -> Server {
        let disk = place.path().join("disk.img");
        fs::File::create(&disk).and_then(|file| file.set_len(SIZE)).expect("an image");
        let mut command = Command::new(server_program());
        command.arg("bench-plain").arg("--disk").arg(&disk).arg("--listen").arg(endpoint).args(extra);
        let mut process = command.stdout(Stdio::piped()).spawn().expect("the server starts");
        let mut line = String::new();
        let output = process.stdout.take().expect("its output is piped");
        BufReader::new(output).read_line(&mut line).expect("the server says where it listens");
        let uri = line.trim().to_owned();
        assert!(uri.starts_with("nbd"), "the server says its URI: {line:?}");
        Server { process, uri, place }
    }

    fn file(&self, name: &str) -> String {
        self.place.path().join(name).display().to_string()
    }

    fn image(&self) -> Vec<u8> {
        fs::read(self.file("disk.img")).expect("the image can be read")
    }

    /// Runs a libnbd script in which `h` is connected, and returns what it printed.
    fn python(&self, script: &str) -> String {
        let prelude = "import nbd, sys, errno\n\
                       def code(do):\n    try:\n        do()\n        return 'ok'\n    except nbd.Error as e:\n        return errno.errorcode[e.errnum]\n\
                       def connect():\n    h = nbd.NBD()\n    h.set_strict_mode(0)\n    h.add_meta_context('base:allocation')\n    h.connect_uri(sys.argv[1])\n    return h\n\
                       h = connect()\n";
        run("/usr/bin/python3", &["-c", &format!("{prelude}{script}"), &self.uri])
    }

    /// Asks the server to stop, which drains it first.
    fn terminate(&self) {
        let id = libc::pid_t::try_from(self.process.id()).expect("a process id");
        // SAFETY: `kill` touches no memory, and the child is not reaped yet, so the id is still its.
        unsafe { libc::kill(id, libc::SIGTERM) };
    }

    /// Asks the server to stop and tells whether it ended well.
    fn stop(mut self) -> bool {
        self.terminate();
        self.process.wait().expect("the server ends").success()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A server that was waited for has no process id of its own any more.
        if matches!(self.process.try_wait(), Ok(None)) {
            self.terminate();
            let _ = self.process.wait();
        }
    }
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program} (see the header for packages): {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{program} {arguments:?}: {}\n{out}\n{err}", output.status);
    out
}

/// An image with data, zeros and holes, ending in data.
fn sample(path: &str) -> Vec<u8> {
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let mut image = vec![0; SIZE as usize];
    for start in [0, 5 << 20, (33 << 20) + 512, SIZE as usize - (1 << 20)] {
        random.fill_bytes(&mut image[start..start + (1 << 20)]);
    }
    fs::write(path, &image).expect("the sample can be written");
    run("fallocate", &["--dig-holes", path]);
    image
}

#[test]
fn nbdinfo_sees_what_the_export_offers() {
    let server = Server::start(&[]);
    let info = run("nbdinfo", &[&server.uri]);
    for line in [
        "export-size: 67108864",
        "base:allocation",
        "can_multi_conn: true",
        "can_fast_zero: true",
        "can_df: true",
        "can_trim: true",
        "is_read_only: false",
        "block_size_minimum: 1",
        "block_size_preferred: 4096",
        "block_size_maximum: 33554432",
    ] {
        assert!(info.contains(line), "{line} is missing in\n{info}");
    }
    assert!(run("nbdinfo", &["--list", &server.uri]).contains("export=\"disk\""));
    let read_only = Server::start(&["--read-only"]);
    let info = run("nbdinfo", &[&read_only.uri]);
    assert!(info.contains("is_read_only: true") && info.contains("can_trim: false"), "{info}");
}

#[test]
fn nbdinfo_maps_data_and_holes() {
    let server = Server::start(&[]);
    run("qemu-io", &["-f", "raw", "-c", "write -P 1 1M 64k", "-c", "flush", &server.uri]);
    let map = run("nbdinfo", &["--map", "--json", &server.uri]);
    let map: serde_json::Value = serde_json::from_str(&map).expect("a map in JSON");
    let parts: Vec<_> = map.as_array().expect("a list").iter().collect();
    let part = |index: usize, key: &str| parts[index][key].as_u64().expect("a number");
    assert_eq!(parts.len(), 3, "{map}");
    assert_eq!((part(0, "length"), part(0, "type")), (1 << 20, 3));
    assert_eq!((part(1, "length"), part(1, "type")), (64 << 10, 0));
    assert_eq!((part(2, "offset") + part(2, "length"), part(2, "type")), (SIZE, 3));
}

#[test]
fn nbdcopy_copies_both_ways() {
    let server = Server::start(&[]);
    let image = sample(&server.file("sample.img"));
    run("nbdcopy", &["--flush", &server.file("sample.img"), &server.uri]);
    assert!(server.image() == image, "the export holds what was copied to it");
    run("nbdcopy", &[&server.uri, &server.file("back.img")]);
    assert!(fs::read(server.file("back.img")).expect("a copy") == image, "the copy is what was exported");
}

#[test]
fn nbdcopy_copies_over_tcp() {
    let server = Server::listening_at("tcp:127.0.0.1:0", TempDir::new().expect("a directory"), &[]);
    let image = sample(&server.file("sample.img"));
    run("nbdcopy", &["--requests=64", &server.file("sample.img"), &server.uri]);
    run("nbdcopy", &["--synchronous", &server.uri, &server.file("back.img")]);
    assert!(fs::read(server.file("back.img")).expect("a copy") == image);
}

#[test]
fn qemu_img_converts_compares_and_maps() {
    let server = Server::start(&[]);
    let image = sample(&server.file("sample.img"));
    let raw = ["-f", "raw", "-O", "raw"];
    run("qemu-img", &[&["convert", "-n"], &raw[..], &[&server.file("sample.img"), &server.uri]].concat());
    let both = ["-f", "raw", "-F", "raw", &server.file("sample.img"), &server.uri];
    run("qemu-img", &[&["compare"], &both[..]].concat());
    let map = run("qemu-img", &["map", "-f", "raw", "--output=json", &server.uri]);
    assert!(map.contains("\"zero\": true") && map.contains("\"data\": true"), "{map}");
    run("qemu-img", &[&["convert"], &raw[..], &[&server.uri, &server.file("back.img")]].concat());
    assert!(fs::read(server.file("back.img")).expect("a copy") == image);
}

#[test]
fn qemu_io_writes_zeroes_discards_and_flushes() {
    let server = Server::start(&[]);
    let commands = [
        "write -P 0x11 0 1M",
        "write -f -P 0x22 1000 5001",
        "write -z 4096 100",
        "write -z -u 64k 128k",
        "discard 512k 64k",
        "flush",
        "read -P 0x11 0 1000",
        "read -P 0x22 1000 3096",
        "read -P 0 4096 100",
        "read -P 0x22 4196 1805",
        "read -P 0x11 6001 59535",
        "read -P 0 64k 128k",
        "read -P 0x11 192k 320k",
        "read -P 0x11 576k 448k",
    ];
    let mut arguments = vec!["-f", "raw"];
    commands.iter().for_each(|command| arguments.extend(["-c", command]));
    arguments.push(&server.uri);
    let out = run("qemu-io", &arguments);
    assert!(!out.contains("verification failed") && !out.contains("error"), "{out}");
    let image = server.image();
    assert!(image[1000..4096].iter().all(|byte| *byte == 0x22) && image[4096..4196] == [0; 100]);
}

#[test]
fn fio_reads_back_what_many_requests_in_flight_wrote() {
    let server = Server::start(&[]);
    let uri = format!("--uri={}", server.uri);
    for shape in [["--bs=4k", "--iodepth=32"], ["--bsrange=512-256k", "--iodepth=16"]] {
        let common = ["--name=verify", "--ioengine=nbd", "--rw=randwrite", "--size=32M", "--verify=crc32c"];
        run(
            "fio",
            &[&common[..], &shape[..], &["--do_verify=1", "--verify_fatal=1", "--verify_state_save=0", &uri]]
                .concat(),
        );
    }
}

#[test]
fn bad_requests_are_refused_and_the_connection_lives() {
    let server = Server::start(&[]);
    let out = server.python(
        "S = h.get_size()\n\
         print('read past end', code(lambda: h.pread(512, S - 100)))\n\
         print('write past end', code(lambda: h.pwrite(bytes(512), S - 100)))\n\
         print('zero past end', code(lambda: h.zero(512, S)))\n\
         print('trim past end', code(lambda: h.trim(512, S)))\n\
         print('cache past end', code(lambda: h.cache(512, S)))\n\
         print('unknown flag', code(lambda: h.pread(512, 0, flags=1 << 9)))\n\
         print('misplaced flag', code(lambda: h.trim(512, 0, flags=nbd.CMD_FLAG_DF)))\n\
         print('write with unknown flag', code(lambda: h.pwrite(bytes(4096), 0, flags=1 << 9)))\n\
         print('write of 33 MiB', code(lambda: h.pwrite(bytes(33 << 20), 0)))\n\
         print('write of 32 MiB', code(lambda: h.pwrite(bytes(32 << 20), 0)))\n\
         print('read of 33 MiB', code(lambda: h.pread(33 << 20, 0)))\n\
         print('empty read', code(lambda: h.pread(0, 0)))\n\
         print('empty write', code(lambda: h.pwrite(b'', 0)))\n\
         print('still there', h.pread(4, 0), h.aio_is_ready())\n\
         h.shutdown()\n",
    );
    let expected = "read past end EINVAL\nwrite past end ENOSPC\nzero past end ENOSPC\n\
                    trim past end EINVAL\ncache past end EINVAL\nunknown flag EINVAL\n\
                    misplaced flag EINVAL\nwrite with unknown flag EINVAL\nwrite of 33 MiB EINVAL\n\
                    write of 32 MiB ok\nread of 33 MiB EINVAL\nempty read ok\nempty write ok\n\
                    still there bytearray(b'\\x00\\x00\\x00\\x00') True\n";
    assert_eq!(out, expected);
}

#[test]
fn a_read_only_export_permits_no_change() {
    let server = Server::start(&["--read-only"]);
    let out = server.python(
        "print(code(lambda: h.pwrite(bytes(512), 0)), code(lambda: h.zero(512, 0)),\n\
               code(lambda: h.trim(512, 0)), code(lambda: h.flush()), code(lambda: h.pread(512, 0)))\n",
    );
    assert_eq!(out, "EPERM EPERM EPERM ok ok\n");
}

#[test]
fn connections_see_each_others_flushed_writes() {
    let server = Server::start(&[]);
    let out = server.python(
        "a, b = h, connect()\n\
         a.pwrite(b'x' * 10, 1001)\n\
         b.flush()\n\
         print(bytes(b.pread(12, 1000)))\n\
         c = connect()\n\
         c.pwrite(b'y', 1005, flags=nbd.CMD_FLAG_FUA)\n\
         print(bytes(a.pread(12, 1000)))\n",
    );
    assert_eq!(out, "b'\\x00xxxxxxxxxx\\x00'\nb'\\x00xxxxyxxxxx\\x00'\n");
}

#[test]
fn requests_in_flight_are_answered_before_a_disconnect_and_before_a_stop() {
    let server = Server::start(&[]);
    let out = server.python(
        "done = []\n\
         buffers = [nbd.Buffer.from_bytearray(bytearray([i]) * 65536) for i in range(64)]\n\
         for i, b in enumerate(buffers):\n    h.aio_pwrite(b, i * 65536, completion=lambda e, i=i: (done.append(e.value), 1)[1])\n\
         h.shutdown()\n\
         print(len(done), set(done))\n",
    );
    assert_eq!(out, "64 {0}\n");
    let image = server.image();
    assert!(
        (0..64).all(|block| image[block * 65536..][..65536].iter().all(|byte| usize::from(*byte) == block))
    );
    assert!(server.stop());
}

#[test]
fn clients_without_structured_replies_or_with_old_options_are_served() {
    let server = Server::start(&[]);
    let script = "import nbd, sys\n\
        for structured, go in ((False, True), (True, False), (False, False)):\n    \
            h = nbd.NBD()\n    \
            h.set_request_structured_replies(structured)\n    \
            h.set_opt_mode(not go)\n    \
            h.connect_uri(sys.argv[1])\n    \
            if not go:\n        h.opt_list(lambda name, text: 0)\n        h.opt_go()\n    \
            h.pwrite(b'abc', 1)\n    \
            print(h.get_structured_replies_negotiated(), bytes(h.pread(5, 0)))\n";
    let out = run("/usr/bin/python3", &["-c", script, &server.uri]);
    assert_eq!(out, "False b'\\x00abc\\x00'\nTrue b'\\x00abc\\x00'\nFalse b'\\x00abc\\x00'\n");
}
