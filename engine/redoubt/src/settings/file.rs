//! The settings file: TOML, every key known, every mistake found in one pass.
//!
//! - CF-1 A file with any mistake yields no settings at all.
//!
//! What is *not* here: defaults and options of the command line (`settings`).

use super::diagnostics::{Mistake, suggest};
use super::keep::ladder;
use crate::cli::{DiskArg, machine, rate, store_url, volume_name};
use crate::units::{duration, size};
use redoubt_core::maintenance::Ladder;
use redoubt_host::StoreUrl;
use redoubt_ports::Endpoint;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

const KEYS: [&str; 15] = [
    "state",
    "vault",
    "vault-endpoint",
    "vault-credentials",
    "vault-rate-max",
    "key",
    "listen",
    "process-servers",
    "machines",
    "point-interval",
    "memory-max",
    "spill-max",
    "stage-max",
    "keep",
    "disk",
];
const DISK_KEYS: [&str; 2] = ["name", "path"];

/// What a settings file says; `None` and empty mean it says nothing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct FileSettings {
    pub(crate) state: Option<PathBuf>,
    pub(crate) vault: Option<StoreUrl>,
    pub(crate) vault_endpoint: Option<String>,
    pub(crate) vault_credentials: Option<PathBuf>,
    pub(crate) vault_rate_max: Option<u64>,
    pub(crate) key: Option<PathBuf>,
    pub(crate) listen: Vec<Endpoint>,
    pub(crate) process_servers: Vec<Endpoint>,
    pub(crate) machines: Vec<u128>,
    pub(crate) point_interval: Option<Duration>,
    pub(crate) memory_max: Option<u64>,
    pub(crate) spill_max: Option<u64>,
    pub(crate) stage_max: Option<u64>,
    pub(crate) keep: Option<Ladder>,
    pub(crate) disks: Vec<DiskArg>,
}

struct Reader {
    mistakes: Vec<Mistake>,
}

/// Reads a file's text; on any mistake returns all of them.
pub(crate) fn parse(source: &str) -> Result<FileSettings, Vec<Mistake>> {
    let (table, errors) = DeTable::parse_recoverable(source);
    let syntax = |error: toml::de::Error| Mistake {
        title: "this is not TOML".to_owned(),
        span: error.span().unwrap_or(0..0),
        label: error.message().to_owned(),
        help: None,
    };
    let mut reader = Reader { mistakes: errors.into_iter().map(syntax).collect() };
    let settings = reader.root(table.get_ref());
    if reader.mistakes.is_empty() { Ok(settings) } else { Err(reader.mistakes) }
}

impl Reader {
    fn mistake(&mut self, title: &str, span: Range<usize>, label: impl Into<String>) {
        self.mistakes.push(Mistake { title: title.to_owned(), span, label: label.into(), help: None });
    }

