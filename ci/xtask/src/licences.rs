//! What we may ship: licences, and crates that are linked twice.
//!
//! Rules: L-1 each dependency has a licence of which every required part is in the list; L-2 a crate is
//! linked in one major version only, the listed exceptions aside; L-3 crates come from the registry or
//! from this tree, and the banned ones are not used.
//!
//! What is *not* here: known vulnerabilities, which need an advisory database from the network.

use crate::command::{cargo, output};
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// Licences that allow what we do: to link, to change, to ship, with attribution at most.
const ALLOWED: [&str; 15] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Crates that may be there in several major versions: `syn` belongs to macros and is in no binary; the old
/// ones of the others are small and come with `ring`, with the checksums of the S3 client and with the log of
/// histograms.
const TWICE: &[&str] = &["syn", "base64", "crypto-common", "digest", "getrandom"];

/// Crates that must not come back, why, and who may have them all the same.
const BANNED: [(&str, &str, &[&str]); 3] = [
    ("openssl-sys", "TLS is rustls: no system library", &[]),
    ("aws-lc-sys", "TLS is rustls with ring: one crypto library in C is enough", &[]),
    // The clients of cloud stores spread their retries with it; the lab never has them.
    ("rand", "randomness comes from the Entropy port", &["object_store"]),
];

/// The registry of crates.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dep>,
}

#[derive(Deserialize)]
struct Dep {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    kind: Option<String>,
}

#[derive(Clone, Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
}

/// The production binary: what it links is what we ship.
const SHIPPED: &str = "redoubt";

/// Fails with every finding, one a line.
pub(crate) fn check() -> Result<()> {
    let mut command = cargo(&["metadata", "--format-version", "1", "--locked"]);
    command.args(["--filter-platform", "x86_64-unknown-linux-gnu"]);
    let metadata: Metadata =
        serde_json::from_str(&output(command)?).context("what cargo metadata printed")?;
    let findings = judge(&metadata.packages, &linked(&metadata)?);
    if !findings.is_empty() {
        bail!("{} findings:\n  {}", findings.len(), findings.join("\n  "));
    }
    Ok(())
}

/// What the shipped binary links, by identity, and the names of those that import it.
type Linked = BTreeMap<String, BTreeSet<String>>;

fn linked(metadata: &Metadata) -> Result<Linked> {
    let nodes: BTreeMap<&str, &Node> =
        metadata.resolve.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
    let names: BTreeMap<&str, &str> =
        metadata.packages.iter().map(|package| (package.id.as_str(), package.name.as_str())).collect();
    let root = metadata.packages.iter().find(|package| package.name == SHIPPED && package.source.is_none());
    let root = root.with_context(|| format!("no crate is called {SHIPPED}"))?.id.as_str();
    let mut found = Linked::from([(root.to_owned(), BTreeSet::new())]);
    let mut open = vec![root];
    while let Some(id) = open.pop() {
        let normal = |dep: &&Dep| dep.dep_kinds.iter().any(|kind| kind.kind.is_none());
        for dep in nodes.get(id).into_iter().flat_map(|node| &node.deps).filter(normal) {
            if !found.contains_key(&dep.pkg) {
                open.push(&dep.pkg);
            }
            let importer = names.get(id).copied().unwrap_or_default().to_owned();
            found.entry(dep.pkg.clone()).or_default().insert(importer);
        }
    }
    Ok(found)
}

fn judge(packages: &[Package], linked: &Linked) -> Vec<String> {
    let mut findings = Vec::new();
    let mut versions: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for package in packages {
        let name = &package.name;
        let Some(source) = &package.source else { continue };
        if source != REGISTRY {
            findings.push(format!("{name}: L-3 comes from {source}"));
        }
        let licence = package.license.clone().unwrap_or_default();
        if !is_allowed(&licence) {
            findings.push(format!("{name}: L-1 licence {licence:?} is not in the list"));
        }
        let Some(importers) = linked.get(&package.id) else { continue };
        if let Some((_, why, may)) = BANNED.iter().find(|(banned, ..)| banned == name) {
            let breach = importers.iter().filter(|importer| !may.contains(&importer.as_str()));
            findings.extend(breach.map(|by| format!("{name}: L-3 is banned, and {by} imports it: {why}")));
        }
        versions.entry(name).or_default().insert(major(&package.version));
    }
    for (name, majors) in versions {
        if majors.len() > 1 && !TWICE.contains(&name) {
            let majors = majors.into_iter().collect::<Vec<_>>().join(", ");
            findings.push(format!("{name}: L-2 is linked in versions {majors}"));
        }
    }
    findings
}

