//! The recovery kit: all that opens a vault when the site is gone, in one printable file behind a passphrase.
//!
//! It holds where the vault is, which vault it is, and the vault key, sealed by a key that Argon2id makes of the
//! passphrase. What is in the clear is bound to the seal. The store's credentials are not in it.
//!
//! - KT-1 A kit is durable before it is reported, and never overwrites a file.
//! - KT-2 Nothing of a vault is read with a kit's key before its identity was compared with the kit's.

mod armour;
pub(crate) mod passphrase;

use crate::failure::{Exit, Failure, Outcome};
use crate::secret_file;
use crate::units::show_wall;
use argon2::{Algorithm, Argon2, Params, Version};
use passphrase::Passphrase;
use redoubt_host::{StoreSettings, StoreUrl};
use redoubt_ports::Entropy;
use redoubt_wire::aead::{KEY_BYTES, Key, TAG_BYTES};
use std::path::Path;
use zeroize::{Zeroize, Zeroizing};

const MAGIC: &[u8; 8] = b"DRKIT1\0\0";
const BEGIN: &str = "-----BEGIN REDOUBT RECOVERY KIT-----";
const END: &str = "-----END REDOUBT RECOVERY KIT-----";
/// A kit has some 3 KiB.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// A key that seals one buffer in its life.
const ONCE: [u8; 12] = [0; 12];
/// No kit asks for more memory (KiB), rounds or lanes: a damaged one must not take the machine down.
const COST_MAX: (u32, u32, u32) = (4 << 20, 64, 64);

/// What a guess of the passphrase costs: memory in KiB, rounds, lanes. Recorded in the kit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cost(u32, u32, u32);

/// The second recommended choice of RFC 9106: 64 MiB, 3 rounds, 4 lanes.
pub(crate) const COST: Cost = Cost(64 << 10, 3, 4);

/// What a kit holds.
#[derive(Clone)]
pub(crate) struct Kit {
    /// Where the vault was when the kit was made.
    pub(crate) store: StoreSettings,
    /// Which vault it is.
    pub(crate) vault: u128,
    /// Number of the vault key.
    pub(crate) number: u32,
    pub(crate) made_ms: u64,
    key: Zeroizing<[u8; KEY_BYTES]>,
}

impl std::fmt::Debug for Kit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kit({:032x}, key hidden)", self.vault)
    }
}

impl Kit {
    pub(crate) fn new(
        store: StoreSettings,
        vault: u128,
        number: u32,
        made_ms: u64,
        key: &[u8; KEY_BYTES],
    ) -> Kit {
        Kit { store, vault, number, made_ms, key: Zeroizing::new(*key) }
    }

    /// Returns the vault key.
    pub(crate) fn key(&self) -> &[u8; KEY_BYTES] {
        &self.key
    }

    /// Writes the kit to a new file, durably.
    pub(crate) fn write(&self, path: &Path, passphrase: &Passphrase, entropy: &dyn Entropy) -> Outcome<()> {
        let text = self.text(passphrase, COST, entropy)?;
        secret_file::make(path, "recovery kit", &text)
    }

    /// The kit as text: what it is in words, then the armoured bytes.
    fn text(&self, passphrase: &Passphrase, cost: Cost, entropy: &dyn Entropy) -> Outcome<String> {
        let bytes = self.encode(passphrase, cost, entropy)?;
        let endpoint = self.store.endpoint.as_deref();
        let endpoint = endpoint.map(|endpoint| format!("Server    {endpoint}\n")).unwrap_or_default();
        Ok(format!(
            "REDOUBT RECOVERY KIT\n\n\
             Vault     {}\n{endpoint}Identity  {:032x}\nVault key {}\nMade      {} UTC\n\n\
             This kit and its passphrase open the vault from any machine. Keep it where the disaster\n\
             of the protected site cannot reach it, and the passphrase elsewhere. If the vault is in a\n\
             cloud, keep credentials for it as well: they are not in here.\n\n\
             To recover:   redoubt points --recovery-kit THIS-FILE\n\
             \x20             redoubt mount newest --recovery-kit THIS-FILE --listen unix:point.sock\n\
             To check:     redoubt keys check-kit THIS-FILE\n\
             If the vault was moved, add --vault with its new place. If all you have is paper, type the\n\
             lines from BEGIN to END into a file; each line ends with two characters that check it.\n\n\
             {BEGIN}\n{}{END}\n",
            self.store.url,
            self.vault,
            self.number,
            show_wall(self.made_ms),
            armour::encode(&bytes),
        ))
    }

