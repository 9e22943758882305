//! The walk through a log: what follows what, what opens, and which points and ranges damage takes.

use crate::folds::{self, Catalogue};
use crate::format::{self, Row, Segment, fetch, hex};
use crate::ranges::{Ranges, add, cut};
use crate::{Damage, Fault, Folded, Hit, Holder, Layer, Machine, Objects, Point, Proof, Record, SegmentRow};
use std::collections::BTreeSet;
use std::ops::Range;

/// Attempts at a proof: a maintainer that folds meanwhile deletes what the catalogue before needs.
const ATTEMPTS: usize = 3;

/// Proves the machine's log up to slot `last`, or all of it. Only a silent store and a vault that does not
/// open at all are errors. `each` hears how many slots of how many are done.
pub fn prove(
    objects: &dyn Objects,
    vault_key: &[u8; 32],
    machine: &str,
    last: Option<u64>,
    mut each: impl FnMut(u64, u64),
) -> Result<Proof, Fault> {
    let catalogues = || objects.list(&format!("g/{machine}/cat/")).map_err(Fault::Store);
    let mut attempt = 1;
    loop {
        let before = catalogues()?;
        let proof = walk(objects, vault_key, machine, last, &mut each)?;
        if proof.broken.is_none() || attempt == ATTEMPTS || before == catalogues()? {
            return Ok(proof);
        }
        attempt += 1;
    }
}

fn walk(
    objects: &dyn Objects,
    vault_key: &[u8; 32],
    machine: &str,
    last: Option<u64>,
    each: &mut impl FnMut(u64, u64),
) -> Result<Proof, Fault> {
    let at = format::open(objects, vault_key, machine)?;
    // Before the log: slots that a newer one gives up are then missing, never taken for the beginning.
    let catalogue = folds::newest(objects, &at)?;
    let (mark, own) = (catalogue.mark, at.slot(catalogue.mark));
    let mut listed = objects.list(&format!("g/{machine}/log/")).map_err(Fault::Store)?;
    listed.retain(|name| *name > own);
    let wanted = last.map(|last| last.saturating_sub(mark) as usize);
    let all = wanted.map_or(listed.len(), |wanted| listed.len().min(wanted));
    let mut proof = Proof { slots: mark, head: catalogue.head, ..Proof::default() };
    let (mut prev, mut epoch) = (catalogue.digest, catalogue.epoch);
    // Sectors whose newest content is in a damaged unit.
    let mut bad = Ranges::new();
    if mark > 0 {
        take_folds(objects, &at, &mut proof, &catalogue, &mut bad)?;
        let (seq, is_whole) = (catalogue.head.1, proof.broken.is_none());
        proof.folded = Some(Folded { slot: mark, seq, catalogue: catalogue.version, is_whole });
    }
    let names = if proof.broken.is_none() { &listed[..all] } else { &[] };
    for (name, slot) in names.iter().zip(mark + 1..) {
        each(slot - mark - 1, all as u64);
        let taken = take(objects, &at, &mut proof, (name, slot), (&mut prev, &mut epoch), &mut bad);
        match taken {
            Ok(()) => proof.slots = slot,
            Err(Fault::Damage(damage)) => {
                proof.broken = Some(damage);
                break;
            }
            Err(silent) => return Err(silent),
        }
    }
    if wanted.is_some_and(|wanted| all < wanted) && proof.broken.is_none() {
        let name = at.slot(mark + all as u64 + 1);
        proof.broken = Some(Damage { object: name, bytes: 0..0, what: "the log ends before it".into() });
    }
    if proof.broken.is_some() {
        for name in listed.iter().skip((proof.slots - mark) as usize) {
            let slot = name.rsplit('/').next().and_then(|text| u64::from_str_radix(text, 16).ok());
            let bytes = objects.get(name).map_err(Fault::Store)?.unwrap_or_default();
            let record = format::record(&at, slot.unwrap_or_default(), &bytes);
            proof.lost.extend(
                record.ok().filter(|record| record.epoch >= epoch).into_iter().flat_map(|r| r.points),
            );
        }
    }
    proof.machine = Some(at);
    each(all as u64, all as u64);
    Ok(proof)
}

