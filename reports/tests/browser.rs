//! The page in a real browser, as five readers see it: no request, no complaint, and words that can be read.
//!
//! `REDOUBT_REPORT_PICTURES=1` leaves pictures of what they saw in `target/tmp`.

#![expect(
    clippy::disallowed_methods,
    reason = "a test writes pages and starts a browser on the real machine"
)]

mod common;
#[path = "common/browser.rs"]
mod driver;
#[path = "common/capacity.rs"]
mod plan;

use driver::{Browser, Reader};
use std::path::Path;

const READERS: [Reader; 5] = [
    Reader { name: "light", width: 1280, is_dark: false, is_print: false },
    Reader { name: "dark", width: 1280, is_dark: true, is_print: false },
    Reader { name: "phone", width: 360, is_dark: false, is_print: false },
    Reader { name: "tablet", width: 760, is_dark: true, is_print: false },
    // As wide as a sheet of A4 between its margins; the browser's scheme must not reach the paper.
    Reader { name: "print", width: 688, is_dark: true, is_print: true },
];

#[test]
fn every_reader_sees_all_of_the_page_and_the_page_asks_for_nothing() {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (broken, held) = (common::broken(), common::held());
    let pages = [
        ("broken", redoubt_reports::html(&broken, Some(&held)), "Failures by cause"),
        ("held", redoubt_reports::html(&held, None), "Every promise held"),
        ("capacity", redoubt_reports::html(&plan::capacity(), None), "The smallest link that keeps it: 16.8"),
    ];
    let mut browser = Browser::start(&place.join("browser"));
    for (name, html, words) in pages {
        let file = place.join(name).with_extension("html");
        std::fs::write(&file, html).unwrap();
        for reader in READERS {
            let met = browser.open(&file, reader);
            let what =
                format!("{name} for {}: {:#?}", reader.name, (&met.problems, &met.console, &met.requests));
            assert!(met.console.is_empty() && met.requests.is_empty(), "{what}");
            assert!(met.problems.is_empty(), "{what}");
            assert!(met.words.contains(words) && met.words.contains(common::LONG), "{what}");
            assert!(met.boxes > 200, "{what}");
        }
    }
}
