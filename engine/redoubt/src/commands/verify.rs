//! `redoubt verify`: a second reader proves the log and compares what it reads with what the engine serves.
//!
//! What is *not* here: the proof (`redoubt-verifier`), how the verdict looks (`crate::verdict`).

use super::progress;
use crate::cli::Verify;
use crate::failure::{Exit, Failure, Outcome};
use crate::output;
use crate::recovery::{self, Recovery, point_name};
use crate::signals::Signals;
use crate::verdict::{Compared, Verdict, show};
use indicatif::ProgressBar;
use redoubt_core::{Extent, SECTOR_BYTES, VolumeIndex};
use redoubt_ports::StoreKey;
use redoubt_vault::{PointInfo, PointView, ReadError, Vault};
use redoubt_verifier::{Content, Fault, Objects, Point, Proof, content, prove};
use std::ops::Range;
use tokio::runtime::Handle;
use zeroize::Zeroizing;

/// Sectors asked of the engine's index at once, where the other reader sees zeros; bounds the answer.
const ZEROS_STEP: u64 = 1 << 21;
/// Sectors read at once where only the engine sees data.
const READ_STEP: u64 = 8192;

pub(crate) async fn run(args: Verify) -> Outcome<()> {
    let mut signals = Signals::catch()?;
    let recovery = recovery::open(&args.vault).await?;
    let wanted = match &args.point {
        // One that the engine cannot reach behind damage may still be known to the proof by its name.
        Some(text) => Some(recovery.point(text)),
        // Without a name it is whatever is left.
        None => recovery.reader.points().last().cloned().map(Ok),
    };
    let job = Job {
        key: recovery.key.read_bytes()?,
        machine: recovery.machine.to_string(),
        vault: recovery.vault.clone(),
        handle: Handle::current(),
    };
    let steps = progress::steps(&args.common, "log", 0);
    let bytes = progress::bytes(&args.common, "bytes", 0);
    let (point, limit) = match &wanted {
        Some(Ok(point)) => (Some(point.clone()), args.point.as_ref().map(|_| point.id.slot)),
        _ => (None, None),
    };
    let view = point.as_ref().map(|point| recovery.reader.view(point.id)).transpose()?;
    let work = tokio::task::spawn_blocking(move || job.run(limit, point.zip(view), &steps, &bytes));
    let done = tokio::select! {
        biased;
        () = signals.stop() => return Err(Failure::new(Exit::Failed, "interrupted; nothing is proven")),
        done = work => done,
    };
    let (proof, compared) = done.map_err(|error| Failure::new(Exit::Tool, error.to_string()))??;
    let point = match wanted {
        Some(Err(failure)) => match proof.lost.iter().find(|lost| args.point == Some(name(lost))) {
            Some(_) => None,
            None => return Err(failure),
        },
        other => other.transpose()?,
    };
    finish(&args, &recovery, point.as_ref(), &proof, compared)
}

fn name(point: &Point) -> String {
    format!("{}.{}", point.slot, point.ordinal)
}

fn finish(
    args: &Verify,
    recovery: &Recovery,
    point: Option<&PointInfo>,
    proof: &Proof,
    compared: Vec<Compared>,
) -> Outcome<()> {
    let named = |ordinal: u16| {
        let of = |point: &PointInfo| {
            let found = recovery.volumes(point).into_iter().find(|(index, ..)| index.0 == ordinal);
            found.map(|(_, name, _)| name)
        };
        let points = recovery.reader.points();
        point.and_then(of).or_else(|| points.iter().rev().find_map(of)).unwrap_or_else(|| ordinal.to_string())
    };
    let asked = args.point.as_ref().map(|text| point.map_or(text.clone(), point_name));
    let mut verdict = Verdict::new(recovery.machine.to_string(), asked, point, proof, compared, named);
    recovery.known.machine_name().clone_into(&mut verdict.name);
    output::data(args.common.format, &verdict, show);
    verdict.outcome()?;
    // The newest point that is left may be older than the one that was meant.
    recovery.done()
}

/// What runs on a thread of its own: the second reader waits for the store.
struct Job {
    key: Zeroizing<[u8; 32]>,
    machine: String,
    vault: Vault,
    handle: Handle,
}

impl Objects for Job {
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, String> {
        let found = self.handle.block_on(self.vault.object(&StoreKey::new(name)));
        found.map(|bytes| bytes.map(|bytes| bytes.to_vec())).map_err(|error| error.to_string())
    }

    fn list(&self, prefix: &str) -> Result<Vec<String>, String> {
        let names = self.handle.block_on(self.vault.objects(prefix)).map_err(|error| error.to_string())?;
        Ok(names.into_iter().map(|name| name.to_string()).collect())
    }
}

fn failed(fault: Fault) -> Failure {
    match fault {
        Fault::Store(what) => Failure::new(Exit::Unreachable, what).hint(
            "check that the vault can be reached, then verify again; nothing is known of what was not read",
        ),
        Fault::Damage(damage) => {
            Failure::new(Exit::Failed, format!("vault: {} is damaged: {}", damage.object, damage.what))
                .hint("restore the object from a copy of the vault")
        }
    }
}

