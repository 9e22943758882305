//! The estate and what belongs to its machines: hosts, sizes, hardware, groups, loads.

use super::codes::Code;
use super::keys::{ESTATE, GROUP, LOAD, MACHINE, PROTECT_LATER, SERVER, SITES, Takes};
use super::problem::{Problem, advice};
use super::quantity::{Range as Quantity, Unit};
use super::reader::{Reader, is_pattern, matches};
use super::tree::{Node, Span, Table, Val};
use super::verbs::LOADS;
use super::{Estate, Group, Load, MachineSpec, ServerSpec, day, scaled};
use std::collections::BTreeMap;

const MIB: u64 = 1 << 20;

/// What a file of `estates/` says about itself.
pub(super) const SAYS: &[&str] = &["format", "title", "why"];

/// Disks are cut into sectors of this size.
const SECTOR: i64 = 4096;
/// Machines of an estate at most.
const MACHINES_MAX: usize = 1000;
/// Points that a machine keeps at most.
const KEPT_MAX: i64 = 20_000;

/// Returns the estate of a file that says nothing of it.
pub fn standard() -> Estate {
    Estate {
        scale: 1,
        machines: vec![MachineSpec { name: "erp-db".into(), disks: vec![4 * MIB, 2 * MIB] }],
        servers: vec![ServerSpec { name: "ps1".into(), site: "source".into() }],
        disk: "datastore".into(),
        link: "wan".into(),
        bandwidth: None,
        store: "cloud".into(),
        spool_memory: MIB,
        spill: 64 * MIB,
        stage: 32 * MIB,
        point_every: 3_000,
        keep: None,
    }
}

/// Reads `[estate]`; `says` are keys that a file of its own may have besides.
pub(super) fn read(reader: &mut Reader, node: Option<&Node>, says: &[&str]) -> Estate {
    let mut estate = standard();
    let Some(table) = node.and_then(|node| reader.table(node, ESTATE.name)) else { return estate };
    let known = [ESTATE.names(), says.to_vec()].concat();
    reader.only_keys(table, ESTATE.name, &known);
    if let Some(node) = table.get("scale") {
        estate.scale = reader.count(node, "scale", 1..=scaled::SCALE_MAX).unwrap_or(1);
    }
    if let Some(node) = table.get("machines") {
        estate.machines = machines(reader, node);
    }
    if let Some(node) = table.get("process-servers") {
        estate.servers = servers(reader, node);
    }
    twice(reader, table);
    for (key, slot) in [("disk", &mut estate.disk), ("link", &mut estate.link), ("store", &mut estate.store)]
    {
        let Some(Takes::Word(known)) =
            ESTATE.keys.iter().find(|known| known.name == key).map(|key| key.takes)
        else {
            continue;
        };
        let word = table.get(key).and_then(|node| reader.word(node, &format!("{key} model"), &known()));
        word.into_iter().for_each(|word| *slot = word.to_owned());
    }
    for (key, unit, slot) in [
        ("spool-memory", Unit::Bytes, &mut estate.spool_memory),
        ("spill", Unit::Bytes, &mut estate.spill),
        ("stage", Unit::Bytes, &mut estate.stage),
        ("points", Unit::Millis, &mut estate.point_every),
    ] {
        let amount = table.get(key).and_then(|node| reader.amount(node, unit, 1));
        amount.into_iter().for_each(|amount| *slot = amount as u64);
    }
    let keep = table.get("keep").and_then(|node| reader.amount(node, Unit::Count, 1));
    estate.keep = keep.map(|keep| keep.clamp(1, KEPT_MAX) as u32);
    let bandwidth = table.get("bandwidth").and_then(|node| reader.amount(node, Unit::Bytes, 1));
    estate.bandwidth = bandwidth.map(|bandwidth| bandwidth as u64);
    scaled::check(reader, table, &estate);
    estate
}

/// Returns the names of as many machines as an entry stands for.
fn called(name: &str, count: u64) -> Vec<String> {
    if !name.contains('*') {
        return vec![name.to_owned()];
    }
    let width = count.to_string().len();
    (1..=count).map(|number| name.replacen('*', &format!("{number:0width$}"), 1)).collect()
}

/// Returns how many machines an entry stands for. A star in the name and a count need each other.
fn count(reader: &mut Reader, table: &Table) -> u64 {
    let node = table.get("count");
    let count = node.and_then(|node| reader.count(node, "count", 1..=MACHINES_MAX as i64));
    let name = table.get("name").filter(|name| name.text().is_some());
    match (node, name, name.and_then(Node::text).map(|text| text.matches(['*', '?']).collect::<Vec<_>>())) {
        (Some(node), _, Some(stars)) if stars.is_empty() => {
            let what = "several machines have one name";
            let problem = Problem::new(Code::Conflict, node.span, what);
            reader.problem(problem.help("put a `*` into the name, which becomes a number: \"web-*\""));
        }
        (None, Some(name), Some(stars)) if !stars.is_empty() => {
            let what = "a machine's name is no pattern, unless it has a count";
            let problem = Problem::new(Code::Conflict, name.span, what);
            reader.problem(problem.help("add: count = 2"));
        }
        (Some(_), Some(name), Some(stars)) if stars != ["*"] => {
            reader.report(Code::Conflict, name.span, "a name with a count has one `*`, and no `?`");
        }
        _ => {}
    }
    count.unwrap_or(1)
}