    fn encode(&self, passphrase: &Passphrase, cost: Cost, entropy: &dyn Entropy) -> Outcome<Vec<u8>> {
        let mut salt = [0; 16];
        entropy.fill(&mut salt);
        let mut bytes = MAGIC.to_vec();
        bytes.extend([1, 0, 0, 0]);
        for number in [cost.0, cost.1, cost.2] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(salt);
        bytes.extend(self.vault.to_be_bytes());
        bytes.extend(self.number.to_le_bytes());
        bytes.extend(self.made_ms.to_le_bytes());
        for text in [self.store.url.to_string(), self.store.endpoint.clone().unwrap_or_default()] {
            let length =
                u16::try_from(text.len()).map_err(|_| Failure::usage("the vault's address is too long"))?;
            bytes.extend(length.to_le_bytes());
            bytes.extend(text.as_bytes());
        }
        let mut sealed = *self.key;
        let tag = stretch(passphrase, &salt, cost)?.seal(ONCE, &bytes, &mut sealed);
        bytes.extend(sealed);
        bytes.extend(tag);
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        Ok(bytes)
    }

    /// Reads a kit and opens it with the passphrase that `ask` returns; that is asked for only if the kit is whole.
    pub(crate) fn read(path: &Path, ask: impl FnOnce() -> Outcome<Passphrase>) -> Outcome<Kit> {
        let cannot = |error: std::io::Error| {
            Failure::new(Exit::Unreachable, format!("cannot read recovery kit {}: {error}", path.display()))
                .hint("check the path")
        };
        if std::fs::metadata(path).map_err(cannot)?.len() > FILE_BYTES_MAX {
            return Err(damaged(path, "it is far too long"));
        }
        let text = std::fs::read(path).map_err(cannot)?;
        let text = String::from_utf8_lossy(&text);
        let (sealed, cost, salt, kit) = Kit::parse(&text).map_err(|what| damaged(path, &what))?;
        let passphrase = ask()?;
        kit.open(&passphrase, cost, &salt, &sealed).map_err(|opening| match opening {
            None => Failure::new(Exit::Refused, format!("the passphrase does not open {}", path.display()))
                .hint("the kit itself is whole: try the passphrase again"),
            Some(failure) => failure,
        })
    }

    /// Reads what is in the clear. Returns the sealed part with what it is bound to, cost, salt, and the kit
    /// without its key.
    fn parse(text: &str) -> Result<(Sealed, Cost, [u8; 16], Kit), String> {
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        let at = |marker: &str| lines.iter().position(|line| line.trim() == marker);
        let (Some(begin), Some(end)) = (at(BEGIN), at(END)) else {
            return Err("it has no lines from BEGIN to END".to_owned());
        };
        let inner = lines.get(begin + 1..end).unwrap_or_default();
        let bytes = armour::decode(inner).map_err(|mistake| mistake.to_string())?;
        let body = bytes.split_last_chunk::<4>();
        let body = body.filter(|(body, crc)| crc32c::crc32c(body) == u32::from_le_bytes(**crc));
        let (body, _) = body.ok_or("lines at its end are missing, or it was put together from two")?;
        if !body.starts_with(MAGIC) || body.get(8) != Some(&1) {
            return Err("it is of another format: use a newer redoubt".to_owned());
        }
        Kit::fields(body).ok_or_else(|| "its fields make no sense".to_owned())
    }

