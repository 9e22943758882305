//! The tutorial, read along: its files are written, its commands are run, and print what the reader sees.
//!
//! Figures are compared by their shape: how many operations a guest does in a run, and which of the seeds finds the
//! mistake, is no promise. `...` stands for any lines. Only the lab's build runs anything.
#![cfg(madsim)]
#![expect(clippy::disallowed_methods, reason = "the tool is started as a process")]

mod support;

use std::path::Path;

/// Stands for any number of lines.
const SKIP: &str = "...";

/// Numbers without their value; identities without theirs.
fn shape(line: &str) -> String {
    let word = |word: &str| {
        // A run may be named with the begin of its digest.
        let (word, id) = match word.split_once('#').filter(|(run, _)| run.contains('@')) {
            Some((run, _)) => (run, "#ID"),
            None => (word, ""),
        };
        let word = word.trim_end_matches(',');
        let is_id = word.len() >= 12 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        let mut shape = String::new();
        for c in word.chars() {
            let c = if c.is_ascii_digit() { '0' } else { c };
            if !(c == '0' && shape.ends_with('0') || c == '.' && shape.ends_with('0')) {
                shape.push(c);
            }
        }
        if is_id { "ID".to_owned() } else { shape + id }
    };
    line.split_whitespace().map(word).collect::<Vec<_>>().join(" ")
}

/// Tells whether lines are as shown, with [`SKIP`] for any of them.
fn fits(shown: &[&str], lines: &[&str]) -> bool {
    match shown.split_first() {
        None => lines.is_empty(),
        Some((&SKIP, rest)) => (0..=lines.len()).any(|from| fits(rest, &lines[from..])),
        Some((first, rest)) => {
            lines.split_first().is_some_and(|(line, lines)| shape(line) == shape(first) && fits(rest, lines))
        }
    }
}

/// The run that a command found broken.
fn broken<'a>(lines: &[&'a str]) -> Option<&'a str> {
    lines.iter().find_map(|line| line.strip_prefix("BROKEN ").filter(|run| run.starts_with("first@")))
}

/// Runs one command of the tutorial in its directory; both outputs, in the order of a terminal.
fn run(directory: &Path, command: &str) -> String {
    support::type_in(directory, &format!("{{ {command}; }} 2>&1")).1
}

#[test]
fn every_block_works_as_written() {
    let text = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/tutorial.md");
    let text = std::fs::read_to_string(text).unwrap();
    let directory = support::place("tutorial", &[]);
    std::fs::create_dir_all(directory.join("scenarios")).unwrap();
    let mut commands = 0;
    // Which seed finds the mistake is no promise either: what is typed after it names the one that did here.
    let mut seed: Option<(String, String)> = None;
    for block in text.split("\n```").collect::<Vec<_>>().chunks(2) {
        let [_, block] = block else { continue };
        if let Some(file) = block.strip_prefix("toml\n") {
            std::fs::write(directory.join("scenarios/first.toml"), format!("{file}\n")).unwrap();
            continue;
        }
        let Some(console) = block.strip_prefix("console\n") else { panic!("an unknown block: {block}") };
        let lines: Vec<&str> = console.lines().collect();
        for step in lines.chunk_by(|_, next| !next.starts_with("$ ")) {
            let mut command = step[0].strip_prefix("$ ").expect("a command first").to_owned();
            if let Some((shown, found)) = &seed {
                command = command.replace(shown.as_str(), found);
            }
            let printed = run(&directory, &command);
            let found: Vec<&str> = printed.lines().collect();
            if let Some((shown, found)) = broken(&step[1..]).zip(broken(&found)) {
                seed.get_or_insert((shown.to_owned(), found.to_owned()));
            }
            assert!(fits(&step[1..], &found), "`{command}` prints something else:\n{printed}");
            commands += 1;
        }
    }
    assert!(commands >= 10, "the tutorial shows commands");
}

#[test]
fn a_figure_may_differ_and_a_word_may_not() {
    assert_eq!(
        shape("held: 4 runs, 1362 guest operations, 1.8 s"),
        shape("held: 6 runs, 99 guest operations, 12 s")
    );
    assert_ne!(shape("held: 4 runs"), shape("BROKEN: 4 runs"));
    assert!(fits(&["a", SKIP, "c 1"], &["a", "b", "c 2"]));
    assert!(!fits(&["a", SKIP, "d"], &["a", "b", "c"]));
}
