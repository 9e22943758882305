//! `redoubt keys`: what opens what, rotation, re-wrap, recovery kits.

use crate::cli::{
    KeyArgs, Keys, KeysCheckKit, KeysExportKit, KeysList, KeysRewrap, KeysRotate, StateArg, WhichVault,
};
use crate::failure::{Exit, Failure, Outcome};
use crate::key::{self, KeySource};
use crate::kit::{Kit, passphrase};
use crate::output::{self, Cell, Tone, say, table};
use crate::recovery::{self, Place};
use redoubt_core::MachineId;
use redoubt_host::{HostEntropy, StoreSettings, StoreUrl};
use redoubt_vault::{Vault, VaultError};
use serde::Serialize;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) async fn run(args: Keys) -> Outcome<()> {
    match args {
        Keys::List(args) => list(args).await,
        Keys::Rotate(args) => rotate(args).await,
        Keys::Rewrap(args) => rewrap(args).await,
        Keys::Retire(args) => retire(args).await,
        Keys::ExportKit(args) => export_kit(args).await,
        Keys::CheckKit(args) => check_kit(args).await,
    }
}

/// Opens the vault that the options mean.
async fn open(which: &WhichVault) -> Outcome<(Vault, Place)> {
    let place = recovery::locate(which)?;
    Ok((recovery::open_vault(&place.settings, &place.key).await?, place))
}

#[derive(Serialize)]
struct KeysReport {
    vault: String,
    identity: String,
    vault_keys: Vec<VaultKeyReport>,
    machines: Vec<MachineReport>,
}

#[derive(Serialize)]
struct VaultKeyReport {
    number: u32,
    state: &'static str,
    ours: bool,
}

#[derive(Serialize)]
struct MachineReport {
    machine: String,
    data_keys: Vec<DataKeyReport>,
}

#[derive(Serialize)]
struct DataKeyReport {
    number: u32,
    wrapped_by: Vec<u32>,
    state: &'static str,
    trouble: Option<String>,
}

/// Tries every key of the vault.
async fn report(vault: &Vault, at: &StoreSettings) -> Outcome<KeysReport> {
    let keys = vault.vault_keys().await?;
    let newest = keys.iter().filter(|key| key.is_in_force).map(|key| key.number).max();
    let state = |number: u32, is_in_force: bool| match (is_in_force, Some(number) == newest) {
        (false, _) => "announced",
        (true, true) => "in force",
        (true, false) => "replaced",
    };
    let vault_keys = keys.iter().map(|key| VaultKeyReport {
        number: key.number,
        state: state(key.number, key.is_in_force),
        ours: key.is_ours,
    });
    let mut machines = Vec::new();
    for machine in vault.list_machines().await? {
        let found = vault.data_keys(machine).await?;
        let newest = found.iter().map(|key| key.id).max();
        let data_keys = found.into_iter().map(|key| DataKeyReport {
            number: key.id,
            state: match (&key.trouble, Some(key.id) == newest) {
                (Some(_), _) => "DOES NOT OPEN",
                (None, true) => "opens, newest",
                (None, false) => "opens",
            },
            wrapped_by: key.wrapped_by,
            trouble: key.trouble,
        });
        machines.push(MachineReport { machine: machine.to_string(), data_keys: data_keys.collect() });
    }
    let (vault, identity) = (at.url.to_string(), format!("{:032x}", vault.uuid()));
    Ok(KeysReport { vault, identity, vault_keys: vault_keys.collect(), machines })
}

fn show(report: &KeysReport) -> String {
    let of_vault = report.vault_keys.iter().map(|key| {
        let tone = if key.state == "in force" { Tone::Good } else { Tone::Warning };
        let ours = if key.ours { "this one" } else { "" };
        vec![Cell::from(key.number.to_string()), Cell::toned(key.state, tone), Cell::from(ours)]
    });
    let mut text = table(&[">VAULT KEY", "STATE", "OPENED WITH"], of_vault.collect());
    let rows = report.machines.iter().flat_map(|machine| {
        machine.data_keys.iter().map(|key| {
            let tone = if key.trouble.is_some() { Tone::Bad } else { Tone::Good };
            let by: Vec<String> = key.wrapped_by.iter().map(u32::to_string).collect();
            vec![
                Cell::from(machine.machine.clone()),
                Cell::from(key.number.to_string()),
                Cell::from(by.join(", ")),
                Cell::toned(key.state, tone),
            ]
        })
    });
    let rows: Vec<Vec<Cell>> = rows.collect();
    if !rows.is_empty() {
        text += "\n\n";
        text += &table(&["MACHINE", ">DATA KEY", "WRAPPED BY", "STATE"], rows);
    }
    text
}

/// How a command ends that shows keys: one that does not open must not be missed.
fn verdict(report: &KeysReport) -> Outcome<()> {
    let troubles = report.machines.iter().flat_map(|machine| &machine.data_keys);
    match troubles.filter_map(|key| key.trouble.as_ref()).next() {
        None => Ok(()),
        Some(trouble) => Err(Failure::new(Exit::Warned, trouble.clone())
            .hint("restore the key's object from a copy of the vault, or use the newest vault key")),
    }
}

async fn list(args: KeysList) -> Outcome<()> {
    let (vault, place) = open(&args.which).await?;
    let report = report(&vault, &place.settings).await?;
    output::data(args.common.format, &report, show);
    verdict(&report)
}

#[derive(Serialize)]
struct Rotated {
    machine: String,
    data_key: u32,
}

