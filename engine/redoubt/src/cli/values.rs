//! Values of options as people write them: names, places, limits.

use crate::names::WhichMachine;
use crate::units::size;
use redoubt_core::MachineId;
use redoubt_host::StoreUrl;
use redoubt_host::store::RATE_MIN;
use redoubt_ports::Endpoint;
use redoubt_roles::mount::CACHE_BYTES_MIN;

/// A disk with the name of its export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DiskArg {
    pub(crate) name: String,
    pub(crate) path: String,
}

pub(crate) fn volume_name(text: &str) -> Result<String, String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if text.is_empty() || text.len() > 64 || !text.chars().all(legal) {
        return Err(format!(
            "{text:?} is no volume name; use 1 to 64 letters, digits, dots, dashes or underscores"
        ));
    }
    Ok(text.to_owned())
}

pub(crate) fn disk(text: &str) -> Result<DiskArg, String> {
    let (name, path) = text.split_once('=').ok_or("write NAME=PATH, such as erp=disk.img")?;
    if path.is_empty() {
        return Err("the path is empty; write NAME=PATH, such as erp=disk.img".to_owned());
    }
    Ok(DiskArg { name: volume_name(name)?, path: path.to_owned() })
}

pub(crate) fn endpoint(text: &str) -> Result<Endpoint, String> {
    text.parse().map_err(|error: redoubt_ports::net::EndpointError| error.to_string())
}

pub(crate) fn store_url(text: &str) -> Result<StoreUrl, String> {
    StoreUrl::parse(text).map_err(|error| error.to_string())
}

pub(crate) fn rate(text: &str) -> Result<u64, String> {
    match size(text)? {
        rate if rate < RATE_MIN => Err(format!("{text} is too little: a vault needs {} MiB", RATE_MIN >> 20)),
        rate => Ok(rate),
    }
}

pub(crate) fn cache_size(text: &str) -> Result<u64, String> {
    match size(text)? {
        bytes if bytes > 0 && bytes < CACHE_BYTES_MIN => Err(format!(
            "{text} is too little: a cache needs {} MiB, or write 0 for none",
            CACHE_BYTES_MIN >> 20
        )),
        bytes => Ok(bytes),
    }
}

pub(crate) fn machine(text: &str) -> Result<u128, String> {
    let wrong = || format!("{text:?} is no machine; write its 32 hexadecimal digits");
    if text.len() != 32 {
        return Err(wrong());
    }
    u128::from_str_radix(text, 16).map_err(|_| wrong())
}

pub(crate) fn which_machine(text: &str) -> Result<WhichMachine, String> {
    match machine(text) {
        Ok(id) => Ok(WhichMachine::Id(MachineId(id))),
        Err(_) if text.is_empty() => Err("write the machine's name or its 32 hexadecimal digits".to_owned()),
        Err(_) => Ok(WhichMachine::Name(text.to_owned())),
    }
}
