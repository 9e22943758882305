//! `redoubt status`: how a running service does.

use crate::cli::Status;
use crate::control::{Request, ask};
use crate::failure::Outcome;
use crate::output;
use crate::signals::Signals;
use crate::status::{StatusReport, show};
use std::time::Duration;

/// Time between two looks with `--watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

pub(crate) async fn run(args: Status) -> Outcome<()> {
    let mut signals = Signals::catch()?;
    loop {
        let report: StatusReport = ask(&args.state.state, &Request::Status).await?;
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