fn machines(reader: &mut Reader, node: &Node) -> Vec<MachineSpec> {
    let mut machines = Vec::new();
    for item in reader.list(node, "machines") {
        let Some(table) = reader.place(item, &MACHINE) else { continue };
        super::read::required(reader, item.span, table, &MACHINE);
        let name = table.get("name").and_then(|node| reader.text(node, "name")).unwrap_or_default();
        let disks = table.get("disks").map(|node| reader.list(node, "disks")).unwrap_or_default();
        let sizes = disks.iter().filter_map(|disk| {
            let size = reader.amount(disk, Unit::Bytes, SECTOR)?;
            if size % SECTOR != 0 {
                reader.report(Code::OutOfBounds, disk.span, "the size of a disk is a multiple of 4 KiB");
            }
            Some(size as u64)
        });
        let sizes: Vec<u64> = sizes.collect();
        if let (Some(node), true) = (table.get("disks"), disks.is_empty()) {
            reader.report(Code::OutOfBounds, node.span, "a machine needs at least one disk");
        }
        let count = count(reader, table);
        let named = |name| MachineSpec { name, disks: sizes.clone() };
        machines.extend(called(name, count).into_iter().map(named));
    }
    if machines.len() > MACHINES_MAX {
        let what = format!("an estate has at most {MACHINES_MAX} machines, and these are {}", machines.len());
        reader.report(Code::TooMany, node.span, what);
        machines.truncate(MACHINES_MAX);
    }
    if machines.is_empty() {
        reader.report(Code::OutOfBounds, node.span, "an estate needs at least one machine");
    }
    machines
}

fn servers(reader: &mut Reader, node: &Node) -> Vec<ServerSpec> {
    let mut servers = Vec::new();
    for item in reader.list(node, "process-servers") {
        let Some(table) = reader.place(item, &SERVER) else { continue };
        super::read::required(reader, item.span, table, &SERVER);
        let name = table.get("name").and_then(|node| reader.text(node, "name")).unwrap_or_default();
        let site = table.get("site").and_then(|node| reader.word(node, "site", SITES)).unwrap_or("source");
        servers.push(ServerSpec { name: name.to_owned(), site: site.to_owned() });
    }
    if servers.is_empty() {
        reader.report(Code::OutOfBounds, node.span, "an estate needs at least one process server");
    }
    servers
}

/// Hosts have one meaning each.
fn twice(reader: &mut Reader, table: &Table) {
    let lists = ["machines", "process-servers"].map(|key| table.get(key).and_then(Node::list));
    let items = lists.into_iter().flatten().flatten();
    let mut known: BTreeMap<String, Span> =
        SITES.iter().map(|site| ((*site).to_owned(), Span::NOWHERE)).collect();
    for table in items.filter_map(Node::table) {
        let Some(node) = table.get("name") else { continue };
        let Some(text) = node.text() else { continue };
        let count = table.get("count").map_or(1, |node| match node.value {
            Val::Whole(count) => count.clamp(1, MACHINES_MAX as i64) as u64,
            _ => 1,
        });
        for name in called(text, count) {
            match known.get(&name) {
                None => drop(known.insert(name, node.span)),
                Some(first) if *first == Span::NOWHERE => {
                    let what = format!("{name:?} is the name of a site, so no host can be called that");
                    reader.report(Code::Twice, node.span, what);
                }
                Some(first) => {
                    let what = format!("two hosts are called {name:?}");
                    let problem = Problem::new(Code::Twice, node.span, what);
                    reader.problem(problem.note(*first, "first given here"));
                    break;
                }
            }
        }
    }
}

/// Reads `[protect]`.
pub(super) fn groups(reader: &mut Reader, node: Option<&Node>, estate: &Estate) -> BTreeMap<String, Group> {
    let mut groups = BTreeMap::new();
    let Some(table) = node.and_then(|node| reader.table(node, "[protect]")) else { return groups };
    for (key, node) in table.iter() {
        let Some(table) = reader.table(node, GROUP.name) else { continue };
        for (later, why) in PROTECT_LATER {
            if let Some((key, _)) = table.iter().find(|(key, _)| key.name == *later) {
                let what = format!("{later:?} is not there yet: {why}");
                reader.report(Code::NotYet, key.span, what);
            }
        }
        let known: Vec<&str> =
            GROUP.names().into_iter().chain(PROTECT_LATER.iter().map(|(key, _)| *key)).collect();
        reader.only_keys(table, GROUP.name, &known);
        super::read::required(reader, key.span, table, &GROUP);
        let mut machines: Vec<String> = Vec::new();
        for (node, text) in
            table.get("machines").map(|node| reader.texts(node, "machines")).unwrap_or_default()
        {
            machines.extend(found(reader, node.span, text, estate));
        }
        machines.sort();
        machines.dedup();
        let rpo = table.get("rpo").and_then(|node| reader.amount(node, Unit::Millis, 1));
        reader.is_rpo_broken |= rpo.is_none() && table.get("rpo").is_some();
        groups.insert(key.name.clone(), Group { machines, rpo: rpo.map(|rpo| rpo as u64) });
    }
    groups
}