/// Returns the part of a version that differs if two of them cannot be one: `1`, or `0.12`.
fn major(version: &str) -> String {
    let mut parts = version.split('.');
    match (parts.next().unwrap_or_default(), parts.next().unwrap_or_default()) {
        ("0", minor) => format!("0.{minor}"),
        (major, _) => major.to_owned(),
    }
}

/// Judges an SPDX expression: `AND` needs all parts, `OR` (or an old `/`) one. Parentheses bind.
fn is_allowed(expression: &str) -> bool {
    let text = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut at = 0;
    !words.is_empty() && any_of(&words, &mut at) && at == words.len()
}

fn any_of(words: &[&str], at: &mut usize) -> bool {
    let mut allowed = all_of(words, at);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        allowed |= all_of(words, at);
    }
    allowed
}

fn all_of(words: &[&str], at: &mut usize) -> bool {
    let mut allowed = one(words, at);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        allowed &= one(words, at);
    }
    allowed
}

fn one(words: &[&str], at: &mut usize) -> bool {
    let Some(word) = words.get(*at) else { return false };
    *at += 1;
    if *word == "(" {
        let allowed = any_of(words, at);
        let is_closed = words.get(*at) == Some(&")");
        *at += 1;
        return allowed && is_closed;
    }
    if words.get(*at) == Some(&"WITH") {
        let name = format!("{word} WITH {}", words.get(*at + 1).unwrap_or(&""));
        *at += 2;
        return ALLOWED.contains(&name.as_str());
    }
    ALLOWED.contains(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_licence_expression_is_judged_by_its_parts() {
        for good in ["MIT", "MIT OR GPL-3.0", "MIT/Apache-2.0", "(MIT OR GPL-2.0) AND Zlib"] {
            assert!(is_allowed(good), "{good}");
        }
        for bad in
            ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT", "MIT MIT", "GPL-2.0 WITH Classpath-exception-2.0"]
        {
            assert!(!is_allowed(bad), "{bad}");
        }
        assert!(is_allowed("Apache-2.0 WITH LLVM-exception OR GPL-3.0"));
    }

    #[test]
    fn each_rule_finds_its_breach() {
        let package = |name: &str, version: &str, license: &str, source: &str| Package {
            id: format!("{name}@{version}"),
            name: name.to_owned(),
            version: version.to_owned(),
            license: Some(license.to_owned()),
            source: Some(source.to_owned()),
        };
        let findings = |packages: &[Package]| {
            let by = |importer: &str| BTreeSet::from([importer.to_owned()]);
            let importer = |package: &Package| if package.version == "9.0.0" { "object_store" } else { "x" };
            let linked = packages.iter().map(|package| (package.id.clone(), by(importer(package))));
            judge(packages, &linked.collect()).len()
        };
        let good = package("a", "1.2.0", "MIT", REGISTRY);
        assert_eq!(findings(std::slice::from_ref(&good)), 0);
        assert_eq!(findings(&[good.clone(), package("a", "1.3.0", "MIT", REGISTRY)]), 0);
        assert_eq!(findings(&[good.clone(), package("a", "2.0.0", "MIT", REGISTRY)]), 1);
        assert_eq!(findings(&[package("a", "1.0.0", "GPL-3.0", REGISTRY)]), 1);
        assert_eq!(findings(&[package("a", "1.0.0", "MIT", "git+https://example.org/a")]), 1);
        assert_eq!(findings(&[package("openssl-sys", "0.9.0", "MIT", REGISTRY)]), 1);
        assert_eq!(findings(&[package("rand", "0.8.0", "MIT", REGISTRY)]), 1);
        assert_eq!(findings(&[package("rand", "9.0.0", "MIT", REGISTRY)]), 0, "its importer may have it");
    }
}
