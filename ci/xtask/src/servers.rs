//! Object store servers for the tests, from npm and PyPI: pinned, kept in a cache of the user, found again by
//! the version in their directory's name (`scenarios/e2e/src/servers.rs` looks there).

use crate::command::run;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Azure Blob Storage's emulator; newer ones need a newer Node than Debian's.
const AZURITE: (&str, &str) = ("azurite-3.35.0", "azurite@3.35.0");
/// A server of S3's protocol, and what it serves with. The extra `server` would fetch twice as much.
const MOTO: (&str, [&str; 4]) =
    ("moto-5.2.5", ["moto[s3]==5.2.5", "flask==3.1.3", "flask-cors==6.0.5", "werkzeug==3.1.9"]);

/// Installs the servers that are missing.
pub(crate) fn install() -> Result<()> {
    let home = std::env::var_os("HOME").context("HOME is not set: test servers have no place")?;
    let cache = Path::new(&home).join(".cache/redoubt-test-tools");
    if let Some(place) = missing(&cache, AZURITE.0)? {
        let mut npm = Command::new("npm");
        npm.args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"]).arg(&place).arg(AZURITE.1);
        run(npm).context("npm install (the tests need this server)")?;
        done(&place)?;
    }
    if let Some(place) = missing(&cache, MOTO.0)? {
        let mut venv = Command::new("/usr/bin/python3");
        venv.args(["-m", "venv"]).arg(&place);
        run(venv)?;
        let mut pip = Command::new(place.join("bin/python"));
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(MOTO.1);
        run(pip).context("pip install (the tests need this server)")?;
        done(&place)?;
    }
    Ok(())
}

/// Says that an installation is whole: an interrupted one is made anew.
fn done(place: &Path) -> Result<()> {
    Ok(std::fs::write(place.join("installed"), "")?)
}

/// Returns where to install it, empty, unless it is there.
fn missing(cache: &Path, name: &str) -> Result<Option<PathBuf>> {
    let place = cache.join(name);
    if place.join("installed").exists() {
        return Ok(None);
    }
    println!("installing {name} in {}", cache.display());
    if place.exists() {
        std::fs::remove_dir_all(&place)?;
    }
    std::fs::create_dir_all(&place)?;
    Ok(Some(place))
}