/// Returns the machines that a name or a pattern means.
fn found(reader: &mut Reader, span: Span, text: &str, estate: &Estate) -> Vec<String> {
    let names: Vec<&str> = estate.machines.iter().map(|machine| machine.name.as_str()).collect();
    let found: Vec<String> =
        names.iter().filter(|name| matches(text, name)).map(|name| (*name).to_owned()).collect();
    if found.is_empty() && is_pattern(text) {
        let problem = Problem::new(Code::NothingMatches, span, format!("no machine matches {text:?}"));
        reader.problem(problem.help(format!("known here: {}", names.join(", "))));
    } else if found.is_empty() {
        let problem = Problem::new(Code::UnknownTarget, span, format!("no machine is called {text:?}"));
        reader.problem(problem.help(advice(text, &names)));
    }
    found
}

/// Reads `[load]`: a machine's own entry counts more than a pattern that matches it.
pub(super) fn loads(reader: &mut Reader, node: Option<&Node>, estate: &Estate) -> BTreeMap<String, Load> {
    let fixed = |low, high| Quantity { low, high, unit: Unit::Count };
    let usual = Load {
        model: "mixed".into(),
        rate: fixed(40, 40),
        writes: None,
        day: None,
        entropy: None,
        jobs: fixed(4, 4),
        seed: None,
    };
    let mut loads: BTreeMap<String, Load> =
        estate.machines.iter().map(|machine| (machine.name.clone(), usual.clone())).collect();
    let Some(table) = node.and_then(|node| reader.table(node, "[load]")) else { return loads };
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| !is_pattern(&key.name));
    for (key, node) in entries {
        let machines = found(reader, key.span, &key.name, estate);
        let Some(table) = reader.place(node, &LOAD) else { continue };
        let mut load = usual.clone();
        if let Some(node) = table.get("writes") {
            load.writes = written(reader, table, node);
            load.model = "pages".to_owned();
        }
        load.day = table.get("day").and_then(|node| day::read(reader, node));
        if let (Some((key, _)), None) = (table.iter().find(|(key, _)| key.name == "day"), table.get("writes"))
        {
            let problem = Problem::new(Code::Conflict, key.span, "`day` bends `writes`, and there is none");
            reader.problem(problem.help("add: writes = \"40 KiB/s\""));
        }
        load.entropy = table.get("entropy").and_then(|node| scaled::share(reader, node));
        if let Some(model) = table.get("model").and_then(|model| reader.word(model, "load model", LOADS)) {
            load.model = model.to_owned();
        }
        for (key, slot) in [("rate", &mut load.rate), ("jobs", &mut load.jobs)] {
            let Some(node) = table.get(key) else { continue };
            let Some(range) = reader.quantity(node, Unit::Count) else { continue };
            super::timeline::bounds(reader, node.span, key_of(key), range);
            *slot = range;
        }
        load.seed = table.get("seed").and_then(|node| guest_seed(reader, node));
        machines.into_iter().for_each(|machine| drop(loads.insert(machine, load.clone())));
    }
    loads
}

/// Reads `writes`, and reports what it does not go together with.
fn written(reader: &mut Reader, table: &Table, node: &Node) -> Option<Quantity> {
    if let Some((key, _)) = table.iter().find(|(key, _)| key.name == "rate") {
        let what = "`rate` says how many operations, and `writes` says it already";
        let problem = Problem::new(Code::Conflict, key.span, what);
        reader.problem(problem.help("leave one of them out"));
    }
    if let Some(model) = table.get("model").filter(|model| model.text() != Some("pages")) {
        let what = "`writes` is met by pages; other guests do as many operations as `rate` says";
        let problem = Problem::new(Code::Conflict, model.span, what);
        reader.problem(problem.help("write model = \"pages\", or leave it out"));
    }
    let range = reader.quantity(node, Unit::Bytes)?;
    super::timeline::bounds(reader, node.span, "writes", range);
    Some(range)
}

/// Reads 64 bits as hexadecimal digits: TOML has no whole numbers of that size.
fn guest_seed(reader: &mut Reader, node: &Node) -> Option<u64> {
    let text = reader.text(node, "a guest's seed")?;
    let seed = u64::from_str_radix(text, 16).ok();
    if seed.is_none() {
        let problem = Problem::new(Code::NoQuantity, node.span, format!("{text:?} is no seed of a guest"));
        reader.problem(problem.help("write up to 16 hexadecimal digits, such as \"2f\""));
    }
    seed
}

/// A load's `rate` counts operations; that of a fault is a share.
fn key_of(key: &str) -> &str {
    if key == "rate" { "operations" } else { key }
}
