//! `redoubt scrub`: reads all of a vault, says what is damaged and what that takes; with `--repair` the running
//! service sends again what the newest state has lost.

use super::progress;
use super::scrub_notes::Notes;
use crate::cli::Scrub as Args;
use crate::control::{RangeRequest, Request, ask};
use crate::failure::{Exit, Failure, Outcome};
use crate::names::{self, Known, WhichMachine};
use crate::output;
use crate::recovery::{self, Place};
use crate::scrubbed::{RepairJson, Scrubbed, Word, show};
use crate::signals::Signals;
use redoubt_core::{Extent, MachineId, Names, SECTOR_BYTES, VolumeId, VolumeIndex};
use redoubt_host::HostWorkers;
use redoubt_ports::RawStore;
use redoubt_vault::scrub::{Report, Scrub, ScrubSettings, ScrubWatch};
use redoubt_vault::{MachineReader, PointId, Vault};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// How often the bar moves.
const BAR: Duration = Duration::from_millis(200);
/// How often the vault is asked for a whole point.
const LOOK: Duration = Duration::from_millis(500);
/// Ranges of one request; they fit in a line of the control socket.
const RANGES_AT_ONCE: usize = 4000;
/// Sectors of one read at most, when a repair is checked.
const READ_SECTORS: u64 = 8192;

pub(crate) async fn run(args: Args) -> Outcome<()> {
    let mut signals = Signals::catch()?;
    let place = recovery::locate(&args.vault.which)?;
    let store = recovery::open_store(&place.settings).await?;
    let workers = Arc::new(HostWorkers::new());
    let settings = ScrubSettings { rate_max: args.rate_max, ..ScrubSettings::default() };
    let scrub = match args.without_key {
        true => Scrub::without_keys(Arc::clone(&store), workers, settings),
        false => {
            let keys = place.key.read()?;
            Scrub::with_keys(Arc::clone(&store), keys, workers, settings).await?
        }
    };
    let vault = match args.without_key {
        true => None,
        // A vault that does not open is for the scrub to tell.
        false => Vault::open(Arc::clone(&store), place.key.read()?).await.ok(),
    };
    let machines = match (&args.vault.machine, &vault) {
        (Some(WhichMachine::Id(machine)), _) => vec![*machine],
        (Some(WhichMachine::Name(name)), Some(vault)) => {
            vec![names::find_machine(vault, &place.settings.url.to_string(), Some(name)).await?]
        }
        (Some(WhichMachine::Name(_)), None) => {
            let what = "without a key no name of a machine can be read";
            return Err(Failure::usage(what).hint("write its 32 hexadecimal digits"));
        }
        (None, _) => scrub.machines().await?,
    };
    if machines.is_empty() {
        let what = format!("vault {} holds no machine yet", place.settings.url);
        return Err(Failure::new(Exit::Refused, what).hint("wait for the first recovery point"));
    }
    let mut all = Vec::new();
    let (mut notes, watch) = notes(&args, &place)?;
    for machine in machines {
        let report = one(&args, &scrub, machine, &watch, notes.as_mut(), &mut signals).await?;
        let told = match &vault {
            Some(vault) => vault.names(machine).await.unwrap_or_default(),
            None => Names::default(),
        };
        let known = Known::new(machine, &told, place.local_names());
        let named = |index: VolumeIndex| {
            let id = report.volumes.get(&index).copied();
            id.map_or_else(|| index.0.to_string(), |id| known.volume(id))
        };
        let mut scrubbed = Scrubbed::new(&report, named);
        known.machine_name().clone_into(&mut scrubbed.name);
        if args.repair {
            scrubbed.repair = Some(repair(&args, &place, &store, &report, &mut signals).await?);
        }
        all.push(scrubbed);
    }
    if let Some(notes) = notes.filter(|_| all.iter().all(|scrubbed| scrubbed.is_all)) {
        notes.remove()?;
    }
    output::data(args.common.format, &all, |all| show(all));
    let worst = |word| all.iter().find(|scrubbed| scrubbed.verdict == word);
    let worst =
        [Word::Damaged, Word::Unread, Word::Stopped, Word::Harmless, Word::Whole].into_iter().find_map(worst);
    worst.map_or(Ok(()), Scrubbed::outcome)
}

/// Opens the notes of a scrub that is to go on, or begins them.
fn notes(args: &Args, place: &Place) -> Outcome<(Option<Notes>, ScrubWatch)> {
    let Some(path) = &args.resume else { return Ok((None, ScrubWatch::default())) };
    let depth = if args.without_key { "without its key" } else { "with its key" };
    let (notes, known) = Notes::open(path, &format!("vault {}, {depth}", place.settings.url))?;
    Ok((Some(notes), ScrubWatch::resumed(known)))
}

