//! `redoubt resync`: has a running service compare its disks with the vault and send what differs, and waits for the
//! end of it.
//!
//! What is *not* here: the comparison itself (`redoubt_core::resync`).

use super::progress;
use crate::cli::Resync as Args;
use crate::control::{Request, Taken, ask};
use crate::failure::{Exit, Failure, Outcome};
use crate::names::{self, WhichMachine};
use crate::output::{self, say};
use crate::signals::Signals;
use crate::status::{CopyReport, PointReport, Report, StatusReport, StreamState};
use crate::units::{show_size, show_wall};
use redoubt_core::SECTOR_BYTES;
use redoubt_core::extent_map::BLOCK_SECTORS;
use serde::Serialize;
use std::path::Path;
use std::time::Duration;

/// How often the service is asked how far it is.
const LOOK: Duration = Duration::from_millis(250);

/// What came of it.
#[derive(Debug, Serialize)]
struct Compared {
    machine: String,
    name: String,
    volumes: Vec<String>,
    bytes: u64,
    /// A resync was under way, and began again.
    joined: bool,
    /// What the comparison did; none if it was not waited for.
    copy: Option<CopyReport>,
    /// The first point behind it that was seen; none if this service does not see the vault.
    point: Option<PointReport>,
}

pub(crate) async fn run(args: Args) -> Outcome<()> {
    let mut signals = Signals::catch()?;
    let machine = match &args.machine {
        WhichMachine::Id(id) => id.to_string(),
        WhichMachine::Name(name) => name.clone(),
    };
    let state = &args.state.state;
    let taken: Taken = ask(state, &Request::Compare { machine, volumes: args.volumes.clone() }).await?;
    if taken.joined {
        say("a resync was under way: it begins again, with these disks");
    }
    let (mut copy, mut point) = (None, None);
    if !args.no_wait {
        let bar = progress::bytes(&args.common, "resync", taken.bytes);
        let end = ended(state, &taken, &bar, &mut signals).await;
        bar.finish_and_clear();
        (copy, point) = end?;
    }
    let Taken { machine, name, volumes, bytes, joined, .. } = taken;
    let compared = Compared { machine, name, volumes, bytes, joined, copy, point };
    output::data(args.common.format, &compared, show);
    Ok(())
}

/// Waits until everything is in the vault, and where the service sees the vault until a point has it.
async fn ended(
    state: &Path,
    taken: &Taken,
    bar: &indicatif::ProgressBar,
    signals: &mut Signals,
) -> Outcome<(Option<CopyReport>, Option<PointReport>)> {
    let mut is_told = false;
    loop {
        let report = status(state, taken).await?;
        if let Some(progress) = report.progress {
            let bytes = |blocks: u64| blocks * BLOCK_SECTORS * SECTOR_BYTES;
            bar.set_length(bytes(progress.blocks_total));
            bar.set_position(bytes(progress.blocks_done));
        }
        if matches!(report.state, StreamState::Protected | StreamState::Spilling) {
            // None inside a resync becomes a point, so the next one is behind it.
            let behind = report.newest_point.filter(|point| point.seq > taken.since);
            if behind.is_some() || report.points.is_none() {
                return Ok((report.copy, behind));
            }
        } else if !report.connected && !std::mem::replace(&mut is_told, true) {
            bar.suspend(|| say("the process server does not answer: the comparison goes on when it does"));
        }
        tokio::select! {
            biased;
            () = signals.stop() => {
                return Err(Failure::new(Exit::Failed, "interrupted; the comparison goes on in the service")
                    .hint("`redoubt status` shows how far it is"));
            }
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

async fn status(state: &Path, taken: &Taken) -> Outcome<StatusReport> {
    match ask(state, &Request::Status).await? {
        Report::Agent(report) if report.generation == taken.generation => Ok(*report),
        _ => Err(Failure::new(Exit::Failed, "the service was started anew before the comparison was over")
            .hint("ask again")),
    }
}

fn show(compared: &Compared) -> String {
    let machine = names::machine(&compared.machine, &compared.name);
    let mut text =
        format!(" machine {machine}: {}, {}\n", compared.volumes.join(", "), show_size(compared.bytes));
    let Some(copy) = &compared.copy else {
        return text + " the comparison is taken up; `redoubt status` shows how far it is\n";
    };
    let differed = match copy.sent_bytes {
        0 => "nothing differed".to_owned(),
        sent => format!("{} differed and were sent", show_size(sent)),
    };
    text += &format!(" {} compared, {differed}\n", show_size(copy.compared_bytes));
    text += &match &compared.point {
        Some(point) => {
            format!(" points from {} of {} UTC on have all of it\n", point.point, show_wall(point.wall_ms))
        }
        None => " the next recovery point has all of it\n".to_owned(),
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(sent_bytes: u64, point: Option<PointReport>) -> Compared {
        let copy = CopyReport { compared_bytes: 2 << 30, sent_bytes, equal_bytes: (2 << 30) - sent_bytes };
        Compared {
            machine: "0123456789abcdef0123456789abcdef".into(),
            name: "erp-host".into(),
            volumes: vec!["erp".into(), "logs".into()],
            bytes: 2 << 30,
            joined: false,
            copy: Some(copy),
            point,
        }
    }

    #[test]
    fn a_comparison_says_what_differed_and_which_point_has_it() {
        let point = PointReport { point: "17.0".into(), wall_ms: 1_772_373_731_000, seq: 9 };
        insta::assert_snapshot!(show(&compared(64 << 10, Some(point))));
        let text = show(&compared(0, None));
        assert!(text.contains("2.0 GiB compared, nothing differed\n") && text.contains("the next"), "{text}");
        let text = show(&Compared { copy: None, ..compared(0, None) });
        assert!(text.contains("taken up; `redoubt status`") && !text.contains("differed"), "{text}");
    }
}
