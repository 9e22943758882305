//! `redoubt import`: images of disks as a seed, before their machine is protected (decision 0026).
//!
//! - IM-1 The machine's identity is durable in its state directory before the vault learns it.
//! - IM-2 Images are opened, and refused, before anything is made.

use super::progress;
use crate::cli::{DiskArg, Import};
use crate::failure::{Exit, Failure, Outcome};
use crate::image_source::ImageSource;
use crate::output;
use crate::recovery;
use crate::services::vault;
use crate::signals::Signals;
use crate::state::{self, Record, State};
use crate::units::show_size;
use futures::stream::{self, StreamExt};
use indicatif::ProgressBar;
use redoubt_core::{Extent, MachineId};
use redoubt_host::{HostEntropy, HostWorkers};
use redoubt_ports::Entropy;
use redoubt_roles::agent::VolumeSpec;
use redoubt_vault::{CommitError, Seed, SeedDisk, SeedError, Seeded};
use serde::Serialize;
use std::sync::Arc;

/// Sectors read at once, 4 MiB.
const STEP_SECTORS: u64 = 8192;
/// Such reads at once, while a commit is under way.
const READS_AT_ONCE: usize = 4;
/// Sectors asked for their data at once, 1 GiB.
const LOOK_SECTORS: u64 = 1 << 21;

#[derive(Serialize)]
struct Imported {
    machine: String,
    /// The machine's agent is elsewhere and must be told its identity.
    is_elsewhere: bool,
    disks: Vec<ImportedDisk>,
}

#[derive(Serialize)]
struct ImportedDisk {
    name: String,
    image: String,
    bytes: u64,
    data_bytes: u64,
    /// What the vault did not have.
    put_bytes: u64,
}

pub(crate) async fn run(args: Import) -> Outcome<()> {
    let mut signals = Signals::catch()?;
    let images = open_images(&args)?;
    let place = recovery::locate(&args.which)?;
    vault::check(&place.settings, &place.key).await?;
    let (machine, record) = machine_of(&args, &images).await?;
    let opened = vault::open(&place.settings, &place.key).await?;
    // The directory stays locked as long as the import takes.
    let _state = match record {
        Some((state, mut record)) => {
            record.note(&place.settings, place.key.file());
            state.save(&record).await?;
            Some(state)
        }
        None => None,
    };
    let disks: Vec<SeedDisk> = images.iter().map(|(disk, image)| seed_disk(machine, disk, image)).collect();
    let total = disks.iter().map(|disk| disk.sectors.bytes()).sum();
    let progress = progress::bytes(&args.common, "import", total);
    let importing = async {
        let (entropy, workers) = (Arc::new(HostEntropy), Arc::new(HostWorkers::new()));
        let mut seed =
            Seed::begin(&opened.vault, machine, &disks, entropy, workers).await.map_err(failure)?;
        let mut done = Vec::new();
        for (at, (_, image)) in images.iter().enumerate() {
            done.push(copy(&mut seed, at, image, &progress).await?);
        }
        seed.finish().await.map_err(failure)?;
        Ok(done)
    };
    let imported = tokio::select! {
        biased;
        () = signals.stop() => Err(Failure::new(Exit::Failed, "interrupted")
            .hint("what was imported stays; the same command goes on with it")),
        imported = importing => imported,
    };
    progress.finish_and_clear();
    report(&args, machine, &images, imported?);
    Ok(())
}

fn open_images(args: &Import) -> Outcome<Vec<(DiskArg, ImageSource)>> {
    for (at, image) in args.images.iter().enumerate() {
        if args.images[..at].iter().any(|other| other.name == image.name) {
            return Err(Failure::usage(format!("two images are of disk {:?}", image.name))
                .hint("give each disk its own name"));
        }
    }
    let mut images = args.images.clone();
    // An agent's first start has them in this order too, whatever the order of its options.
    images.sort_by(|a, b| a.name.cmp(&b.name));
    let open = |image: DiskArg| {
        let source = ImageSource::open(&image.path, args.from_format)?;
        Ok((image, source))
    };
    images.into_iter().map(open).collect()
}

/// Returns the machine that the seed is for, and its record if its state directory is here.
async fn machine_of(
    args: &Import,
    images: &[(DiskArg, ImageSource)],
) -> Outcome<(MachineId, Option<(State, Record)>)> {
    if let Some(id) = args.machine {
        return Ok((MachineId(id), None));
    }
    if args.new_machine {
        return Ok((MachineId(HostEntropy.id()), None));
    }
    let state = State::own(&args.which.state.state).await?;
    let mut record = state::peek(&state.path)?.unwrap_or_else(|| Record::new(&HostEntropy));
    if !record.disks.is_empty() {
        let what = format!("{} protects disks already", state.path.display());
        return Err(Failure::new(Exit::Refused, what).hint(
            "a seed comes before the first start; with another --state directory it is for a new machine",
        ));
    }
    images.iter().for_each(|(disk, _)| record.seed(&disk.name));
    let machine = record.machine().ok_or_else(|| Failure::new(Exit::Tool, "the record has no machine"))?;
    Ok((machine, Some((state, record))))
}

