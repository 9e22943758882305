//! Oracle `database`: the database of a restored machine recovers by itself.

use super::Finding;
use crate::workload::database;

/// Runs the database's own recovery over a restored volume.
pub fn judge(machine: &str, number: u16, volume: u16, point: &str, image: &[u8]) -> Option<Finding> {
    let error = database::recover(number, volume, image).err()?;
    Some(Finding::new(
        "database",
        format!("{machine}: the database on point {point} does not recover: {error}"),
    ))
}