/// Scrubs one machine under a bar, and notes what was found whole; a signal ends it at the next object.
async fn one(
    args: &Args,
    scrub: &Scrub,
    machine: MachineId,
    watch: &ScrubWatch,
    mut notes: Option<&mut Notes>,
    signals: &mut Signals,
) -> Outcome<Report> {
    let bar = progress::bytes(&args.common, "scrub", 0);
    let mut work = std::pin::pin!(scrub.machine(machine, watch));
    let report = loop {
        tokio::select! {
            biased;
            report = &mut work => break report,
            () = signals.stop() => watch.stop(),
            () = tokio::time::sleep(BAR) => {
                let (done, all) = watch.progress();
                bar.set_length(all);
                bar.set_position(done);
                keep_notes(watch, notes.as_deref_mut())?;
            }
        }
    };
    bar.finish_and_clear();
    keep_notes(watch, notes)?;
    Ok(report?)
}

fn keep_notes(watch: &ScrubWatch, notes: Option<&mut Notes>) -> Outcome<()> {
    let whole = watch.take_whole();
    notes.map_or(Ok(()), |notes| notes.add(&whole))
}

/// Has the source send the ranges that the newest state has lost, and waits for a point that has them.
async fn repair(
    args: &Args,
    place: &Place,
    store: &Arc<dyn RawStore>,
    report: &Report,
    signals: &mut Signals,
) -> Outcome<RepairJson> {
    let lost: BTreeSet<(VolumeIndex, u64, u64)> = report
        .damage
        .iter()
        .flat_map(|damage| &damage.newest)
        .map(|(volume, range)| (*volume, range.start, range.end))
        .collect();
    let bytes = lost.iter().map(|(_, from, to)| (to - from) * SECTOR_BYTES).sum();
    let mut done = RepairJson { ranges: lost.len() as u64, bytes, whole_since: None };
    if lost.is_empty() {
        return Ok(done);
    }
    let range = |(index, from, to): &(VolumeIndex, u64, u64)| {
        let volume = report.volumes.get(index)?.to_string();
        let (offset, bytes) = (from * SECTOR_BYTES, (to - from) * SECTOR_BYTES);
        Some(RangeRequest { volume, offset, bytes })
    };
    let ranges: Vec<RangeRequest> = lost.iter().filter_map(range).collect();
    let keys = place.key.read()?;
    let vault = Vault::open(Arc::clone(store), keys).await?;
    let before = MachineReader::open_damaged(&vault, report.machine).await?.0.slot();
    let state = &args.vault.which.state.state;
    let mut taken = 0;
    for ranges in ranges.chunks(RANGES_AT_ONCE) {
        let request = Request::Resync { machine: report.machine.to_string(), ranges: ranges.to_vec() };
        taken += ask::<u64>(state, &request).await?;
    }
    if taken < bytes {
        let what = format!("the service protects only {taken} of the {bytes} bytes that are lost");
        return Err(Failure::new(Exit::Failed, what)
            .hint("a volume that is protected no longer cannot be healed; its older points may be whole"));
    }
    loop {
        if let Some(point) = whole_point(&vault, report, &lost, before).await? {
            done.whole_since = Some(format!("{}.{}", point.slot, point.ordinal));
            return Ok(done);
        }
        // A service that is gone will make no point.
        let _: crate::status::Report = ask(state, &Request::Status).await?;
        tokio::select! {
            biased;
            () = signals.stop() => {
                return Err(Failure::new(Exit::Failed, "interrupted; the repair goes on in the service")
                    .hint("`redoubt status` shows how far it is, `redoubt scrub` whether it is done"));
            }
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// Returns the newest point, if it was made since and holds all that was lost.
async fn whole_point(
    vault: &Vault,
    report: &Report,
    lost: &BTreeSet<(VolumeIndex, u64, u64)>,
    before: u64,
) -> Outcome<Option<PointId>> {
    // Opened anew: what a reader has in memory says nothing of what is stored.
    let (reader, _) = MachineReader::open_damaged(vault, report.machine).await?;
    let Some(point) = reader.points().pop().filter(|point| point.id.slot > before) else { return Ok(None) };
    let view = reader.view(point.id)?;
    for (volume, from, to) in lost {
        let size = view.volumes().get(volume).map_or(0, |info| info.sectors.0);
        let (mut at, to) = (*from, size.min(*to));
        while at < to {
            let step = Extent::new(at, READ_SECTORS.min(to - at));
            if view.read(*volume, step).await.is_err() {
                return Ok(None);
            }
            at = step.end();
        }
    }
    Ok(Some(point.id))
}

/// Reads a range of a request.
pub(crate) fn range_of(request: &RangeRequest) -> Outcome<(VolumeId, Extent)> {
    let wrong = || Failure::usage(format!("{request:?} names no range of whole sectors"));
    let id = u128::from_str_radix(&request.volume, 16).map_err(|_| wrong())?;
    let is_whole = request.offset.is_multiple_of(SECTOR_BYTES) && request.bytes.is_multiple_of(SECTOR_BYTES);
    let fits = request.offset.checked_add(request.bytes).is_some();
    if !is_whole || !fits || request.bytes == 0 {
        return Err(wrong());
    }
    Ok((VolumeId(id), Extent::new(request.offset / SECTOR_BYTES, request.bytes / SECTOR_BYTES)))
}
