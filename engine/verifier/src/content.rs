//! What a point holds, by walking from the newest version to the oldest: what is seen first counts.

use crate::format::Row;
use crate::proof::load;
use crate::ranges::{Ranges, add};
use crate::{Fault, Objects, Point, Proof};
use std::collections::BTreeMap;
use std::ops::Range;

/// What a range of a point holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// Zeros.
    Zeros,
    /// These bytes.
    Data(&'a [u8]),
    /// Something that is lost to damage.
    Lost,
}

/// Part of a point: unit and sector in it, volume, sectors, first sector of the row.
type Part = ((usize, usize), u16, Range<u64>, u64);

/// Hands out all sectors of a proven point's volumes, each once, newest first: volume, sectors, content.
/// `each` may end it with an error.
pub fn content(
    objects: &dyn Objects,
    proof: &Proof,
    point: &Point,
    mut each: impl FnMut(u16, Range<u64>, Content<'_>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let Some(at) = &proof.machine else { return Ok(()) };
    let mut seen = Ranges::new();
    let limit = (point.slot << 16) + u64::from(point.ordinal);
    for layer in proof.layers.iter().rev().filter(|layer| *layer.slots.start() <= point.slot) {
        // First what of each segment is visible, then the segments once more, one after another.
        let mut rows = Vec::new();
        for (ordinal, row) in layer.segments.iter().enumerate() {
            let (segment, ..) = load(objects, at, row, None)?;
            rows.extend(segment.rows.into_iter().map(|row| (ordinal, row)));
        }
        rows.extend(layer.zeros.iter().map(|(version, volume, sectors)| {
            let (version, volume, sectors, first) =
                (*version, *volume, sectors.end - sectors.start, sectors.start);
            (0, Row { volume, version, first, sectors, content: None })
        }));
        rows.retain(|(_, row)| row.version <= limit);
        rows.sort_by_key(|(_, row)| std::cmp::Reverse(row.version));
        // By segment, then by unit: volume, sectors, first sector of the unit's row.
        let mut visible: BTreeMap<usize, Vec<Part>> = BTreeMap::new();
        for (ordinal, row) in rows {
            let size = point.volumes.get(&row.volume).map_or(0, |(_, size)| *size);
            let sectors = row.first.min(size)..(row.first + row.sectors).min(size);
            if sectors.is_empty() {
                continue;
            }
            for part in add(&mut seen, row.volume, sectors) {
                match row.content {
                    None => each(row.volume, part, Content::Zeros)?,
                    Some(place) => {
                        visible.entry(ordinal).or_default().push((place, row.volume, part, row.first))
                    }
                }
            }
        }
        for (ordinal, mut parts) in visible {
            let (segment, ..) = load(objects, at, &layer.segments[ordinal], None)?;
            parts.sort_by_key(|(place, ..)| *place);
            let mut unit = (usize::MAX, None);
            for ((number, sector), volume, part, first) in parts {
                if unit.0 != number {
                    unit = (number, segment.unit(number).ok());
                }
                let from = sector + (part.start - first) as usize;
                let to = from + (part.end - part.start) as usize;
                let data = unit.1.as_deref().map(|unit| Content::Data(&unit[from * 512..to * 512]));
                each(volume, part, data.unwrap_or(Content::Lost))?;
            }
        }
    }
    for (volume, (_, size)) in &point.volumes {
        for gap in if *size > 0 { add(&mut seen, *volume, 0..*size) } else { Vec::new() } {
            each(*volume, gap, Content::Zeros)?;
        }
    }
    Ok(())
}