impl Job {
    fn run(
        &self,
        limit: Option<u64>,
        point: Option<(PointInfo, PointView)>,
        steps: &ProgressBar,
        bytes: &ProgressBar,
    ) -> Outcome<(Proof, Vec<Compared>)> {
        let walked = prove(self, &self.key, &self.machine, limit, |done, all| {
            steps.set_length(all);
            steps.set_position(done);
        });
        steps.finish_and_clear();
        let proof = walked.map_err(failed)?;
        let same =
            |point: &&Point, info: &PointInfo| (point.slot, point.ordinal) == (info.id.slot, info.id.ordinal);
        let found = point.and_then(|(info, view)| {
            proof.points.iter().find(|point| same(point, &info)).map(|point| (point.clone(), info, view))
        });
        let Some((point, info, view)) = found else { return Ok((proof, Vec::new())) };
        let compared = self.compare(&proof, &point, &info, &view, bytes);
        bytes.finish_and_clear();
        Ok((proof, compared?))
    }

    /// Compares all of a point, byte by byte, as both readers see it.
    fn compare(
        &self,
        proof: &Proof,
        point: &Point,
        info: &PointInfo,
        view: &PointView,
        bar: &ProgressBar,
    ) -> Outcome<Vec<Compared>> {
        let volumes = info.volumes.iter().map(|(index, volume)| (index.0, volume.id.0, volume.sectors.0));
        let others =
            point.volumes.iter().map(|(index, (id, sectors))| (*index, u128::from_be_bytes(*id), *sectors));
        let agree =
            volumes.eq(others) && point.marker == info.marker.id.0.to_be_bytes() && point.seq == info.seq.0;
        let start = |(index, (_, sectors)): (&u16, &([u8; 16], u64))| {
            Compared::new(*index, sectors * SECTOR_BYTES, agree)
        };
        let mut compared: Vec<Compared> = point.volumes.iter().map(start).collect();
        bar.set_length(compared.iter().map(|volume| volume.bytes).sum());
        content(self, proof, point, |ordinal, sectors, content| {
            let Some(volume) = compared.iter_mut().find(|volume| volume.volume == ordinal) else {
                return Ok(());
            };
            let index = VolumeIndex(ordinal);
            match content {
                Content::Data(data) => self.same(view, index, sectors.clone(), data, volume)?,
                Content::Zeros => self.zeros(view, index, sectors.clone(), volume)?,
                Content::Lost => self.lost(view, index, sectors.clone(), volume)?,
            }
            bar.inc((sectors.end - sectors.start) * SECTOR_BYTES);
            Ok(())
        })
        .map_err(failed)?;
        Ok(compared)
    }

    /// Reads as a mount would; `None` is damage.
    fn read(
        &self,
        view: &PointView,
        volume: VolumeIndex,
        sectors: Range<u64>,
    ) -> Result<Option<bytes::Bytes>, Fault> {
        let extent = Extent::new(sectors.start, sectors.end - sectors.start);
        match self.handle.block_on(view.read(volume, extent)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(ReadError::Store(silent)) => Err(Fault::Store(silent.to_string())),
            Err(_) => Ok(None),
        }
    }

    fn same(
        &self,
        view: &PointView,
        volume: VolumeIndex,
        sectors: Range<u64>,
        data: &[u8],
        compared: &mut Compared,
    ) -> Result<(), Fault> {
        let served = self.read(view, volume, sectors.clone())?;
        let matches = served.is_some_and(|served| served == data);
        compared.data_bytes += data.len() as u64;
        compared.see(sectors, matches);
        Ok(())
    }

    fn zeros(
        &self,
        view: &PointView,
        volume: VolumeIndex,
        sectors: Range<u64>,
        compared: &mut Compared,
    ) -> Result<(), Fault> {
        let mut at = sectors.start;
        while at < sectors.end {
            let step = Extent::new(at, ZEROS_STEP.min(sectors.end - at));
            at = step.end();
            let Ok(data) = self.handle.block_on(view.data_extents(volume, step)) else {
                compared.see(step.lba.0..step.end(), false);
                continue;
            };
            for extent in data {
                let mut from = extent.lba.0;
                while from < extent.end() {
                    let part = from..extent.end().min(from + READ_STEP);
                    from = part.end;
                    let served = self.read(view, volume, part.clone())?;
                    compared.see(part, served.is_some_and(|served| served.iter().all(|byte| *byte == 0)));
                }
            }
        }
        Ok(())
    }

    /// What is lost to the second reader must not be served by the first.
    fn lost(
        &self,
        view: &PointView,
        volume: VolumeIndex,
        sectors: Range<u64>,
        compared: &mut Compared,
    ) -> Result<(), Fault> {
        let served = self.read(view, volume, sectors.clone())?;
        compared.lost_bytes += (sectors.end - sectors.start) * SECTOR_BYTES;
        compared.see(sectors, served.is_none());
        Ok(())
    }
}
