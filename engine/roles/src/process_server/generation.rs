//! The highest generation ever seen of a machine, durably.
//!
//! File `generation-<machine>`, 36 bytes: magic `RGEN` (4), version (2), zero (2), machine (16),
//! generation (8), CRC-32C of the bytes before (4). Replaced by write new, sync, rename, sync of the
//! directory: a crash leaves the old record or the new one.

use bytes::Bytes;
use redoubt_core::{Generation, MachineId};
use redoubt_ports::{Files, IoError, IoKind, OpenMode};

const MAGIC: [u8; 4] = *b"RGEN";
const VERSION: u16 = 1;
const RECORD_BYTES: usize = 36;

fn name(machine: MachineId) -> String {
    format!("generation-{machine}")
}

fn encode(machine: MachineId, generation: Generation) -> Bytes {
    let mut record = Vec::with_capacity(RECORD_BYTES);
    record.extend_from_slice(&MAGIC);
    record.extend_from_slice(&VERSION.to_le_bytes());
    record.extend_from_slice(&[0; 2]);
    record.extend_from_slice(&machine.0.to_le_bytes());
    record.extend_from_slice(&generation.0.to_le_bytes());
    let crc = crc32c::crc32c(&record);
    record.extend_from_slice(&crc.to_le_bytes());
    record.into()
}

/// Makes the generation durable. After an error the old or the new record is there.
pub(super) async fn save(
    files: &dyn Files,
    machine: MachineId,
    generation: Generation,
) -> Result<(), IoError> {
    let (name, new) = (name(machine), format!("{}.new", name(machine)));
    let file = files.open(&new, OpenMode::CreateOrOpen).await?;
    file.set_len(0).await?;
    file.write_at(0, &[encode(machine, generation)]).await?;
    file.sync().await?;
    files.rename(&new, &name).await?;
    files.sync_dir().await
}

/// Returns the recorded generation; zero if there is none. A record that does not check is an error
/// of kind `Device`: the caller falls back to what stage and vault say.
pub(super) async fn load(files: &dyn Files, machine: MachineId) -> Result<Generation, IoError> {
    let name = name(machine);
    let file = match files.open(&name, OpenMode::Existing).await {
        Ok(file) => file,
        Err(error) if error.kind == IoKind::NotFound => return Ok(Generation::default()),
        Err(error) => return Err(error),
    };
    let record = file.read_at(0, RECORD_BYTES + 1).await?;
    let number: Option<[u8; 8]> = record.get(24..32).and_then(|bytes| bytes.try_into().ok());
    let generation = Generation(number.map_or(0, u64::from_le_bytes));
    if record != encode(machine, generation) {
        return Err(IoError::new(IoKind::Device, format!("read {name}"), "the record is damaged"));
    }
    Ok(generation)
}
