//! `redoubt vault-dump`: what the objects of a vault hold, whole or damaged.

use crate::cli::VaultDump;
use crate::dump::{self, Line};
use crate::failure::{Exit, Failure, Outcome};
use crate::{output, recovery};
use redoubt_ports::StoreKey;
use redoubt_vault::inspect::{Dump, Inspector};
use redoubt_vault::{Vault, VaultError};

pub(crate) async fn run(args: VaultDump) -> Outcome<()> {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-/".contains(c);
    if !args.object.chars().all(legal) {
        let what = format!("{:?} is no name of an object", args.object);
        return Err(
            Failure::usage(what).hint("names are lower-case, such as g/5e7f; without one all are listed")
        );
    }
    let place = recovery::locate(&args.which)?;
    let store = recovery::open_store(&place.settings).await?;
    let keys = place.key.read()?;
    place.key.check_vault(store.clone(), &place.settings.url).await?;
    // With a wrong key everything would look damaged; whatever else is wrong is shown.
    if let Err(error @ (VaultError::WrongKey | VaultError::NoVault)) =
        Vault::open(store.clone(), keys.clone()).await
    {
        return Err(error.into());
    }
    let inspector = Inspector::new(store, keys);
    let names = inspector.list(&args.object).await.map_err(VaultError::from)?;
    let damaged = match names.iter().find(|name| name.as_str() == args.object) {
        Some(name) => {
            let dump = read(&inspector, name).await?;
            output::data(args.common.format, &dump::json(&dump), |_| dump::show(&dump, args.all));
            u64::from(!dump.findings.is_empty())
        }
        None => list(&args, &inspector, &names).await?,
    };
    if damaged == 0 {
        return Ok(());
    }
    let what = if damaged == 1 {
        "an object is damaged".to_owned()
    } else {
        format!("{damaged} objects are damaged")
    };
    Err(Failure::new(Exit::Warned, what).hint("`redoubt verify` tells which recovery points need them"))
}

async fn read(inspector: &Inspector, name: &StoreKey) -> Outcome<Dump> {
    let dump = inspector.dump(name).await.map_err(VaultError::from)?;
    dump.ok_or_else(|| {
        Failure::new(Exit::Unreachable, format!("{name} is listed and not there"))
            .hint("look again; it may be gone")
    })
}

/// Lists objects with what they are, and returns how many are damaged.
async fn list(args: &VaultDump, inspector: &Inspector, names: &[StoreKey]) -> Outcome<u64> {
    if names.is_empty() {
        let what = format!("no object's name begins with {:?}", args.object);
        return Err(Failure::new(Exit::Refused, what).hint("list all objects with `redoubt vault-dump`"));
    }
    let mut lines = Vec::new();
    for name in names {
        lines.push(Line::of(&read(inspector, name).await?));
    }
    output::data(args.common.format, &lines, |lines| dump::show_list(lines));
    Ok(lines.iter().filter(|line| !line.damage.is_empty()).count() as u64)
}
