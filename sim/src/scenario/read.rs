//! The walker: from TOML's spanned tree to a [`Scenario`], collecting every problem on the way.
//!
//! It never stops at the first problem. A missing or wrong value is reported once and replaced by a
//! default, so that what follows can be judged too; a scenario with any problem is never returned.

use super::problem::{Problem, Problems, advice};
use super::quantity::{Range as Quantity, Unit, parse_in, parse_range};
use super::verbs::{LOADS, MARKS, ORACLES};
use super::{Estate, Expect, Load, MachineSpec, Scenario, SeedCounts, ServerSpec, Vary, timeline};

use redoubt_hw_models as hw;
use std::collections::BTreeMap;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Smallest and largest number of seeds that make sense.
const SEEDS: std::ops::RangeInclusive<i64> = 1..=1_000_000;

/// Collects problems.
pub(super) struct Reader {
    pub(super) problems: Vec<Problem>,
}

impl Reader {
    pub(super) fn problem(&mut self, span: Range<usize>, what: impl Into<String>, help: Option<String>) {
        self.problems.push(Problem { span, what: what.into(), help });
    }

    /// Reports keys that are not in the list.
    pub(super) fn only_keys(&mut self, table: &DeTable<'_>, place: &str, known: &[&str]) {
        for key in table.keys() {
            let name = key.get_ref().as_ref();
            if !known.contains(&name) {
                self.problem(
                    key.span(),
                    format!("unknown key {name:?} in {place}"),
                    Some(advice(name, known)),
                );
            }
        }
    }

    pub(super) fn text(&mut self, value: &Spanned<DeValue<'_>>, what: &str) -> Option<String> {
        match value.get_ref() {
            DeValue::String(text) => Some(text.to_string()),
            other => {
                let what = format!("{what} must be a string, not {}", other.type_str());
                self.problem(value.span(), what, None);
                None
            }
        }
    }

    pub(super) fn word(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        what: &str,
        known: &[&str],
    ) -> Option<String> {
        let text = self.text(value, what)?;
        if !known.contains(&text.as_str()) {
            self.problem(value.span(), format!("unknown {what} {text:?}"), Some(advice(&text, known)));
        }
        Some(text)
    }

    pub(super) fn texts<'a, 'i>(
        &mut self,
        value: &'a Spanned<DeValue<'i>>,
        what: &str,
    ) -> Vec<(&'a Spanned<DeValue<'i>>, String)> {
        let DeValue::Array(items) = value.get_ref() else {
            self.problem(value.span(), format!("{what} must be a list of strings"), None);
            return Vec::new();
        };
        items.iter().filter_map(|item| Some((item, self.text(item, what)?))).collect()
    }

    pub(super) fn quantity(&mut self, value: &Spanned<DeValue<'_>>, unit: Unit) -> Option<Quantity> {
        let text = match value.get_ref() {
            DeValue::Integer(number) if unit == Unit::Count => number.to_string(),
            _ => self.text(value, "a quantity")?,
        };
        match parse_in(&text, unit) {
            Ok(range) => Some(range),
            Err(what) => {
                self.problem(value.span(), what, None);
                None
            }
        }
    }

    fn number(&mut self, value: &Spanned<DeValue<'_>>, what: &str) -> Option<i64> {
        let number =
            value.get_ref().as_integer().and_then(|n| i64::from_str_radix(n.as_str(), n.radix()).ok());
        if number.is_none() {
            self.problem(value.span(), format!("{what} must be a whole number"), None);
        }
        number
    }

    pub(super) fn table<'a, 'i>(
        &mut self,
        value: &'a Spanned<DeValue<'i>>,
        what: &str,
    ) -> Option<&'a DeTable<'i>> {
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.problem(value.span(), format!("{what} must be a table"), None);
        }
        table
    }
}

/// Reads one scenario. `path` is used in messages only; `name` becomes the scenario's name.
pub fn load(path: &str, name: &str, source: &str) -> Result<Scenario, Box<Problems>> {
    let mut reader = Reader { problems: Vec::new() };
    let (root, errors) = DeTable::parse_recoverable(source);
    for error in errors {
        reader.problem(error.span().unwrap_or(0..0), error.message().to_owned(), None);
    }
    let scenario = read_root(&mut reader, name, root.get_ref());
    if reader.problems.is_empty() {
        return Ok(scenario);
    }
    let mut list = reader.problems;
    list.sort_by_key(|problem| problem.span.start);
    Err(Box::new(Problems { path: path.to_owned(), source: source.to_owned(), list }))
}