/// Takes what was folded: all units of all segments that the folds name, run by run. Behind damage that is not a unit's
/// no point is proven.
fn take_folds(
    objects: &dyn Objects,
    at: &Machine,
    proof: &mut Proof,
    catalogue: &Catalogue,
    bad: &mut Ranges,
) -> Result<(), Fault> {
    let (layers, mut stop) = folds::layers(objects, at, &catalogue.folds);
    for layer in layers {
        let of = |point: &&Point| layer.slots.contains(&point.slot);
        let points: Vec<Point> = catalogue.points.iter().filter(of).cloned().collect();
        if let Err(fault) = take_run(objects, at, proof, &layer, (&points, catalogue.head.1), bad) {
            stop = Some(fault);
            break;
        }
        proof.points.extend(points);
        proof.layers.push(layer);
    }
    match stop {
        None => return Ok(()),
        Some(Fault::Damage(damage)) => proof.broken = Some(damage),
        Some(silent) => return Err(silent),
    }
    let proven = proof.points.len();
    proof.lost.extend(catalogue.points.iter().skip(proven).cloned());
    Ok(())
}

fn take_run(
    objects: &dyn Objects,
    at: &Machine,
    proof: &mut Proof,
    layer: &Layer,
    (points, head): (&[Point], u64),
    bad: &mut Ranges,
) -> Result<(), Fault> {
    let mut seq = proof.points.last().map_or(0, |point| point.seq);
    for point in points {
        if point.seq <= seq || point.seq > head || !point.exact {
            let name = format!("g/{}/cat/", hex(&at.id));
            return Err(Fault::damage(&name, 0..0, "a point is out of order or not exact"));
        }
        seq = point.seq;
    }
    let zeros =
        |(version, volume, sectors): &(u64, u16, Range<u64>)| (*version, *volume, sectors.clone(), false);
    let mut rows: Vec<Written> = layer.zeros.iter().map(zeros).collect();
    for row in &layer.segments {
        rows.extend(open_units(objects, at, proof, row, None)?);
    }
    map_damage(proof, points, rows, bad);
    Ok(())
}

/// Takes the next slot: its record, its place in the chain, all units of its segments.
fn take(
    objects: &dyn Objects,
    at: &Machine,
    proof: &mut Proof,
    (name, slot): (&String, u64),
    (prev, epoch): (&mut [u8; 32], &mut u64),
    bad: &mut Ranges,
) -> Result<(), Fault> {
    let own = at.slot(slot);
    let broken = |what| Err(Fault::damage(&own, 0..0, what));
    if *name != own {
        return broken("the slot is missing, later ones exist");
    }
    let bytes = fetch(objects, name)?;
    let record = format::record(at, slot, &bytes)?;
    let follows = std::mem::replace(prev, *blake3::hash(&bytes[..record.inline_at]).as_bytes());
    if record.epoch < *epoch {
        // Void: a fenced writer's. It holds its slot and the chain, nothing else.
        return Ok(());
    }
    *epoch = record.epoch;
    if record.prev != follows {
        return Err(Fault::damage(&own, 80..112, "it does not name the digest of the slot before"));
    }
    let is_inline = |row: &&SegmentRow| matches!(row.holder, Holder::Slot(..));
    let inline: u64 = record.segments.iter().filter(is_inline).map(|row| row.length).sum();
    let (end, all) = (record.inline_at as u64 + inline, bytes.len() as u64);
    if end != all {
        // It takes no point by itself: the inline segment behind a record says what of it is missing.
        let bytes = end.min(all)..end.max(all);
        let what = "the object does not end where its record says".to_owned();
        proof.damage.push(Damage { object: own.clone(), bytes, what });
    }
    continues(proof, &record).map_err(|what| Fault::damage(&own, 0..0, what))?;
    let mut rows = Vec::new();
    for row in &record.segments {
        rows.extend(open_units(objects, at, proof, row, Some(&bytes))?);
    }
    map_damage(proof, &record.points, rows, bad);
    proof.head = record.head;
    proof.points.extend(record.points);
    proof.layers.push(Layer { slots: slot..=slot, segments: record.segments, zeros: Vec::new() });
    Ok(())
}

