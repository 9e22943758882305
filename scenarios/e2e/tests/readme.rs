//! The README's console blocks, run as they are written: each command works, and prints what the reader sees.
//!
//! What differs from run to run (numbers, times, identities, how many points there are) is compared by its
//! shape. The name of a point that a later command uses is the one that this run gave it.
#![allow(clippy::disallowed_methods)]

use redoubt_e2e::service::{status, watch};
use redoubt_e2e::{Place, binary, text};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Pause between two looks at a starting service's output.
const LOOK: std::time::Duration = std::time::Duration::from_millis(50);

/// What the README's machine is called; every host has a name of its own.
const HOST: &str = "erp-host";

/// One command and what it prints.
struct Step {
    command: String,
    shown: Vec<String>,
}

fn steps(section: &str) -> Vec<Step> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let readme = std::fs::read_to_string(path).unwrap();
    let section = readme.split("\n## ").find(|part| part.starts_with(section)).expect("the section is there");
    let mut steps: Vec<Step> = Vec::new();
    for block in section.split("```console\n").skip(1) {
        for line in block.split("```").next().unwrap().lines() {
            match line.strip_prefix("$ ") {
                Some(command) => steps.push(Step { command: command.to_owned(), shown: Vec::new() }),
                None => steps.last_mut().expect("a command first").shown.push(line.to_owned()),
            }
        }
    }
    assert!(steps.len() > 2, "the section shows commands");
    steps
}

/// The shape of an output: words stay, numbers and identities do not, equal lines count once.
fn shape(lines: &[String]) -> Vec<String> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let word = |word: &str| {
        // How fast something was, or how much, is no promise.
        let word = word.replace("KiB", "B").replace("MiB", "B").replace("GiB", "B");
        let word = word.trim_start_matches('(').trim_end_matches([',', ')']);
        let is_id = [8, 32].contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        let mut shape = String::new();
        for c in word.chars() {
            let c = if c.is_ascii_digit() { '0' } else { c };
            if !(c == '0' && shape.ends_with('0') || c == '.' && shape.ends_with('0')) {
                shape.push(c);
            }
        }
        match (is_id, word == HOST || word == host.trim()) {
            (true, _) => "ID".to_owned(),
            (_, true) => "NAME".to_owned(),
            _ => shape,
        }
    };
    let mut shapes: Vec<String> =
        lines.iter().map(|line| line.split_whitespace().map(word).collect::<Vec<_>>().join(" ")).collect();
    shapes.dedup();
    shapes
}

/// The processes that the section leaves running; ended in reverse.
#[derive(Default)]
struct Running(Vec<Child>);

impl Drop for Running {
    fn drop(&mut self) {
        for child in self.0.iter_mut().rev() {
            // SAFETY: a plain system call; the child has not been waited for, so the id is its own.
            unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGTERM) };
            let _ = child.wait();
        }
    }
}

struct Reader {
    place: Place,
    running: Running,
    /// What the README calls something, and what it is called here.
    names: Vec<(String, String)>,
}

impl Reader {
    fn shell(&self, command: &str, output: &Path) -> Command {
        let own = binary();
        let path = format!("{}:{}", text(own.parent().unwrap()), std::env::var("PATH").unwrap());
        let file = std::fs::OpenOptions::new().create(true).append(true).open(output).unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).env("PATH", path).current_dir(self.place.path("."));
        shell.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        shell
    }

    /// Waits until what was written is in a recovery point, as a reader does who looks at `status`.
    fn wait_for_point(&self, command: &str) {
        let state = self.place.path("redoubt-state");
        if !command.starts_with("redoubt ") || !state.exists() {
            return;
        }
        let issued = status(&state).unwrap()["watermarks"]["issued"].as_u64();
        if self.place.path("server").exists() {
            watch(&self.place.path("server"), |status| {
                status["machines"][0]["health"] == "ok" && status["machines"][0]["points"].as_u64() > Some(0)
            })
            .unwrap();
            return;
        }
        watch(&state, |status| {
            status["health"] == "ok"
                && status["newest_point"]["seq"].as_u64() >= issued
                && status["lag_ms"] == 0
        })
        .unwrap();
    }

    fn take(&mut self, number: usize, step: &Step) {
        let mut command = step.command.clone();
        for (written, here) in &self.names {
            command = command.replace(written, here);
        }
        self.wait_for_point(&command);
        let output: PathBuf = self.place.path(&format!("output-{number}"));
        let lines = || -> Vec<String> {
            std::fs::read_to_string(&output).unwrap().lines().map(str::to_owned).collect()
        };
        if command.ends_with('&') || command.starts_with("redoubt up") {
            let command = format!("exec {}", command.trim_end_matches(" &"));
            let mut child = self.shell(&command, &output).spawn().unwrap();
            while lines().len() < step.shown.len() {
                assert!(child.try_wait().unwrap().is_none(), "{command} ended:\n{}", lines().join("\n"));
                std::thread::sleep(LOOK);
            }
            self.running.0.push(child);
        } else {
            let ended = self.shell(&command, &output).status().unwrap();
            assert!(ended.success(), "{command}: {ended}\n{}", lines().join("\n"));
        }
        let found = lines();
        let (shown, here) = (shape(&step.shown), shape(&found));
        assert_eq!(
            here,
            shown,
            "`{command}` prints something else than the README shows:\n{}",
            found.join("\n")
        );
        if command == "redoubt points" {
            let is_point = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit());
            let firsts = |lines: &[String]| -> Vec<String> {
                let firsts = lines.iter().filter_map(|line| line.split_whitespace().next());
                firsts.filter(is_point).map(str::to_owned).collect()
            };
            let name = |lines: &[String]| firsts(lines).pop().expect("a point");
            self.names.push((format!(" {} ", name(&step.shown)), format!(" {} ", name(&found))));
        }
    }
}

fn read_along(section: &str, names: Vec<(String, String)>) {
    let mut reader = Reader { place: Place::new(), running: Running::default(), names };
    for (number, step) in steps(section).iter().enumerate() {
        println!("$ {}", step.command);
        reader.take(number, step);
    }
}

#[test]
fn the_quick_start_works_as_written() {
    read_along("Quick start", Vec::new());
}

#[test]
fn the_two_processes_work_as_written() {
    // The port of the README may be taken on this machine.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    read_along("Agent and process server apart", vec![("127.0.0.1:7811".to_owned(), free.to_string())]);
}

#[test]
fn the_shape_keeps_words_and_drops_numbers() {
    let shape = |text: &str| shape(&[text.to_owned()]).remove(0);
    assert_eq!(
        shape(" 3.0    2026-11-23 17:04:26  crash   4  erp (2.0 GiB)"),
        shape("12.1 2027-01-02 01:02:03 crash 17 erp (16 GiB)")
    );
    assert_ne!(shape("read 65536/65536 bytes"), shape("wrote 65536/65536 bytes"));
    assert_eq!(shape("(100.645 MiB/sec and 7 ops/sec)"), shape("(648.3 KiB/sec and 10.1 ops/sec)"));
    assert_ne!(shape("read-only"), shape("writes go to a file"));
    assert_eq!(shape("machine b8e1cbbbec1c8f68c1e2c03a5ca0a1c4"), "machine ID");
}