pub(super) fn get<'a, 'i>(table: &'a DeTable<'i>, key: &str) -> Option<&'a Spanned<DeValue<'i>>> {
    table.iter().find(|(name, _)| name.get_ref().as_ref() == key).map(|(_, value)| value)
}

fn read_root(reader: &mut Reader, name: &str, root: &DeTable<'_>) -> Scenario {
    let known =
        ["format", "title", "why", "tags", "seeds", "estate", "load", "vary", "swarm", "timeline", "expect"];
    reader.only_keys(root, "a scenario", &known);
    match get(root, "format") {
        Some(value) if reader.number(value, "format") != Some(1) => {
            reader.problem(value.span(), "this lab reads format 1", None);
        }
        Some(_) => {}
        None => reader.problem(0..0, "the key \"format\" is missing", Some("add: format = 1".into())),
    }
    let mut required = |key: &str| match get(root, key) {
        Some(value) => reader.text(value, key).unwrap_or_default(),
        None => {
            reader.problem(0..0, format!("the key {key:?} is missing"), None);
            String::new()
        }
    };
    let (title, why) = (required("title"), required("why"));
    let tags = get(root, "tags").map(|value| reader.texts(value, "tags")).unwrap_or_default();
    let estate = read_estate(reader, get(root, "estate"));
    let loads = read_loads(reader, get(root, "load"), &estate);
    let vary = read_vary(reader, get(root, "vary"));
    let steps = match get(root, "timeline") {
        Some(value) => timeline::read(reader, value, &estate, &vary),
        None => {
            reader.problem(0..0, "the table [timeline] is missing", None);
            Vec::new()
        }
    };
    Scenario {
        name: name.to_owned(),
        title,
        why,
        tags: tags.into_iter().map(|(_, tag)| tag).collect(),
        seeds: read_seeds(reader, get(root, "seeds")),
        estate,
        loads,
        vary,
        steps,
        swarm: get(root, "swarm").is_some_and(|value| value.get_ref().as_bool() == Some(true)),
        expect: read_expect(reader, get(root, "expect")),
    }
}

fn read_seeds(reader: &mut Reader, value: Option<&Spanned<DeValue<'_>>>) -> SeedCounts {
    let mut counts = SeedCounts { from: 1, pr: 4, nightly: 500 };
    let Some(table) = value.and_then(|value| reader.table(value, "seeds")) else { return counts };
    reader.only_keys(table, "seeds", &["from", "pr", "nightly"]);
    if let Some(value) = get(table, "from") {
        match reader.number(value, "from").map(u64::try_from) {
            Some(Ok(number)) => counts.from = number,
            Some(Err(_)) => reader.problem(value.span(), "a seed is 0 or more", None),
            None => {}
        }
    }
    for (key, slot) in [("pr", &mut counts.pr), ("nightly", &mut counts.nightly)] {
        let Some(value) = get(table, key) else { continue };
        match reader.number(value, key) {
            Some(number) if SEEDS.contains(&number) => *slot = number as u64,
            Some(_) => reader.problem(value.span(), "a run takes 1 to 1000000 seeds", None),
            None => {}
        }
    }
    counts
}

const MIB: u64 = 1 << 20;

/// Returns the estate of a file that says nothing of it.
pub fn default_estate() -> Estate {
    Estate {
        machines: vec![MachineSpec { name: "erp-db".into(), disks: vec![4 * MIB, 2 * MIB] }],
        servers: vec![ServerSpec { name: "ps1".into(), site: "source".into() }],
        disk: "datastore".into(),
        link: "wan".into(),
        store: "cloud".into(),
        spool_memory: MIB,
        spill: 64 * MIB,
        stage: 32 * MIB,
        point_every: 3_000,
    }
}

