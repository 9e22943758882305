//! Frozen scenarios: one run as a scenario file in which nothing is left to draw.
//!
//! What is written reads back as the same plan, so a frozen scenario plays the very run it was made from, for
//! as long as the engine takes the same steps; later it is the test that keeps a defect from coming back. The
//! text is the truth: who shortens a run plays what the text says.

use crate::plan::{self, Fixed, GuestPlan, Plan};
use crate::scenario::verbs::{ORACLES, VERBS};
use crate::scenario::{self, Estate, Expect, Group, Problems, Scenario, Since, Unit, default_estate};
use std::collections::BTreeMap;
use std::fmt::Write;

/// A run with nothing left to draw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frozen {
    /// One line.
    pub title: String,
    /// Why it exists.
    pub why: String,
    /// Words to select by.
    pub tags: Vec<String>,
    /// Lines above everything else: its story.
    pub story: Vec<String>,
    /// The seed: of the simulator, of the dice of its leaves, of the keys.
    pub seed: u64,
    /// Hosts.
    pub estate: Estate,
    /// Groups, to which promises refer.
    pub groups: BTreeMap<String, Group>,
    /// What the guests do.
    pub guests: BTreeMap<String, GuestPlan>,
    /// Steps in order of time, without the end.
    pub steps: Vec<Fixed>,
    /// Length of the safety phase in milliseconds.
    pub length: u64,
    /// What must hold.
    pub expect: Expect,
}

impl Frozen {
    /// Freezes a run.
    pub fn new(scenario: &Scenario, plan: &Plan) -> Frozen {
        Frozen {
            title: scenario.title.clone(),
            why: scenario.why.clone(),
            tags: scenario.tags.clone(),
            story: Vec::new(),
            seed: plan.seed,
            estate: scenario.estate.clone(),
            groups: scenario.groups.clone(),
            guests: plan.guests.clone(),
            steps: plan::steps(plan),
            length: plan.length,
            expect: fixed(&scenario.expect, plan),
        }
    }

    /// Returns the run with another course of time: each moment of its plan is moved to where `moved` says, which never
    /// turns two of them around.
    pub fn retimed(&self, moved: impl Fn(u64) -> u64) -> Frozen {
        let mut other = self.clone();
        for step in &mut other.steps {
            let (from, to) = (moved(step.at), moved(step.at + step.lasts.unwrap_or(0)));
            (step.at, step.lasts) = (from, step.lasts.map(|_| to - from));
        }
        other.length = moved(self.length);
        for promise in &mut other.expect.protected {
            if let (Since::At(at), Some((words, _))) = (&mut promise.since, promise.text.rsplit_once(" of "))
            {
                *at = moved(*at);
                promise.text = format!("{words} of {}", millis(*at as i64).replace('"', ""));
            }
        }
        other
    }

    /// Returns the scenario file.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for line in &self.story {
            text.push_str(format!("# {line}").trim_end());
            text.push('\n');
        }
        let tags: Vec<String> = self.tags.iter().map(|tag| quoted(tag)).collect();
        // A String takes everything.
        let _ = write!(
            text,
            "format = 1\ntitle  = {}\nwhy    = {}\ntags   = [{}]\nseeds  = {{ from = {}, pr = 1, nightly = 1 }}\n",
            quoted(&self.title),
            quoted(&self.why),
            tags.join(", "),
            self.seed
        );
        text.push_str(&estate(&self.estate));
        text.push_str(&groups(&self.groups));
        text.push_str("\n[load]\n");
        let width = self.guests.keys().map(String::len).max().unwrap_or(0);
        for (machine, guest) in &self.guests {
            let _ = writeln!(text, "{machine:<width$} = {{ {} }}", load(guest));
        }
        text.push_str("\n[timeline]\nsteps = [\n");
        for fixed in &self.steps {
            let _ = writeln!(text, "  {{ {} }},", step(fixed));
        }
        let _ = writeln!(text, "  {{ at = {}, end = true }},\n]", millis(self.length as i64));
        text.push_str(&expect(&self.expect));
        text
    }

    /// Reads the text back as a scenario of this name; the error shows where the language cannot say it.
    pub fn scenario(&self, name: &str) -> Result<Scenario, Box<Problems>> {
        scenario::load(&format!("{name}.toml"), name, &self.text())
    }
}