    fn fields(body: &[u8]) -> Option<(Sealed, Cost, [u8; 16], Kit)> {
        let (clear, sealed) = body.split_at_checked(body.len().checked_sub(KEY_BYTES + TAG_BYTES)?)?;
        let mut rest = clear.get(12..)?;
        let mut take = |length: usize| {
            let (taken, left) = rest.split_at_checked(length)?;
            rest = left;
            Some(taken)
        };
        let mut number = || Some(u32::from_le_bytes(take(4)?.try_into().ok()?));
        let cost = Cost(number()?, number()?, number()?);
        let salt = take(16)?.try_into().ok()?;
        let vault = u128::from_be_bytes(take(16)?.try_into().ok()?);
        let number = u32::from_le_bytes(take(4)?.try_into().ok()?);
        let made_ms = u64::from_le_bytes(take(8)?.try_into().ok()?);
        let mut text = || {
            let length = u16::from_le_bytes(take(2)?.try_into().ok()?);
            Some(std::str::from_utf8(take(usize::from(length))?).ok()?.to_owned())
        };
        let (url, endpoint) = (StoreUrl::parse(&text()?).ok()?, text()?);
        let endpoint = Some(endpoint).filter(|endpoint| !endpoint.is_empty());
        let store = StoreSettings { endpoint, ..StoreSettings::new(url) };
        let kit = Kit { store, vault, number, made_ms, key: Zeroizing::new([0; KEY_BYTES]) };
        rest.is_empty().then(|| (Sealed { bound: clear.to_vec(), sealed: sealed.to_vec() }, cost, salt, kit))
    }

    /// Opens the seal; `None` says that the passphrase is another one.
    fn open(
        mut self,
        passphrase: &Passphrase,
        cost: Cost,
        salt: &[u8; 16],
        sealed: &Sealed,
    ) -> Result<Kit, Option<Failure>> {
        let key = stretch(passphrase, salt, cost).map_err(Some)?;
        let (body, tag) = sealed.sealed.split_last_chunk::<TAG_BYTES>().ok_or(None)?;
        self.key.copy_from_slice(body.get(..KEY_BYTES).ok_or(None)?);
        key.open(ONCE, &sealed.bound, &mut self.key[..], tag).map_err(|_| None)?;
        Ok(self)
    }
}

/// The sealed key and the bytes that the seal is bound to.
struct Sealed {
    bound: Vec<u8>,
    sealed: Vec<u8>,
}

fn damaged(path: &Path, what: &str) -> Failure {
    Failure::new(Exit::Refused, format!("recovery kit {} is damaged: {what}", path.display()))
        .hint("nothing was touched; mend the line, or take another copy of the kit")
}

/// Makes a key of a passphrase.
fn stretch(passphrase: &Passphrase, salt: &[u8; 16], cost: Cost) -> Outcome<Key> {
    let refused = |why: String| {
        Failure::new(Exit::Refused, format!("the kit asks for a cost that cannot be paid: {why}"))
            .hint("use a newer redoubt, or a machine with more memory")
    };
    if cost.0 > COST_MAX.0 || cost.1 > COST_MAX.1 || cost.2 > COST_MAX.2 {
        return Err(refused(format!("{} KiB, {} rounds, {} lanes", cost.0, cost.1, cost.2)));
    }
    let params =
        Params::new(cost.0, cost.1, cost.2, Some(KEY_BYTES)).map_err(|why| refused(why.to_string()))?;
    let mut bytes = [0; KEY_BYTES];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase.as_bytes(), salt, &mut bytes)
        .map_err(|why| refused(why.to_string()))?;
    let key = Key::new(bytes);
    bytes.zeroize();
    Ok(key)
}

#[cfg(test)]
mod tests;
