//! Where the vault key comes from: a recovery kit (`kit`), or its file: 64 hexadecimal digits in one line, for the owner's eyes only.
//!
//! - KE-1 A key file is durable before anything is encrypted with it, and never overwritten.

use crate::failure::{Exit, Failure, Outcome};
use crate::kit::Kit;
use crate::output::say;
use crate::secret_file;
use redoubt_host::StoreUrl;
use redoubt_ports::{Entropy, RawStore};
use redoubt_vault::{Vault, VaultKeys};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zeroize::Zeroizing;

/// Where a vault's key comes from.
#[derive(Clone, Debug)]
pub(crate) enum KeySource {
    /// A key file.
    File(PathBuf),
    /// A recovery kit that was opened.
    Kit(Box<Kit>),
}

impl KeySource {
    /// Returns the keys.
    pub(crate) fn read(&self) -> Outcome<VaultKeys> {
        self.read_bytes().map(|bytes| VaultKeys::new(*bytes))
    }

    /// As [`KeySource::read`], for a reader that derives its keys itself.
    pub(crate) fn read_bytes(&self) -> Outcome<Zeroizing<[u8; KEY_BYTES]>> {
        match self {
            KeySource::File(path) => read_bytes(path),
            KeySource::Kit(kit) => Ok(Zeroizing::new(*kit.key())),
        }
    }

    /// Tells whether there is a key already.
    pub(crate) fn exists(&self) -> bool {
        match self {
            KeySource::File(path) => path.exists(),
            KeySource::Kit(_) => true,
        }
    }

    /// Returns the key file, if it is one.
    pub(crate) fn file(&self) -> Option<&Path> {
        match self {
            KeySource::File(path) => Some(path),
            KeySource::Kit(_) => None,
        }
    }

    /// Refuses the vault in a store if a kit is of another one, before anything of it is used.
    pub(crate) async fn check_vault(&self, store: Arc<dyn RawStore>, at: &StoreUrl) -> Outcome<()> {
        let KeySource::Kit(kit) = self else { return Ok(()) };
        match Vault::identity(store).await? {
            found if found == kit.vault => Ok(()),
            found => {
                let what = format!(
                    "the recovery kit is of vault {:032x}, and the vault in {at} is {found:032x}",
                    kit.vault
                );
                Err(Failure::new(Exit::Refused, what).hint(
                    "pass the kit of this vault, or the place of that one with --vault; nothing was touched",
                ))
            }
        }
    }
}

const KEY_BYTES: usize = 32;
/// A key line and its end; anything longer is another kind of file.
const FILE_BYTES_MAX: u64 = 256;

/// Returns where the key of a vault is if nobody said: beside the vault, so that losing the
/// protected site does not lose the key.
///
/// A bucket has nothing beside it: the key is then in the current directory, named after the bucket.
pub(crate) fn default_path(vault: &StoreUrl) -> PathBuf {
    let mut name = match vault {
        StoreUrl::Directory(path) => path.as_os_str().to_owned(),
        StoreUrl::Bucket { bucket, prefix, .. } => {
            format!("{bucket}/{prefix}").trim_end_matches('/').replace('/', "-").into()
        }
    };
    name.push(".key");
    PathBuf::from(name)
}

/// Reads a key file.
pub(crate) fn read(path: &Path) -> Outcome<VaultKeys> {
    read_bytes(path).map(|bytes| VaultKeys::new(*bytes))
}

fn read_bytes(path: &Path) -> Outcome<Zeroizing<[u8; KEY_BYTES]>> {
    let cannot = |error: std::io::Error| {
        Failure::new(Exit::Unreachable, format!("cannot read key file {}: {error}", path.display()))
            .hint("pass the vault's own key file with --key")
    };
    let metadata = std::fs::metadata(path).map_err(cannot)?;
    let damaged = || {
        Failure::new(
            Exit::Refused,
            format!("key file {} is damaged: it is not one line of 64 hexadecimal digits", path.display()),
        )
        .hint("restore the key file from a copy")
    };
    if metadata.len() > FILE_BYTES_MAX {
        return Err(damaged());
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        say(format!("warning: others may read key file {}; run `chmod 600` on it", path.display()));
    }
    let text = Zeroizing::new(std::fs::read(path).map_err(cannot)?);
    let text = std::str::from_utf8(&text).map_err(|_| damaged())?.trim_end();
    decode(text).ok_or_else(damaged)
}

/// Makes a key file with a fresh key, durably; fails if the file exists.
pub(crate) fn create(path: &Path, entropy: &dyn Entropy) -> Outcome<VaultKeys> {
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    entropy.fill(&mut key[..]);
    let text: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    let text = Zeroizing::new(text + "\n");
    secret_file::make(path, "key file", &text)?;
    Ok(VaultKeys::new(*key))
}

fn decode(text: &str) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
    if text.len() != 2 * KEY_BYTES || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    for (byte, at) in key.iter_mut().zip((0..text.len()).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_is_private_read_back_and_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = default_path(&StoreUrl::Directory(directory.path().join("vault")));
        assert_eq!(default_path(&StoreUrl::parse("s3://b/dr/erp").unwrap()), Path::new("b-dr-erp.key"));
        assert!(path.ends_with("vault.key"));
        let made = create(&path, &redoubt_host::HostEntropy).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let machine = redoubt_core::MachineId(7);
        assert_eq!(read(&path).unwrap().stream_key(machine), made.stream_key(machine));
        assert_eq!(create(&path, &redoubt_host::HostEntropy).unwrap_err().exit, Exit::Refused);
        std::fs::write(&path, "abc").unwrap();
        assert_eq!(read(&path).unwrap_err().exit, Exit::Refused);
        assert_eq!(read(Path::new("/nonexistent.key")).unwrap_err().exit, Exit::Unreachable);
    }
}