/// Returns what a run must hold: what is seldom is a matter of many seeds, and labels have become times.
fn fixed(expect: &Expect, plan: &Plan) -> Expect {
    let mut expect = Expect { sometimes: Vec::new(), ..expect.clone() };
    for (promise, due) in expect.protected.iter_mut().zip(&plan.due) {
        promise.since = Since::At(due.from);
        promise.text = format!("{} of {}", due.text, millis(due.from as i64).replace('"', ""));
    }
    expect
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn millis(ms: i64) -> String {
    if ms % 1000 == 0 { format!("\"{} s\"", ms / 1000) } else { format!("\"{ms} ms\"") }
}

fn bytes(bytes: i64) -> String {
    match bytes {
        0 => "\"0 B\"".to_owned(),
        _ if bytes % (1 << 20) == 0 => format!("\"{} MiB\"", bytes >> 20),
        _ if bytes % 1024 == 0 => format!("\"{} KiB\"", bytes >> 10),
        _ => format!("\"{bytes} B\""),
    }
}

fn quantity(value: i64, unit: Unit) -> String {
    match unit {
        Unit::Millis => millis(value),
        Unit::Bytes => bytes(value),
        Unit::Ppm => format!("\"{} %\"", value as f64 / 10_000.0),
        Unit::Count => format!("\"{value}\""),
    }
}

fn load(guest: &GuestPlan) -> String {
    let mut parts = vec![format!("model = {}", quoted(&guest.model))];
    parts.push(match guest.writes {
        Some(writes) => format!("writes = {}", bytes(writes as i64)),
        None => format!("rate = \"{} /s\"", guest.rate),
    });
    parts.extend(guest.day.map(|day| {
        let (from, until) = (millis(day.from as i64), millis(day.until as i64));
        let outside = quantity(i64::from(day.outside), Unit::Ppm);
        format!("day = {{ from = {from}, until = {until}, outside = {outside} }}")
    }));
    parts.extend(guest.entropy.map(|share| format!("entropy = {}", quantity(i64::from(share), Unit::Ppm))));
    parts.push(format!("jobs = \"{}\"", guest.jobs));
    parts.push(format!("seed = \"{:x}\"", guest.seed));
    parts.join(", ")
}

fn step(fixed: &Fixed) -> String {
    let mut text = format!("at = {}, {} = {}", millis(fixed.at as i64), fixed.key, quoted(fixed.verb));
    if !fixed.on.is_empty() {
        text.push_str(&format!(", on = {}", quoted(&fixed.on)));
    }
    let verb = VERBS.iter().find(|verb| verb.name == fixed.verb);
    for (name, unit) in verb.into_iter().flat_map(|verb| verb.takes) {
        if let Some(value) = fixed.amounts.get(name) {
            text.push_str(&format!(", {name} = {}", quantity(*value, *unit)));
        }
    }
    if let Some(lasts) = fixed.lasts {
        text.push_str(&format!(", for = {}", millis(lasts as i64)));
    }
    text
}

/// Returns what an estate says that a file would not mean without a word.
fn estate(estate: &Estate) -> String {
    let usual = default_estate();
    let mut lines: Vec<(&str, String)> = Vec::new();
    lines.extend((estate.scale != usual.scale).then(|| ("scale", estate.scale.to_string())));
    if estate.machines != usual.machines {
        let machine = |machine: &scenario::MachineSpec| {
            let disks: Vec<String> = machine.disks.iter().map(|size| bytes(*size as i64)).collect();
            format!("{{ name = {}, disks = [{}] }}", quoted(&machine.name), disks.join(", "))
        };
        let machines: Vec<String> = estate.machines.iter().map(machine).collect();
        lines.push(("machines", format!("[{}]", machines.join(", "))));
    }
    if estate.servers != usual.servers {
        let server = |server: &scenario::ServerSpec| {
            format!("{{ name = {}, site = {} }}", quoted(&server.name), quoted(&server.site))
        };
        let servers: Vec<String> = estate.servers.iter().map(server).collect();
        lines.push(("process-servers", format!("[{}]", servers.join(", "))));
    }
    for (key, own, usual) in [("disk", &estate.disk, &usual.disk), ("link", &estate.link, &usual.link)] {
        lines.extend((own != usual).then(|| (key, quoted(own))));
    }
    lines.extend(estate.bandwidth.map(|rate| ("bandwidth", bytes(rate as i64))));
    lines.extend((estate.store != usual.store).then(|| ("store", quoted(&estate.store))));
    for (key, own, usual) in [
        ("spool-memory", estate.spool_memory, usual.spool_memory),
        ("spill", estate.spill, usual.spill),
        ("stage", estate.stage, usual.stage),
    ] {
        lines.extend((own != usual).then(|| (key, bytes(own as i64))));
    }
    if estate.point_every != usual.point_every {
        lines.push(("points", millis(estate.point_every as i64)));
    }
    lines.extend(estate.keep.map(|keep| ("keep", format!("\"{keep}\""))));
    if lines.is_empty() {
        return String::new();
    }
    let width = lines.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
    let lines: Vec<String> = lines.iter().map(|(key, value)| format!("{key:<width$} = {value}\n")).collect();
    format!("\n[estate]\n{}", lines.concat())
}

fn groups(groups: &BTreeMap<String, Group>) -> String {
    let group = |(name, group): (&String, &Group)| {
        let machines: Vec<String> = group.machines.iter().map(|machine| quoted(machine)).collect();
        let rpo = group.rpo.map(|rpo| format!("rpo      = {}\n", millis(rpo as i64))).unwrap_or_default();
        format!("\n[protect.{name}]\nmachines = [{}]\n{rpo}", machines.join(", "))
    };
    groups.iter().map(group).collect()
}

fn expect(expect: &Expect) -> String {
    let mut text = String::from("\n[expect]\n");
    if !expect.objectives.is_empty() {
        let texts: Vec<String> = expect.objectives.iter().map(|objective| quoted(&objective.text)).collect();
        text.push_str(&format!("objectives = [{}]\n", texts.join(", ")));
    }
    let is_all = ORACLES.iter().all(|oracle| expect.always.iter().any(|name| name == oracle));
    if !is_all {
        let names: Vec<String> = expect.always.iter().map(|name| quoted(name)).collect();
        text.push_str(&format!("always     = [{}]\n", names.join(", ")));
    }
    let bound = millis(expect.converges_within as i64).replace('"', "");
    let mut eventually = vec![quoted(&format!("converges within {bound}"))];
    eventually.extend(expect.protected.iter().map(|promise| quoted(&promise.text)));
    text.push_str(&format!("eventually = [{}]\n", eventually.join(", ")));
    text
}