fn seed_disk(machine: MachineId, disk: &DiskArg, image: &ImageSource) -> SeedDisk {
    let id = VolumeSpec::new(&disk.name, "").id_in(machine);
    SeedDisk { id, name: disk.name.clone(), sectors: image.sectors() }
}

/// Puts one image; what is read next is read while something is put.
async fn copy(seed: &mut Seed, at: usize, image: &ImageSource, progress: &ProgressBar) -> Outcome<Seeded> {
    let (before, start, size) = (seed.so_far(), progress.position(), image.sectors().0);
    for from in (0..size).step_by(LOOK_SECTORS as usize) {
        let window = Extent::new(from, LOOK_SECTORS.min(size - from));
        let read = |(extent, has_data): (Extent, bool)| {
            let image = image.clone();
            let read =
                tokio::spawn(
                    async move { if has_data { image.read(extent).await.map(Some) } else { Ok(None) } },
                );
            async move { (extent, read.await) }
        };
        let steps = steps(window, &image.data(window).await?);
        let mut reads = std::pin::pin!(stream::iter(steps).map(read).buffered(READS_AT_ONCE));
        while let Some((extent, bytes)) = reads.next().await {
            let bytes =
                bytes.map_err(|error| Failure::new(Exit::Tool, format!("a read died: {error}")))??;
            seed.put(at, extent, bytes).await.map_err(failure)?;
            progress.set_position(start + extent.end() * redoubt_core::SECTOR_BYTES);
        }
    }
    let after = seed.so_far();
    Ok(Seeded {
        data_bytes: after.data_bytes - before.data_bytes,
        put_bytes: after.put_bytes - before.put_bytes,
    })
}

/// Cuts a window into parts that hold data, of one read each, and those between them that do not.
fn steps(window: Extent, data: &[Extent]) -> Vec<(Extent, bool)> {
    let (mut steps, mut at) = (Vec::new(), window.lba.0);
    let parts = data.iter().map(|part| part.lba.0..part.end());
    for part in parts.chain(std::iter::once(window.end()..window.end())) {
        if at < part.start {
            steps.push((Extent::new(at, part.start - at), false));
        }
        let starts = part.clone().step_by(STEP_SECTORS as usize);
        steps.extend(starts.map(|from| (Extent::new(from, STEP_SECTORS.min(part.end - from)), true)));
        at = part.end;
    }
    steps
}

fn failure(error: SeedError) -> Failure {
    let again = "the same command goes on with it";
    match error {
        SeedError::Protected { .. } => Failure::new(Exit::Refused, error.to_string())
            .hint("nothing was changed; a seed is of use before a machine's first start only"),
        SeedError::TooManyDisks => Failure::usage(error.to_string()),
        SeedError::Vault(error) => Failure::from(error),
        SeedError::Read(error) => Failure::from(error),
        SeedError::Commit(CommitError::Fenced { by }) => {
            let what = format!("the machine is being protected: writer {by} has claimed its log");
            Failure::new(Exit::Refused, what).hint("what was imported so far is of use to it")
        }
        SeedError::Commit(error @ (CommitError::Retry(_) | CommitError::Denied(_))) => {
            Failure::new(Exit::Unreachable, format!("vault: {error}"))
                .hint(format!("check that the vault can be reached; {again}"))
        }
        SeedError::Commit(error @ CommitError::StoreFull(_)) => {
            Failure::new(Exit::Failed, format!("vault: {error}")).hint(format!("make room; {again}"))
        }
        SeedError::Commit(error) => Failure::new(Exit::Failed, format!("vault: {error}")).hint(again),
    }
}

fn report(args: &Import, machine: MachineId, images: &[(DiskArg, ImageSource)], done: Vec<Seeded>) {
    let disk = |((disk, image), done): (&(DiskArg, ImageSource), Seeded)| ImportedDisk {
        name: disk.name.clone(),
        image: disk.path.clone(),
        bytes: image.sectors().bytes(),
        data_bytes: done.data_bytes,
        put_bytes: done.put_bytes,
    };
    let imported = Imported {
        machine: machine.to_string(),
        is_elsewhere: args.new_machine || args.machine.is_some(),
        disks: images.iter().zip(done).map(disk).collect(),
    };
    output::data(args.common.format, &imported, |imported| {
        let line = |disk: &ImportedDisk| {
            let sizes = [disk.bytes, disk.data_bytes, disk.put_bytes].map(show_size);
            let [bytes, data, put] = sizes;
            format!(
                "{}: seed of {}, {bytes}, {data} of it data, {put} put into the vault\n",
                disk.image, disk.name
            )
        };
        let lines: String = imported.disks.iter().map(line).collect();
        let names = imported.disks.iter().map(|disk| format!(" --disk {}=PATH", disk.name));
        let names: String = names.collect();
        match imported.is_elsewhere {
            true => format!("{lines}machine {machine}: start its agent with --machine {machine}{names}"),
            false => format!(
                "{lines}machine {machine}: protect it with --state {}{names}",
                args.which.state.state.display()
            ),
        }
    });
}