async fn rotate(args: KeysRotate) -> Outcome<()> {
    let (vault, _) = open(&args.which).await?;
    let machines = match args.machine {
        Some(machine) => vec![MachineId(machine)],
        None => vault.list_machines().await?,
    };
    let mut done = Vec::new();
    for machine in machines {
        let data_key = vault.rotate(machine, &HostEntropy).await?;
        done.push(Rotated { machine: machine.to_string(), data_key });
    }
    output::data(args.common.format, &done, |done| {
        let row = |done: &Rotated| vec![done.machine.clone().into(), done.data_key.to_string().into()];
        table(&["MACHINE", ">NEW DATA KEY"], done.iter().map(row).collect())
    });
    say("what is written from now on is sealed with the new key; running services go over within 64 commits");
    Ok(())
}

#[derive(Serialize)]
struct RewrappedReport {
    vault_key: u32,
    key_file: String,
    data_keys: u64,
    damaged: Vec<String>,
}

async fn rewrap(args: KeysRewrap) -> Outcome<()> {
    let (vault, _) = open(&args.which).await?;
    // One that is there is from an attempt that did not finish; the vault tells if it is another.
    let new = if args.new_key.exists() {
        key::read(&args.new_key)?
    } else {
        key::create(&args.new_key, &HostEntropy)?
    };
    let done = vault.rewrap(&new, &HostEntropy).await?;
    let report = RewrappedReport {
        vault_key: done.number,
        key_file: args.new_key.display().to_string(),
        data_keys: done.copies,
        damaged: done.damaged.iter().map(VaultError::to_string).collect(),
    };
    output::data(args.common.format, &report, |report| {
        format!(
            "vault key {} is in force: {} opens the vault, all {} data keys of it",
            report.vault_key, report.key_file, report.data_keys
        )
    });
    say(format!(
        "the old key opens it as well, until `redoubt keys retire --key {}`; keep a copy of the new one elsewhere",
        args.new_key.display()
    ));
    match done.damaged.first() {
        None => Ok(()),
        Some(damage) => Err(Failure::new(Exit::Warned, damage.to_string())
            .hint("with neither key: restore the object from a copy of the vault, then repeat this")),
    }
}

#[derive(Serialize)]
struct RetiredReport {
    deleted: u64,
    kept: Vec<String>,
}

async fn retire(args: KeysList) -> Outcome<()> {
    let (vault, _) = open(&args.which).await?;
    let done = vault.retire().await?;
    let kept: Vec<String> = done.kept.iter().map(VaultError::to_string).collect();
    let report = RetiredReport { deleted: done.deleted, kept };
    output::data(args.common.format, &report, |report| match report.deleted {
        0 => "no older vault key opens anything of this vault".to_owned(),
        deleted => format!("older vault keys open nothing any more: {deleted} wrapped keys deleted"),
    });
    match done.kept.first() {
        None => Ok(()),
        Some(kept) => Err(Failure::new(Exit::Warned, kept.to_string())
            .hint("it was left to the older keys; `redoubt keys list` shows which")),
    }
}

#[derive(Serialize)]
struct KitReport {
    kit: String,
    vault: String,
    identity: String,
    vault_key: u32,
}

impl KitReport {
    fn of(path: &Path, kit: &Kit) -> KitReport {
        let (identity, vault_key) = (format!("{:032x}", kit.vault), kit.number);
        KitReport { kit: path.display().to_string(), vault: kit.store.url.to_string(), identity, vault_key }
    }
}

async fn export_kit(args: KeysExportKit) -> Outcome<()> {
    let (vault, place) = open(&args.which).await?;
    let settings = portable(place.settings);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    let bytes = place.key.read_bytes()?;
    // With a kit at hand its passphrase file is that of the old one: a new kit asks for its own.
    let file = args.which.key.passphrase_file.as_deref().filter(|_| place.key.file().is_some());
    let kit = Kit::new(settings, vault.uuid(), vault.key_number(), now, &bytes);
    kit.write(&args.file, &passphrase::fresh(file)?, &HostEntropy)?;
    output::data(args.common.format, &KitReport::of(&args.file, &kit), |report| {
        format!("recovery kit {} of vault {}, vault key {}", report.kit, report.vault, report.vault_key)
    });
    say(
        "print it or copy it off this site, and keep the passphrase elsewhere; `redoubt keys check-kit` tries it",
    );
    Ok(())
}

/// A kit is read in another directory, on another machine.
fn portable(settings: StoreSettings) -> StoreSettings {
    let absolute = settings.url.directory().and_then(|path| std::path::absolute(path).ok());
    match absolute {
        Some(path) => StoreSettings { url: StoreUrl::Directory(path), ..settings },
        None => settings,
    }
}

async fn check_kit(args: KeysCheckKit) -> Outcome<()> {
    let (recovery_kit, passphrase_file) = (Some(args.file.clone()), args.passphrase_file);
    let which = WhichVault {
        // A kit is checked by itself: what this directory knows does not help it.
        state: StateArg { state: "/nonexistent/redoubt-state".into() },
        store: args.store,
        key: KeyArgs { key: None, recovery_kit, passphrase_file },
    };
    let (vault, place) = open(&which).await?;
    let report = report(&vault, &place.settings).await?;
    output::data(args.common.format, &report, show);
    verdict(&report)?;
    if let KeySource::Kit(kit) = &place.key {
        let newest =
            report.vault_keys.iter().filter(|key| key.state == "in force").map(|key| key.number).max();
        if newest.is_some_and(|newest| newest > kit.number) {
            let what = format!("the kit holds vault key {}, which was replaced", kit.number);
            return Err(Failure::new(Exit::Warned, what)
                .hint("make a new one with `redoubt keys export-kit` before the old key is retired"));
        }
        say(format!("{} opens vault {}", args.file.display(), place.settings.url));
    }
    Ok(())
}