fn read_estate(reader: &mut Reader, value: Option<&Spanned<DeValue<'_>>>) -> Estate {
    let mut estate = default_estate();
    let Some(table) = value.and_then(|value| reader.table(value, "estate")) else { return estate };
    let known =
        ["machines", "process-servers", "disk", "link", "store", "spool-memory", "spill", "stage", "points"];
    reader.only_keys(table, "[estate]", &known);
    if let Some(value) = get(table, "machines") {
        estate.machines = read_machines(reader, value);
    }
    if let Some(value) = get(table, "process-servers") {
        estate.servers = read_servers(reader, value);
    }
    for (key, slot, models) in [
        ("disk", &mut estate.disk, &hw::DISKS[..]),
        ("link", &mut estate.link, &hw::LINKS),
        ("store", &mut estate.store, &hw::STORES),
    ] {
        let Some(value) = get(table, key) else { continue };
        let known: Vec<&str> = models.iter().map(|(name, _)| *name).collect();
        *slot = reader.word(value, &format!("{key} model"), &known).unwrap_or_default();
    }
    for (key, slot) in [
        ("spool-memory", &mut estate.spool_memory),
        ("spill", &mut estate.spill),
        ("stage", &mut estate.stage),
    ] {
        let Some(value) = get(table, key) else { continue };
        *slot = reader.quantity(value, Unit::Bytes).map_or(0, |range| range.low as u64);
    }
    if let Some(value) = get(table, "points") {
        estate.point_every = reader.quantity(value, Unit::Millis).map_or(1, |range| range.low as u64);
    }
    estate
}

fn read_machines(reader: &mut Reader, value: &Spanned<DeValue<'_>>) -> Vec<MachineSpec> {
    let mut machines = Vec::new();
    let items = value.get_ref().as_array().map(|items| items.iter().collect::<Vec<_>>()).unwrap_or_default();
    for item in items {
        let Some(table) = reader.table(item, "a machine") else { continue };
        reader.only_keys(table, "a machine", &["name", "disks"]);
        let name = get(table, "name").and_then(|name| reader.text(name, "name")).unwrap_or_default();
        let disks = get(table, "disks").map(|disks| reader.texts(disks, "disks")).unwrap_or_default();
        let mut sizes = Vec::new();
        for (place, text) in disks {
            match parse_in(&text, Unit::Bytes) {
                Ok(range) if range.low > 0 && range.low % 4096 == 0 => sizes.push(range.low as u64),
                Ok(_) => reader.problem(place.span(), "a disk is a positive multiple of 4 KiB", None),
                Err(what) => reader.problem(place.span(), what, None),
            }
        }
        if name.is_empty() || sizes.is_empty() {
            let help = "write { name = \"erp-db\", disks = [\"4 MiB\"] }".to_owned();
            reader.problem(item.span(), "a machine needs a name and at least one disk", Some(help));
        }
        machines.push(MachineSpec { name, disks: sizes });
    }
    if machines.is_empty() {
        reader.problem(value.span(), "an estate needs at least one machine", None);
    }
    machines
}

fn read_servers(reader: &mut Reader, value: &Spanned<DeValue<'_>>) -> Vec<ServerSpec> {
    let mut servers = Vec::new();
    let items = value.get_ref().as_array().map(|items| items.iter().collect::<Vec<_>>()).unwrap_or_default();
    for item in items {
        let Some(table) = reader.table(item, "a process server") else { continue };
        reader.only_keys(table, "a process server", &["name", "site"]);
        let name = get(table, "name").and_then(|name| reader.text(name, "name")).unwrap_or_default();
        let site = get(table, "site")
            .and_then(|site| reader.word(site, "site", &["source", "target"]))
            .unwrap_or_else(|| "source".into());
        servers.push(ServerSpec { name, site });
    }
    if servers.is_empty() {
        reader.problem(value.span(), "an estate needs at least one process server", None);
    }
    servers
}

