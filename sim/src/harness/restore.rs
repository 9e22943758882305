//! Restoring: every recovery point is read through the vault's reader, as the recovery site would do
//! it, and judged against the reference model.

use super::estate::{Estate, Machine};
use super::guests::possible_cuts;
use super::images::{Image, Volume, Volumes};
use crate::oracles::{Finding, database, prefix};
use crate::plan::Part;
use crate::ports::lock;
use redoubt_core::{Extent, MarkerId, VolumeIndex, WriteSeq};
use redoubt_ports::StoreKey;
use redoubt_vault::{MachineReader, PointId, PointInfo, PointView, ReadError, Vault, VaultError};
use std::collections::{BTreeMap, BTreeSet};

/// Sectors per read.
const PIECE: u64 = 2048;

/// Points of a machine of a scaled estate that are read in full: the oldest, the newest, and others between them.
const JUDGED_SCALED: usize = 4;

/// What restoring found.
#[derive(Default)]
pub(super) struct Restored {
    pub(super) findings: Vec<Finding>,
    pub(super) marks: BTreeSet<&'static str>,
    pub(super) points: u64,
    /// The damage was told although it costs no content.
    pub(super) is_reported: bool,
    /// The points that could be read, by machine.
    pub(super) read: BTreeSet<(String, MarkerId)>,
    /// The points that are listed, by machine.
    pub(super) listed: BTreeSet<(String, MarkerId)>,
    /// The places of points in their streams.
    pub(super) order: BTreeMap<(String, MarkerId), u64>,
    /// The points that are what they should be: machine, sequence, and when they were cut.
    pub(super) cuts: BTreeSet<(String, u64, u64)>,
    /// By machine, what each point held, volume by volume, if that was asked for.
    pub(super) images: BTreeMap<String, Images>,
}

/// What every point of a machine holds, volume by volume.
pub(super) type Images = BTreeMap<PointId, Vec<Image>>;

/// What may be damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// Nothing.
    Whole,
    /// Any object: damage is expected, and must be reported.
    Rotten,
    /// This object of a part that holds no content: everything must read as before.
    Spoilt(Part, StoreKey),
}

/// How to restore.
pub(super) struct How<'a> {
    /// Highest sequence that each machine reported as vaulted.
    pub(super) vaulted: &'a BTreeMap<String, WriteSeq>,
    pub(super) health: Health,
    /// When each machine last went down, in milliseconds.
    pub(super) outages: &'a BTreeMap<String, u64>,
    /// The final marker of each machine: its image must equal the source.
    pub(super) last: &'a BTreeMap<String, MarkerId>,
    /// Whether to keep what the points hold.
    pub(super) keeps_images: bool,
}

impl Restored {
    fn find(&mut self, oracle: &'static str, what: String) {
        if self.findings.len() < 10 {
            self.findings.push(Finding::new(oracle, what));
        }
    }
}

/// Opens the vault as the recovery site does.
pub(super) async fn open(estate: &Estate) -> Result<Vault, VaultError> {
    Vault::open(estate.world.store.direct(), estate.newest_keys()).await
}

/// Restores and judges every point of every machine.
pub(super) async fn all(estate: &Estate, how: &How<'_>) -> Restored {
    let mut restored = Restored::default();
    let vault = match open(estate).await {
        Ok(vault) => vault,
        Err(error) => {
            damage(&mut restored, how, format!("the vault does not open: {error}"));
            return restored;
        }
    };
    for (name, machine) in &estate.machines {
        match MachineReader::open_damaged(&vault, machine.id).await {
            Ok((reader, damaged)) => {
                if let Some(error) = &damaged {
                    damage(&mut restored, how, format!("{name} cannot be read in full: {error}"));
                }
                judge_machine(&mut restored, machine, &reader, damaged.is_some(), how).await;
            }
            Err(VaultError::UnknownMachine(_)) if how.vaulted.get(name).is_none_or(|seq| seq.0 == 0) => {}
            Err(error) => damage(&mut restored, how, format!("{name} cannot be read: {error}")),
        }
    }
    restored
}

