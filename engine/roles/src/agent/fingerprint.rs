//! A digest of what a disk holds, cheap enough for each clean stop and each start behind one: who wrote to the disk
//! meanwhile is found by it, and the disk is compared as a whole.
//!
//! It covers the size, the host's stamp of the last change, the first and the last MiB, which hold partition tables and
//! what each mount of a file system touches, and blocks spread over the rest. Of an image file the stamp finds any
//! change. A device has none: there a change that touches no sample is not found (decision 0038).

use redoubt_core::Extent;
use redoubt_ports::{Disk, IoError};

/// Sectors at each end that are read whole: 1 MiB, in reads of 256 KiB.
const EDGE: u64 = 2048;
const READ: u64 = 512;
/// Blocks between the ends, and sectors of each.
const SAMPLES: u64 = 64;
const SAMPLE: u64 = 8;

/// Takes the digest; reads some 2 MiB. An error says which read failed.
pub(super) async fn fingerprint(disk: &dyn Disk) -> Result<[u8; 32], IoError> {
    let sectors = disk.info().sectors.0;
    let stamp = disk.stamp().await?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(&sectors.to_le_bytes()).update(&[u8::from(stamp.is_some())]);
    hasher.update(&stamp.unwrap_or_default().to_le_bytes());
    for extent in samples(sectors) {
        hasher.update(&disk.read(extent).await?);
    }
    Ok(*hasher.finalize().as_bytes())
}

/// Returns what is read of a disk, in order; a small one is read whole.
fn samples(sectors: u64) -> Vec<Extent> {
    let whole = |from: u64, to: u64| {
        (from..to).step_by(READ as usize).map(move |first| Extent::new(first, READ.min(to - first)))
    };
    let between = sectors.saturating_sub(2 * EDGE);
    if between <= SAMPLES * SAMPLE {
        return whole(0, sectors).collect();
    }
    let last = sectors - EDGE;
    let step = between / SAMPLES;
    let blocks = (0..SAMPLES).map(|number| Extent::new(EDGE + number * step + (step - SAMPLE) / 2, SAMPLE));
    whole(0, EDGE).chain(blocks).chain(whole(last, sectors)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_lie_within_the_disk_in_order_and_small_disks_are_read_whole() {
        for sectors in [1, 511, 512, 513, 4096, 4608, 4609, 5000, 1 << 21, (1 << 31) + 7] {
            let samples = samples(sectors);
            assert!(samples.windows(2).all(|pair| pair[0].end() <= pair[1].lba.0), "{sectors}");
            assert_eq!(samples[0].lba.0, 0);
            assert_eq!(samples.last().map(|extent| extent.end()), Some(sectors));
            let read: u64 = samples.iter().map(|extent| extent.sectors.0).sum();
            let whole = 2 * EDGE + SAMPLES * SAMPLE;
            assert_eq!(read, sectors.min(whole), "{sectors}");
        }
    }
}
