//! The command line as a whole: consistent, helpful, and no wider than a terminal.

use super::*;
use clap::CommandFactory;

fn leaves(command: &clap::Command, path: &str, visit: &mut dyn FnMut(&clap::Command, &str)) {
    let path = format!("{path} {}", command.get_name()).trim().to_owned();
    if command.get_subcommands().next().is_none() {
        visit(command, &path);
    }
    for child in command.get_subcommands().filter(|child| child.get_name() != "help") {
        leaves(child, &path, visit);
    }
}

#[test]
fn the_command_tree_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_leaf_takes_a_format() {
    let mut count = 0;
    leaves(&Cli::command(), "", &mut |leaf, path| {
        count += 1;
        let format = leaf.get_arguments().find(|arg| arg.get_long() == Some("format"));
        let format = format.unwrap_or_else(|| panic!("{path} has no --format"));
        let values: Vec<_> =
            format.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
        assert_eq!(values, ["table", "json"], "{path}");
    });
    assert!(count >= 9);
}

#[test]
fn help_reads_well() {
    insta::assert_snapshot!(help(100));
}

#[test]
fn help_fits_the_terminal() {
    for width in [80, 120] {
        let text = help(width);
        let wide = text.lines().find(|line| line.chars().count() > width);
        assert_eq!(wide, None, "wider than {width}");
    }
}

fn help(width: usize) -> String {
    let mut text = Cli::command().term_width(width).render_help().to_string();
    leaves(&Cli::command(), "", &mut |leaf, path| {
        text += &format!("\n=== {path}\n{}", leaf.clone().term_width(width).render_help());
    });
    text
}

#[test]
fn a_wrong_option_is_answered_with_the_right_one() {
    let error = Cli::try_parse_from(["redoubt", "up", "--vualt", "x"]).unwrap_err().to_string();
    assert!(error.contains("--vault"), "{error}");
    let error = Cli::try_parse_from(["redoubt", "up", "--disk", "erp"]).unwrap_err().to_string();
    assert!(error.contains("NAME=PATH"), "{error}");
}