impl Health {
    /// The oracle for content that is wrong, or that cannot be had.
    pub(super) fn oracle(&self, usual: &'static str) -> &'static str {
        match self {
            Health::Rotten => "no-silent-damage",
            Health::Spoilt(Part::Index | Part::Catalogue, _) => "index-never-needed",
            Health::Whole | Health::Spoilt(..) => usual,
        }
    }
}

fn damage(restored: &mut Restored, how: &How<'_>, what: String) {
    if how.health == Health::Rotten {
        restored.marks.insert("damage-reported");
    } else {
        restored.find(how.health.oracle("points-restorable"), what);
    }
}

/// Judges every point that the reader shows; those behind reported damage are not there.
async fn judge_machine(
    restored: &mut Restored,
    machine: &Machine,
    reader: &MachineReader,
    is_damaged: bool,
    how: &How<'_>,
) {
    let name = &machine.spec.name;
    let reported = how.vaulted.get(name).copied().unwrap_or_default();
    let head = reader.head().position.seq;
    if head < reported && !is_damaged {
        let what =
            format!("{name}: everything up to {reported} was reported as vaulted; the vault ends at {head}");
        restored.find("loss-never-hidden", what);
    }
    let points = reader.points();
    for pair in points.windows(2) {
        if pair[1].seq <= pair[0].seq {
            let what = format!("{name}: point at {} follows point at {}", pair[1].seq, pair[0].seq);
            restored.find("single-writer", what);
        }
    }
    restored.listed.extend(points.iter().map(|point| (name.clone(), point.marker.id)));
    let judged = if machine.scale > 1 { JUDGED_SCALED } else { points.len() };
    let mut volumes = Volumes::new(machine.number);
    for point in spread(&points, judged) {
        judge_point(restored, (machine, &mut volumes), reader, point, how).await;
    }
    if let Some(last) = how.last.get(name)
        && !points.iter().any(|point| point.marker.id == *last)
        && how.health != Health::Rotten
    {
        restored.find(
            how.health.oracle("converges"),
            format!("{name}: the last point {last} is not in the vault"),
        );
    }
    if let Health::Spoilt(part, key) = &how.health
        && reader.findings().iter().any(|finding| names(finding, key))
    {
        restored.is_reported = true;
        restored.marks.insert(match part {
            Part::Claim => "claim-damage-reported",
            Part::Key | Part::Identity => "key-damage-reported",
            _ => "index-damage-reported",
        });
    }
}

/// Tells whether a finding names the object.
fn names(finding: &VaultError, key: &StoreKey) -> bool {
    match finding {
        VaultError::Damaged { object, .. } => object == key.as_str(),
        other => other.to_string().contains(key.as_str()),
    }
}

/// Returns so many of a list, evenly, the first and the last among them.
fn spread<T>(all: &[T], count: usize) -> impl Iterator<Item = &T> {
    let count = count.min(all.len());
    (0..count).map(move |number| &all[number * (all.len() - 1) / count.saturating_sub(1).max(1)])
}

async fn judge_point(
    restored: &mut Restored,
    (machine, volumes): (&Machine, &mut Volumes),
    reader: &MachineReader,
    point: &PointInfo,
    how: &How<'_>,
) {
    let name = &machine.spec.name;
    let label = format!("{} at sequence {}", point.marker.id, point.seq);
    if !point.exact {
        restored.find("prefix", format!("{name}: point {label} is offered although it is not exact"));
    }
    if let Err(error) = read_point(machine, volumes, reader, point).await {
        return damage(restored, how, format!("{name}: point {label} cannot be read: {error}"));
    }
    restored.points += 1;
    restored.read.insert((name.clone(), point.marker.id));
    restored.order.insert((name.clone(), point.marker.id), point.seq.0);
    restored.marks.insert("point-published");
    if how.keeps_images {
        let images = volumes.all().iter().map(Volume::image).collect();
        restored.images.entry(name.clone()).or_default().insert(point.id, images);
    }
    let cuts = possible_cuts(&lock(&machine.markers), &machine.recorder, point.marker.id);
    let mut verdict = Err("nobody asked for this marker".to_owned());
    {
        let log = lock(&machine.recorder.log);
        for (cut, marker) in cuts {
            verdict = prefix::judge(&log, cut, volumes.all());
            if verdict.is_ok() {
                restored.cuts.insert((name.clone(), point.seq.0, marker.at));
                if !marker.connected {
                    restored.marks.insert("point-cut-in-an-outage");
                }
                if how.outages.get(name).is_some_and(|down| marker.at < *down) {
                    restored.marks.insert("point-outlived-an-outage");
                }
                break;
            }
        }
    }
    if let Err(error) = verdict {
        restored.find(how.health.oracle("prefix"), format!("{name}: point {label}: {error}"));
    }
    if machine.guest.model == "database" {
        match database::judge(name, machine.number, 0, &label, volumes.all()[0].bytes()) {
            Some(finding) => restored.find(finding.oracle, finding.what),
            None => {
                restored.marks.insert("database-recovered");
            }
        }
    }
    if how.last.get(name) == Some(&point.marker.id) {
        compare(restored, machine, volumes.all());
    }
}

/// Reads a point part by part, the newest as who mounts it does.
async fn read_point(
    machine: &Machine,
    volumes: &mut Volumes,
    reader: &MachineReader,
    point: &PointInfo,
) -> Result<(), String> {
    let is_newest = reader.points().last().is_some_and(|newest| newest.id == point.id);
    let view = reader.view(point.id).map_err(|error| error.to_string())?;
    for index in 0..machine.disks.len() {
        let volume = VolumeIndex(index as u16);
        let info = view.volumes().get(&volume).ok_or_else(|| format!("volume {index} is missing"))?;
        let place = volumes.volume(index, info.sectors.0);
        for piece in pieces(info.sectors.0) {
            place.begin(piece);
            let read = if is_newest {
                view.read(volume, piece).await.map(|bytes| place.take(piece.lba.0, bytes))
            } else {
                view.read_parts(volume, piece, |first, part| place.take(first, part)).await
            };
            read.map_err(|error| error.to_string())?;
            place.end();
        }
    }
    Ok(())
}

/// Returns what the points of a machine hold; none if one of them cannot be read.
pub(super) async fn images(estate: &Estate, machine: &Machine) -> Option<Images> {
    let vault = open(estate).await.ok()?;
    let reader = MachineReader::open(&vault, machine.id).await.ok()?;
    let (mut volumes, mut images) = (Volumes::new(machine.number), Images::new());
    for point in reader.points() {
        read_point(machine, &mut volumes, &reader, &point).await.ok()?;
        images.insert(point.id, volumes.all().iter().map(Volume::image).collect());
    }
    Some(images)
}

/// Reads a whole volume.
pub(super) async fn image(view: &PointView, volume: VolumeIndex, sectors: u64) -> Result<Vec<u8>, ReadError> {
    let mut image = Vec::with_capacity(sectors as usize * 512);
    for piece in pieces(sectors) {
        image.extend_from_slice(&view.read(volume, piece).await?);
    }
    Ok(image)
}

/// Cuts a volume into what is read at once.
fn pieces(sectors: u64) -> impl Iterator<Item = Extent> {
    (0..sectors).step_by(PIECE as usize).map(move |first| Extent::new(first, PIECE.min(sectors - first)))
}

/// After the sources are quiesced, source and replica are equal, byte by byte.
fn compare(restored: &mut Restored, machine: &Machine, volumes: &[Volume]) {
    for (index, (disk, volume)) in machine.disks.iter().zip(volumes).enumerate() {
        let (truth, image) = (disk.truth(), volume.bytes());
        if truth == image {
            continue;
        }
        let at = truth.iter().zip(image).position(|(a, b)| a != b).unwrap_or(truth.len().min(image.len()));
        let sector = at / 512;
        let name = &machine.spec.name;
        let what =
            format!("{name}: volume {index} differs from its source at rest, first in sector {sector}");
        restored.find("converges", what);
    }
}
