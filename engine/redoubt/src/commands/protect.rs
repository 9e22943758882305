//! `redoubt protect`: one more disk for a running service.

use super::nbd::Address;
use crate::cli::Protect;
use crate::control::{Request, ask};
use crate::failure::{Exit, Failure, Outcome};
use crate::output;

pub(crate) async fn run(args: Protect) -> Outcome<()> {
    // The service may run in another directory: it gets the whole path.
    let path = std::fs::canonicalize(&args.disk.path).map_err(|error| {
        Failure::new(Exit::Unreachable, format!("cannot use disk {}: {error}", args.disk.path))
            .hint("check the path")
    })?;
    let request = Request::Protect { name: args.disk.name, path: path.display().to_string() };
    let addresses: Vec<Address> = ask(&args.state.state, &request).await?;
    output::data(args.common.format, &addresses, |addresses| {
        addresses.iter().map(|address| format!("{}\n", address.uri)).collect()
    });
    Ok(())
}
