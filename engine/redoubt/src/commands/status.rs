//! `redoubt status`: how a running service does.

use crate::cli::Status;
use crate::control::{Request, ask};
use crate::failure::Outcome;
use crate::output::{self, Format};
use crate::signals::Signals;
use crate::status::{Report, check, show};
use std::time::Duration;

/// Time between two looks with `--watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

pub(crate) async fn run(args: Status) -> Outcome<()> {
    if args.check {
        return monitor(&args).await;
    }
    let mut signals = Signals::catch()?;
    let is_screen = args.watch && args.common.format == Format::Table && output::is_screen();
    loop {
        let report: Report = ask(&args.state.state, &Request::Status).await?;
        if is_screen {
            output::clear_screen();
        }
        output::data(args.common.format, &report, show);
        if !args.watch {
            return Ok(());
        }
        tokio::select! {
            biased;
            () = signals.stop() => return Ok(()),
            () = tokio::time::sleep(WATCH_INTERVAL) => {}
        }
    }
}

/// Answers a monitoring system, whose exit codes are not this program's.
async fn monitor(args: &Status) -> Outcome<()> {
    let found = match ask::<Report>(&args.state.state, &Request::Status).await {
        Ok(report) => check::check(&report),
        Err(failure) => check::unknown(&failure.what),
    };
    output::data(args.common.format, &found, |found| found.text.clone());
    std::process::exit(found.code.into())
}
