//! Overlays against a plain byte array, across losses of power at any moment.

use super::*;
use async_trait::async_trait;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use redoubt_core::{MachineId, MarkerId, VolumeId};
use redoubt_ports::DiskInfo;
use std::collections::BTreeMap;

const SECTORS: u64 = 512;
const SECTOR: usize = SECTOR_BYTES as usize;

type Image = Vec<[u8; SECTOR]>;

/// A disk whose unflushed sectors each keep their old or their new content when power is lost.
#[derive(Default)]
struct FrailDisk {
    durable: Mutex<Image>,
    cache: Mutex<BTreeMap<u64, [u8; SECTOR]>>,
    /// Changes and flushes until every further one fails, as when power goes in the middle of one.
    left: Mutex<Option<u64>>,
}

impl FrailDisk {
    fn new(sectors: u64) -> Arc<FrailDisk> {
        let disk = FrailDisk::default();
        *disk.durable.lock().unwrap() = vec![[0; SECTOR]; sectors as usize];
        Arc::new(disk)
    }

    fn sector(&self, lba: u64) -> [u8; SECTOR] {
        let cached = self.cache.lock().unwrap().get(&lba).copied();
        cached.unwrap_or_else(|| self.durable.lock().unwrap()[lba as usize])
    }

    fn spend(&self) -> Result<(), IoError> {
        match self.left.lock().unwrap().as_mut() {
            Some(0) => Err(IoError::new(IoKind::Device, "change", "a planned failure")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn lose_power(&self, mut keeps: impl FnMut(u64) -> bool) {
        for (lba, content) in std::mem::take(&mut *self.cache.lock().unwrap()) {
            if keeps(lba) {
                self.durable.lock().unwrap()[lba as usize] = content;
            }
        }
    }

    fn put(&self, extent: Extent, payload: Option<&[u8]>) -> Result<(), IoError> {
        self.spend()?;
        let mut cache = self.cache.lock().unwrap();
        for n in 0..extent.sectors.0 {
            let mut content = [0; SECTOR];
            if let Some(payload) = payload {
                content.copy_from_slice(&payload[n as usize * SECTOR..][..SECTOR]);
            }
            cache.insert(extent.lba.0 + n, content);
        }
        Ok(())
    }
}

#[async_trait]
impl Disk for FrailDisk {
    fn info(&self) -> DiskInfo {
        let sectors = Sectors(self.durable.lock().unwrap().len() as u64);
        DiskInfo { sectors, physical_sector_bytes: 512, can_trim: true }
    }

    async fn read(&self, extent: Extent) -> Result<Bytes, IoError> {
        let sectors = extent.lba.0..extent.end();
        Ok(sectors.flat_map(|lba| self.sector(lba)).collect::<Vec<u8>>().into())
    }

    async fn write(&self, extent: Extent, payload: Bytes, durable: bool) -> Result<(), IoError> {
        self.put(extent, Some(&payload))?;
        if durable { self.flush().await } else { Ok(()) }
    }

    async fn write_zeroes(&self, extent: Extent, _: bool, _: bool) -> Result<(), IoError> {
        self.put(extent, None)
    }

    async fn flush(&self) -> Result<(), IoError> {
        self.spend()?;
        let mut durable = self.durable.lock().unwrap();
        for (lba, content) in std::mem::take(&mut *self.cache.lock().unwrap()) {
            durable[lba as usize] = content;
        }
        Ok(())
    }

    async fn resize(&self, sectors: Sectors) -> Result<(), IoError> {
        self.durable.lock().unwrap().resize(sectors.0 as usize, [0; SECTOR]);
        Ok(())
    }

    async fn data_extents(&self, extent: Extent) -> Result<Vec<Extent>, IoError> {
        let mut data = Ranges::default();
        let has_data = |lba: &u64| self.sector(*lba) != [0; SECTOR];
        (extent.lba.0..extent.end()).filter(has_data).for_each(|lba| data.insert(lba..lba + 1));
        Ok(data.iter().map(|run| Extent::new(run.start, run.end - run.start)).collect())
    }
}

fn of() -> OverlayOf {
    let sectors = Sectors(SECTORS);
    OverlayOf { machine: MachineId(1), marker: MarkerId(2), volume: VolumeId(3), sectors }
}

fn fresh(bytes_max: u64) -> Arc<FrailDisk> {
    FrailDisk::new(Overlay::file_sectors(of(), bytes_max).0)
}

async fn open(disk: &Arc<FrailDisk>, bytes_max: u64) -> Result<Overlay, OverlayError> {
    Overlay::open(disk.clone(), of(), bytes_max, false).await
}

/// Reads the volume as a client does, over a point whose sectors are all `0xEE`.
async fn image(overlay: &Overlay) -> Image {
    let mut image = Vec::new();
    for (part, is_here) in overlay.parts(Extent::new(0, SECTORS)) {
        let bytes = if is_here {
            overlay.read(part).await.unwrap()
        } else {
            Bytes::from(vec![0xEE; part.bytes() as usize])
        };
        image.extend(bytes.chunks_exact(SECTOR).map(|sector| <[u8; SECTOR]>::try_from(sector).unwrap()));
    }
    image
}

#[tokio::test]
async fn an_overlay_keeps_what_was_flushed_and_tears_no_sector_however_often_power_is_lost() {
    for seed in 0..10 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut below = move |bound: u64| rng.next_u64() % bound;
        let disk = fresh(1 << 20);
        // What each sector may hold after a loss of power: what was flushed, and everything since.
        let mut allowed: Vec<Vec<[u8; SECTOR]>> = vec![vec![[0xEE; SECTOR]]; SECTORS as usize];
        for life in 0..6 {
            let overlay = open(&disk, 1 << 20).await.unwrap();
            let mut model = image(&overlay).await;
            for (lba, (found, allowed)) in model.iter().zip(&mut allowed).enumerate() {
                assert!(
                    allowed.contains(found),
                    "seed {seed}, life {life}: sector {lba} is neither old nor new"
                );
                *allowed = vec![*found];
            }
            *disk.left.lock().unwrap() = Some(below(400));
            for step in 0..300 {
                let lba = below(SECTORS);
                let extent = Extent::new(lba, 1 + below(6).min(SECTORS - 1 - lba));
                let fill = 1 + (step + 30 * life) as u8 % 200;
                let (kind, payload) = (below(60), vec![fill; extent.bytes() as usize]);
                if kind == 0 {
                    // Most lives end in the middle of a flush: that is where the order matters.
                    if below(3) == 0 {
                        *disk.left.lock().unwrap() = Some(below(4));
                    }
                    if overlay.flush().await.is_err() {
                        break;
                    }
                    allowed = model.iter().map(|sector| vec![*sector]).collect();
                    continue;
                }
                let payload = (kind > 15).then(|| Bytes::from(payload));
                let content = [if payload.is_some() { fill } else { 0 }; SECTOR];
                if overlay.change(extent, payload).await.is_err() {
                    break;
                }
                for at in extent.lba.0..extent.end() {
                    model[at as usize] = content;
                    allowed[at as usize].push(content);
                }
            }
            assert!(image(&overlay).await == model, "seed {seed}, life {life}");
            *disk.left.lock().unwrap() = None;
            disk.lose_power(|_| below(2) == 0);
        }
    }
}

#[tokio::test]
async fn a_full_overlay_refuses_and_changes_nothing_and_trimmed_space_is_free_again() {
    let (max, disk) = (64 << 10, fresh(64 << 10));
    let overlay = open(&disk, max).await.unwrap();
    let write = |lba, sectors: u64, fill| {
        let payload = vec![fill; sectors as usize * SECTOR].into();
        overlay.change(Extent::new(lba, sectors), Some(payload))
    };
    write(0, 128, 1).await.unwrap();
    assert_eq!(overlay.held_bytes(), max);
    let before = image(&overlay).await;
    assert_eq!(write(200, 1, 2).await.unwrap_err().kind, IoKind::NoSpace);
    assert!(image(&overlay).await == before);
    write(3, 20, 3).await.unwrap();
    // Zeros take no space, however many.
    overlay.change(Extent::new(8, SECTORS - 8), None).await.unwrap();
    assert_eq!(overlay.held_bytes(), 4096);
    write(200, 1, 2).await.unwrap();
    overlay.flush().await.unwrap();
    drop(overlay);
    let again = open(&disk, max).await.unwrap();
    assert_eq!(again.held_bytes(), 2 * 4096, "what is held is counted again after a crash");
    let held = vec![Extent::new(0, 4), Extent::new(100, 4)];
    assert_eq!(again.data_extents(Extent::new(0, SECTORS), held), [Extent::new(0, 8), Extent::new(200, 8)]);
}

#[tokio::test]
async fn a_full_log_refuses() {
    let disk = fresh(0);
    let mut overlay = open(&disk, 0).await.unwrap();
    overlay.header.log_sectors = 1;
    for lba in 0..30 {
        overlay.change(Extent::new(lba * 2, 1), None).await.unwrap();
        overlay.flush().await.unwrap();
    }
    let refused = overlay.change(Extent::new(100, 1), None).await.unwrap_err();
    assert_eq!(refused.kind, IoKind::NoSpace);
}

#[tokio::test]
async fn a_file_that_is_something_else_is_refused_and_left_alone() {
    let disk = fresh(1 << 20);
    let overlay = open(&disk, 1 << 20).await.unwrap();
    overlay.change(Extent::new(0, 8), Some(vec![1; 8 * SECTOR].into())).await.unwrap();
    overlay.flush().await.unwrap();
    let good = disk.durable.lock().unwrap().clone();
    let other = OverlayOf { marker: MarkerId(9), ..of() };
    let refused = Overlay::open(disk.clone(), other, 1 << 20, false).await;
    assert_eq!(refused.err(), Some(OverlayError::Foreign));
    let damage = |lba: usize, byte: usize| {
        let mut image = good.clone();
        image[lba][byte] ^= 1;
        *disk.durable.lock().unwrap() = image;
    };
    damage(0, 20);
    assert!(matches!(open(&disk, 1 << 20).await.err(), Some(OverlayError::Damaged(_))));
    damage(8, 40);
    assert!(matches!(open(&disk, 1 << 20).await.err(), Some(OverlayError::Damaged(_))));
    *disk.durable.lock().unwrap() = good[..100].to_vec();
    assert!(matches!(open(&disk, 1 << 20).await.err(), Some(OverlayError::Damaged(_))));
    // A disk image whose first sectors are zeros, as file systems leave them.
    let mut foreign = vec![[0; SECTOR]; good.len()];
    foreign[2] = [7; SECTOR];
    *disk.durable.lock().unwrap() = foreign.clone();
    assert_eq!(open(&disk, 1 << 20).await.err(), Some(OverlayError::NotAnOverlay));
    assert!(*disk.durable.lock().unwrap() == foreign);
}

#[tokio::test]
async fn after_a_failed_flush_nothing_is_called_durable() {
    let disk = fresh(1 << 20);
    let overlay = open(&disk, 1 << 20).await.unwrap();
    overlay.change(Extent::new(0, 1), Some(vec![1; SECTOR].into())).await.unwrap();
    *disk.left.lock().unwrap() = Some(0);
    assert!(overlay.flush().await.is_err());
    assert!(overlay.change(Extent::new(9, 1), None).await.is_err());
    *disk.left.lock().unwrap() = None;
    assert!(overlay.flush().await.is_err());
    assert_eq!(image(&overlay).await[0], [1; SECTOR], "reads go on");
    assert_eq!(image(&overlay).await[9], [0xEE; SECTOR], "a failed change is none");
}

#[tokio::test]
async fn what_a_cut_off_flush_left_in_the_log_never_comes_back() {
    let disk = fresh(1 << 20);
    let ones = || Some(Bytes::from(vec![1; SECTOR]));
    let overlay = open(&disk, 1 << 20).await.unwrap();
    for n in 0..40 {
        overlay.change(Extent::new(2 * n, 1), ones()).await.unwrap();
    }
    // The data is durable and the two log sectors are written; of these power keeps the second.
    *disk.left.lock().unwrap() = Some(2);
    overlay.flush().await.unwrap_err();
    *disk.left.lock().unwrap() = None;
    disk.lose_power(|lba| lba == HEADER_SECTORS + 1);
    let overlay = open(&disk, 1 << 20).await.unwrap();
    assert_eq!(image(&overlay).await[78], [0xEE; SECTOR]);
    for n in 0..30 {
        overlay.change(Extent::new(200 + 2 * n, 1), ones()).await.unwrap();
    }
    overlay.flush().await.unwrap();
    disk.lose_power(|_| false);
    let found = image(&open(&disk, 1 << 20).await.unwrap()).await;
    assert_eq!((found[200], found[258]), ([1; SECTOR], [1; SECTOR]));
    assert_eq!(found[78], [0xEE; SECTOR], "it reads as before the flush that failed");
}