    fn root(&mut self, table: &DeTable<'_>) -> FileSettings {
        let mut settings = FileSettings::default();
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "state" => settings.state = self.path(value),
                "vault" => settings.vault = self.text(value, store_url),
                "vault-endpoint" => {
                    settings.vault_endpoint = self.text(value, |text| Ok(text.to_owned()));
                }
                "vault-credentials" => settings.vault_credentials = self.path(value),
                "vault-rate-max" => settings.vault_rate_max = self.text(value, rate),
                "key" => settings.key = self.path(value),
                "listen" => settings.listen = self.list(value, endpoint),
                "process-servers" => settings.process_servers = self.list(value, endpoint),
                "machines" => settings.machines = self.list(value, machine),
                "point-interval" => settings.point_interval = self.text(value, duration),
                "memory-max" => settings.memory_max = self.text(value, size),
                "spill-max" => settings.spill_max = self.text(value, size),
                "stage-max" => settings.stage_max = self.text(value, size),
                "keep" => settings.keep = self.text(value, ladder),
                "disk" => settings.disks = self.disks(value),
                unknown => self.unknown(unknown, key.span(), &KEYS),
            }
        }
        settings
    }

    fn unknown(&mut self, key: &str, span: Range<usize>, known: &[&str]) {
        let help = match suggest(key, known) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("known here: {}", known.join(", ")),
        };
        self.mistakes.push(Mistake {
            title: format!("unknown setting `{key}`"),
            span,
            label: "no setting has this name".to_owned(),
            help: Some(help),
        });
    }

    fn text<T>(&mut self, value: &Spanned<DeValue<'_>>, read: fn(&str) -> Result<T, String>) -> Option<T> {
        let Some(text) = value.get_ref().as_str() else {
            let found = value.get_ref().type_str();
            self.mistake("wrong type", value.span(), format!("expected a text in quotes, found {found}"));
            return None;
        };
        match read(text) {
            Ok(read) => Some(read),
            Err(why) => {
                self.mistake("wrong value", value.span(), why);
                None
            }
        }
    }

    fn path(&mut self, value: &Spanned<DeValue<'_>>) -> Option<PathBuf> {
        self.text(value, |text| {
            if text.is_empty() { Err("the path is empty".to_owned()) } else { Ok(PathBuf::from(text)) }
        })
    }

    /// One text, or a list of them.
    fn list<T>(&mut self, value: &Spanned<DeValue<'_>>, read: fn(&str) -> Result<T, String>) -> Vec<T> {
        match value.get_ref().as_array() {
            Some(items) => items.iter().filter_map(|item| self.text(item, read)).collect(),
            None => self.text(value, read).into_iter().collect(),
        }
    }

    fn disks(&mut self, value: &Spanned<DeValue<'_>>) -> Vec<DiskArg> {
        let Some(items) = value.get_ref().as_array() else {
            let found = value.get_ref().type_str();
            self.mistake("wrong type", value.span(), format!("expected `[[disk]]` tables, found {found}"));
            return Vec::new();
        };
        let mut disks: Vec<DiskArg> = Vec::new();
        for item in items {
            if let Some(disk) = self.disk(item) {
                if disks.iter().any(|other| other.name == disk.name) {
                    self.mistake("two disks of one name", item.span(), format!("`{}` is taken", disk.name));
                }
                disks.push(disk);
            }
        }
        disks
    }

    fn disk(&mut self, item: &Spanned<DeValue<'_>>) -> Option<DiskArg> {
        let Some(table) = item.get_ref().as_table() else {
            self.mistake("wrong type", item.span(), "expected a table with `name` and `path`");
            return None;
        };
        let (mut name, mut path) = (None, None);
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "name" => name = Some(self.text(value, volume_name)),
                "path" => path = Some(self.path(value)),
                unknown => self.unknown(unknown, key.span(), &DISK_KEYS),
            }
        }
        for (known, is_there) in [("name", name.is_some()), ("path", path.is_some())] {
            if !is_there {
                self.mistake("incomplete disk", item.span(), format!("`{known}` is missing"));
            }
        }
        Some(DiskArg { name: name??, path: path??.to_str()?.to_owned() })
    }
}

fn endpoint(text: &str) -> Result<Endpoint, String> {
    text.parse().map_err(|error: redoubt_ports::net::EndpointError| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::diagnostics::render;
    use super::*;
    use std::path::Path;

    #[test]
    fn a_whole_file_is_understood() {
        let settings = parse(
            "state = \"s\"\nlisten = \"unix:/a\"\npoint-interval = \"5s\"\nspill-max = \"1 GiB\"\n\
             [[disk]]\nname = \"erp\"\npath = \"/dev/sdb\"\n",
        )
        .unwrap();
        assert_eq!(settings.point_interval, Some(Duration::from_secs(5)));
        assert_eq!(settings.spill_max, Some(1 << 30));
        assert_eq!(settings.disks, [DiskArg { name: "erp".into(), path: "/dev/sdb".into() }]);
        assert_eq!(parse("").unwrap(), FileSettings::default());
    }

    #[test]
    fn all_mistakes_are_shown_at_once_where_they_are() {
        let source = "vualt = \"v\"\npoint-interval = \"15\"\nlisten = [\"unix:/a\", \"http://x\"]\nstate = 7\n\n\
                      [[disk]]\nname = \"a b\"\npaht = \"x\"\n";
        let mistakes = parse(source).unwrap_err();
        insta::assert_snapshot!(render(Path::new("redoubt.toml"), source, mistakes));
    }

    #[test]
    fn broken_syntax_is_shown_with_its_place() {
        let source = "state = \"s\nvault = \"v\"\n";
        let mistakes = parse(source).unwrap_err();
        insta::assert_snapshot!(render(Path::new("redoubt.toml"), source, mistakes));
    }
}
