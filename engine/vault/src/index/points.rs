//! Recovery points in table objects: parts of a run beside its blocks.

use crate::codec::{Malformed, Put, Take};
use crate::log::{POINTS_MAX, put_point, take_point};
use crate::reader::{PointId, PointInfo};

/// A part is closed when it has so many plain bytes.
const PART_BYTES: usize = 1 << 20;
/// Plain bytes of a part at most: the last point may have 256 volumes.
pub(crate) const PLAIN_MAX: usize = PART_BYTES + (16 << 10);

/// Gathers points, in order, into parts.
#[derive(Default)]
pub(crate) struct Part(Vec<u8>);

impl Part {
    /// Adds a point; returns a part that is full.
    pub(crate) fn add(&mut self, point: &PointInfo) -> Option<Vec<u8>> {
        self.0.put_varint(point.id.slot);
        self.0.put_u16(point.id.ordinal);
        put_point(&mut self.0, &point.row());
        (self.0.len() >= PART_BYTES).then(|| std::mem::take(&mut self.0))
    }

    /// Returns what is left.
    pub(crate) fn finish(self) -> Option<Vec<u8>> {
        (!self.0.is_empty()).then_some(self.0)
    }
}

/// Decodes a part.
pub(crate) fn decode(bytes: &[u8]) -> Result<Vec<PointInfo>, Malformed> {
    let mut take = Take::new(bytes);
    let mut points: Vec<PointInfo> = Vec::new();
    while !take.is_empty() {
        let id = PointId { slot: take.varint()?, ordinal: take.u16()? };
        if usize::from(id.ordinal) >= POINTS_MAX || points.last().is_some_and(|last| last.id >= id) {
            return Err(Malformed("the points are out of order"));
        }
        points.push(PointInfo::new(id, take_point(&mut take)?));
    }
    Ok(points)
}
