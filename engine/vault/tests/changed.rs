//! Where two points differ: every sector that differs is named, and only sectors that were written between.

mod support;

use redoubt_core::{Change, Extent, VolumeIndex};
use redoubt_vault::{MachineReader, MachineWriter, MemStore, Vault, VaultKeys};
use std::collections::BTreeSet;
use std::sync::Arc;
use support::model::{MACHINE, Shape, history, position, settings};
use support::{Oracle, Seeded, run};

/// Sectors of the volume that a change may touch.
fn touched(change: &Change, volume: VolumeIndex) -> std::ops::Range<u64> {
    let all = 0..u64::MAX;
    match change {
        Change::Write { volume: of, lba, payload } | Change::ResyncWrite { volume: of, lba, payload }
            if *of == volume =>
        {
            lba.0..lba.0 + payload.len() as u64 / 512
        }
        Change::WriteZeroes { volume: of, extent }
        | Change::Trim { volume: of, extent }
        | Change::ResyncZeroes { volume: of, extent }
            if *of == volume =>
        {
            extent.lba.0..extent.end()
        }
        Change::Attach { volume: of, .. } | Change::Resize { volume: of, .. } if *of == volume => all,
        _ => 0..0,
    }
}

#[test]
fn every_sector_that_differs_is_named_and_only_what_was_written_between() {
    let mut named = 0;
    for seed in 0..6 {
        run(async {
            let dice = Seeded::new(seed);
            let shape = Shape { percent: 0, writers: 1, length: 60, wide: seed % 2 == 1 };
            let records = history(&dice, shape);
            let (store, mut oracle) = (Arc::new(MemStore::new()), Oracle::default());
            records.iter().for_each(|record| oracle.apply(record));
            let vault = Vault::init(store, VaultKeys::new([3; 32]), &*dice).await.unwrap();
            let mut done = 0;
            while done < records.len() {
                let writer = MachineWriter::claim_with(&vault, MACHINE, dice.clone(), settings(&dice)).await;
                done = records.len().min(done + 1 + dice.below(14) as usize);
                writer.unwrap().commit(records[..done].to_vec(), position(done as u64)).await.unwrap();
            }
            let reader = MachineReader::open(&vault, MACHINE).await.unwrap();
            let points = reader.points();
            for (a, b) in points.iter().flat_map(|a| points.iter().map(move |b| (a, b))) {
                let (from, to) = (a.seq.0.min(b.seq.0), a.seq.0.max(b.seq.0));
                let (view_a, view_b) = (reader.view(a.id).unwrap(), reader.view(b.id).unwrap());
                for volume in [VolumeIndex(0), VolumeIndex(1)] {
                    let changed = view_a.changed(volume, &view_b).await.unwrap();
                    let merged = changed.windows(2).all(|pair| pair[0].end() < pair[1].lba.0);
                    assert!(merged, "seed {seed}: ranges are in order and do not touch");
                    let back = view_b.changed(volume, &view_a).await.unwrap();
                    assert_eq!(changed, back, "the other way round it is the same");
                    let sectors = |extent: &Extent| extent.lba.0..extent.end();
                    let changed: BTreeSet<u64> = changed.iter().flat_map(sectors).collect();
                    named += changed.len();
                    let image = |id| oracle.points[id].get(&volume).cloned().unwrap_or_default();
                    let (mut one, mut two) = (image(&a.marker.id), image(&b.marker.id));
                    let size = one.len().max(two.len());
                    one.resize(size, 0);
                    two.resize(size, 0);
                    let between: Vec<_> = records[from as usize..to as usize]
                        .iter()
                        .map(|record| touched(&record.change, volume))
                        .collect();
                    for sector in 0..size as u64 / 512 {
                        let at = sector as usize * 512..sector as usize * 512 + 512;
                        let is_named = changed.contains(&sector);
                        assert!(is_named || one[at.clone()] == two[at], "seed {seed}: {sector} differs");
                        let is_touched = between.iter().any(|range| range.contains(&sector));
                        assert!(!is_named || is_touched, "seed {seed}: nobody wrote {sector}");
                    }
                }
            }
        });
    }
    assert!(named > 0, "some points differ");
}