fn read_loads(
    reader: &mut Reader,
    value: Option<&Spanned<DeValue<'_>>>,
    estate: &Estate,
) -> BTreeMap<String, Load> {
    let fixed = |low, high| Quantity { low, high, unit: Unit::Count };
    let standard = Load { model: "mixed".into(), rate: fixed(40, 40), jobs: fixed(4, 4), seed: None };
    let mut loads: BTreeMap<String, Load> =
        estate.machines.iter().map(|machine| (machine.name.clone(), standard.clone())).collect();
    let Some(table) = value.and_then(|value| reader.table(value, "load")) else { return loads };
    let names: Vec<&str> = estate.machines.iter().map(|machine| machine.name.as_str()).collect();
    for (key, value) in table.iter() {
        let machine = key.get_ref().as_ref();
        if !names.contains(&machine) {
            reader.problem(
                key.span(),
                format!("no machine is called {machine:?}"),
                Some(advice(machine, &names)),
            );
        }
        let Some(table) = reader.table(value, "a load") else { continue };
        reader.only_keys(table, "a load", &["model", "rate", "jobs", "seed"]);
        let mut load = standard.clone();
        if let Some(model) = get(table, "model").and_then(|model| reader.word(model, "load model", LOADS)) {
            load.model = model;
        }
        for (key, slot) in [("rate", &mut load.rate), ("jobs", &mut load.jobs)] {
            if let Some(range) = get(table, key).and_then(|value| reader.quantity(value, Unit::Count)) {
                *slot = range;
            }
        }
        if let Some(value) = get(table, "seed") {
            load.seed = read_guest_seed(reader, value);
        }
        loads.insert(machine.to_owned(), load);
    }
    loads
}

/// Reads 64 bits as hexadecimal digits: TOML has no whole numbers of that size.
fn read_guest_seed(reader: &mut Reader, value: &Spanned<DeValue<'_>>) -> Option<u64> {
    let text = reader.text(value, "a guest's seed")?;
    let seed = u64::from_str_radix(&text, 16).ok();
    if seed.is_none() {
        let help = "write up to 16 hexadecimal digits, such as \"2f\"".to_owned();
        reader.problem(value.span(), format!("{text:?} is no seed of a guest"), Some(help));
    }
    seed
}

fn read_vary(reader: &mut Reader, value: Option<&Spanned<DeValue<'_>>>) -> BTreeMap<String, Vary> {
    let mut vary = BTreeMap::new();
    let Some(table) = value.and_then(|value| reader.table(value, "vary")) else { return vary };
    for (key, value) in table.iter() {
        let entry = if value.get_ref().is_array() {
            let names: Vec<String> =
                reader.texts(value, "a choice").into_iter().map(|(_, name)| name).collect();
            if names.is_empty() {
                reader.problem(value.span(), "a choice needs at least one name", None);
                continue;
            }
            Vary::Choice(names)
        } else {
            let Some(text) = reader.text(value, "a variable") else { continue };
            match parse_range(&text) {
                Ok(range) => Vary::Range(range),
                Err(what) => {
                    reader.problem(value.span(), what, None);
                    continue;
                }
            }
        };
        vary.insert(key.get_ref().to_string(), entry);
    }
    vary
}

fn read_expect(reader: &mut Reader, value: Option<&Spanned<DeValue<'_>>>) -> Expect {
    let all = || ORACLES.iter().map(|name| (*name).to_owned()).collect();
    let mut expect = Expect { always: all(), converges_within: 60_000, sometimes: Vec::new() };
    let Some(table) = value.and_then(|value| reader.table(value, "expect")) else { return expect };
    reader.only_keys(table, "[expect]", &["always", "eventually", "sometimes"]);
    if let Some(value) = get(table, "always") {
        expect.always = names_of(reader, value, "oracle", ORACLES);
    }
    if let Some(value) = get(table, "sometimes") {
        expect.sometimes = names_of(reader, value, "mark", MARKS);
    }
    for (place, text) in
        get(table, "eventually").map(|value| reader.texts(value, "eventually")).unwrap_or_default()
    {
        match text.strip_prefix("converges within ").map(|bound| parse_in(bound, Unit::Millis)) {
            Some(Ok(range)) => expect.converges_within = range.low as u64,
            Some(Err(what)) => reader.problem(place.span(), what, None),
            None => {
                let help = "write \"converges within 60 s\"".to_owned();
                reader.problem(place.span(), format!("unknown promise {text:?}"), Some(help));
            }
        }
    }
    expect
}

fn names_of(reader: &mut Reader, value: &Spanned<DeValue<'_>>, what: &str, known: &[&str]) -> Vec<String> {
    let mut names = Vec::new();
    for (place, name) in reader.texts(value, what) {
        if !known.contains(&name.as_str()) {
            reader.problem(place.span(), format!("unknown {what} {name:?}"), Some(advice(&name, known)));
        }
        names.push(name);
    }
    names
}
