//! Takes every model file of the tree into the crate: a new file needs no line of code.

#![expect(clippy::disallowed_methods, reason = "cargo tells a build script by the environment where it is")]

use std::error::Error;
use std::fmt::Write;
use std::path::PathBuf;
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    let here = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let mut code = String::new();
    for (kind, name) in [("disk", "DISKS"), ("link", "LINKS"), ("store", "STORES")] {
        println!("cargo::rerun-if-changed={kind}");
        let mut models = Vec::new();
        for entry in fs::read_dir(here.join(kind))? {
            let path = entry?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
            if path.extension().is_some_and(|extension| extension == "toml") {
                models.push((stem, path));
            }
        }
        models.sort();
        writeln!(code, "/// Names and texts of the {}s in the tree.", kind)?;
        writeln!(code, "pub const {name}: [(&str, &str); {}] = [", models.len())?;
        for (stem, path) in models {
            writeln!(code, "    ({stem:?}, include_str!({path:?})),")?;
        }
        writeln!(code, "];")?;
    }
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("tree.rs"), code)?;
    Ok(())
}
