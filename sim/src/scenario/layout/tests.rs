//! Tests of the layout: what it makes of a mess, that it is stable, and that no comment gets lost.

use super::*;
use proptest::prelude::*;

fn laid(source: &str) -> String {
    let once = layout(source, FileKind::Scenario).unwrap_or_else(|error| panic!("{error}\n{source}"));
    assert_eq!(layout(&once, FileKind::Scenario).as_ref(), Ok(&once), "laid out twice");
    once
}

const MESS: &str = r#"# What this is about.
why="Because."   # really
title   = "A mess"
format=1
tags = [ "a",
  # about b
  "b" ]
seeds={nightly=20,pr=2}

[timeline] # the story
steps = [ # from the top
  # First a point.
  {do="point",at="1 s",on="erp-db"}, # one

  { for = "$cut", rate = "5 %", at = "10 s", fault = "link.loss", id = "lossy", on = "wan" },
  { at = "lossy + 5 s", end = true } # the end
  # nothing behind it
]
[expect]
sometimes = ["point-published", "point-outlived-an-outage", "spilled", "session-lost", "hot-extents-compared", "overflowed"]
[protect.erp]
rpo = "30 s"
machines = ["*"]
[vary]
# how long
cut = "2..5 s"

# the last word
"#;

#[test]
fn a_mess_becomes_what_everybody_writes() {
    let expected = r#"format = 1
title  = "A mess"
# What this is about.
why    = "Because."  # really
tags   = [
  "a",
  # about b
  "b",
]
seeds  = { pr = 2, nightly = 20 }

[protect.erp]
machines = ["*"]
rpo      = "30 s"

[vary]
# how long
cut = "2..5 s"

[timeline]  # the story
steps = [
  # from the top
  # First a point.
  { at = "1 s",         do    = "point",     on = "erp-db" },  # one

  { at = "10 s",        fault = "link.loss", on = "wan", rate = "5 %", for = "$cut", id = "lossy" },
  { at = "lossy + 5 s", end   = true },  # the end
  # nothing behind it
]

[expect]
sometimes = [
  "point-published",
  "point-outlived-an-outage",
  "spilled",
  "session-lost",
  "hot-extents-compared",
  "overflowed",
]

# the last word
"#;
    assert_eq!(laid(MESS), expected);
}

#[test]
fn what_is_no_toml_stays_as_it_is() {
    assert_eq!(layout("format = ", FileKind::Scenario), Err(LayoutError::Syntax));
}

#[test]
fn unknown_keys_stay_and_come_last() {
    let text = laid(
        "tilte = \"x\"\nformat = 1\n[timeline]\nsteps = [{ wehn = \"1 s\", at = \"2 s\", end = true }]\n",
    );
    assert_eq!(
        text,
        "format = 1\ntilte  = \"x\"\n\n[timeline]\nsteps = [{ at = \"2 s\", end = true, wehn = \"1 s\" }]\n"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn wherever_comments_stand_none_is_lost_and_the_layout_is_stable(
        places in proptest::collection::vec((0usize..40, any::<bool>(), any::<bool>()), 0..12),
    ) {
        let mut lines: Vec<String> = MESS.lines().map(str::to_owned).collect();
        for (number, (place, is_alone, is_apart)) in places.into_iter().enumerate() {
            let place = place % lines.len();
            if is_alone {
                lines.insert(place, format!("   # alone {number}"));
            } else if !lines[place].contains('#') {
                lines[place].push_str(&format!("# behind {number}"));
            }
            if is_apart {
                lines.insert(place, String::new());
            }
        }
        laid(&lines.join("\n"));
    }
}