/// Compares what a record says of the stream with what the records before it say.
fn continues(proof: &Proof, record: &Record) -> Result<(), &'static str> {
    if record.from != proof.head.1 || record.head.0 < proof.head.0 || record.head.1 < record.from {
        return Err("its commit does not begin where the one before ended");
    }
    let mut seq = record.from;
    for point in &record.points {
        if point.seq <= seq || point.seq > record.head.1 || !point.exact {
            return Err("a point is out of order or not exact");
        }
        seq = point.seq;
    }
    Ok(())
}

/// What was written: version, volume, sectors, whether its unit is damaged.
type Written = (u64, u16, Range<u64>, bool);

/// Opens all units of a segment and returns what it wrote.
fn open_units(
    objects: &dyn Objects,
    at: &Machine,
    proof: &mut Proof,
    row: &SegmentRow,
    slot: Option<&[u8]>,
) -> Result<Vec<Written>, Fault> {
    let (segment, object, base) = load(objects, at, row, slot)?;
    let mut wrong = BTreeSet::new();
    for number in 0..segment.count() {
        match segment.unit(number) {
            Ok(plain) => proof.units = (proof.units.0 + 1, proof.units.1 + plain.len() as u64),
            Err((place, what)) => {
                let bytes = base + place.start as u64..base + place.end as u64;
                proof.damage.push(Damage { object: object.clone(), bytes, what: what.to_owned() });
                wrong.insert(number);
            }
        }
    }
    // Whatever the digest covers a finer check covers too, and says where: this one covers the checks.
    if wrong.is_empty() && !segment.has_digest(&row.digest) {
        return Err(Fault::damage(&object, 0..0, "its digest is not that of the record or the fold"));
    }
    proof.segments = (proof.segments.0 + 1, proof.segments.1 + row.length);
    let is_bad = |row: &Row| row.content.is_some_and(|(unit, _)| wrong.contains(&unit));
    let written = |row: &Row| (row.version, row.volume, row.first..row.first + row.sectors, is_bad(row));
    Ok(segment.rows.iter().map(written).collect())
}

/// Brings `bad`, the sectors whose newest content is damaged, from one point to the next.
fn map_damage(proof: &mut Proof, points: &[Point], mut rows: Vec<Written>, bad: &mut Ranges) {
    rows.sort_by_key(|(version, ..)| *version);
    let mut rows = rows.into_iter().peekable();
    let ends = points.iter().map(|point| (point.slot << 16) + u64::from(point.ordinal));
    for (end, point) in ends.zip(points.iter().map(Some)).chain([(u64::MAX, None)]) {
        while let Some((_, volume, sectors, is_bad)) = rows.next_if(|(version, ..)| *version <= end) {
            cut(bad, volume, sectors.clone());
            if is_bad {
                add(bad, volume, sectors);
            }
        }
        let Some(point) = point else { continue };
        for ((volume, first), end) in bad.iter() {
            let size = point.volumes.get(volume).map_or(0, |(_, size)| *size);
            if *first < size {
                let (point, volume) = ((point.slot, point.ordinal), *volume);
                proof.hits.push(Hit { point, volume, sectors: *first..*end.min(&size) });
            }
        }
    }
}

/// Reads a segment and checks its tables; returns it with its object and its place there.
pub(crate) fn load(
    objects: &dyn Objects,
    at: &Machine,
    row: &SegmentRow,
    slot: Option<&[u8]>,
) -> Result<(Segment, String, u64), Fault> {
    let of = |prefix| format!("g/{}/{prefix}/{:08x}/{}", hex(&at.id), row.epoch, hex(&row.uuid));
    let (object, base) = match row.holder {
        Holder::Slot(slot, offset) => (at.slot(slot), offset),
        Holder::Own => (of("seg"), 0),
        Holder::Packed => (of("cseg"), 0),
    };
    let is_inline = matches!(row.holder, Holder::Slot(..));
    let mut bytes = match slot.filter(|_| is_inline) {
        Some(bytes) => bytes.to_vec(),
        None => fetch(objects, &object)?,
    };
    bytes = bytes.split_off(base.min(bytes.len()));
    if is_inline {
        // What may lie behind it in the slot is not the segment's.
        bytes.truncate(row.length as usize);
    }
    let damage = |(place, what): (Range<usize>, &str)| {
        Fault::damage(&object, (base + place.start) as u64..(base + place.end) as u64, what)
    };
    let segment = format::segment(at, row, bytes).map_err(damage)?;
    Ok((segment, object, base as u64))
}
