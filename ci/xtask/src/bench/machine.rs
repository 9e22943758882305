//! The machine as a shape: what explains a figure, and nothing that names a host.

use std::path::Path;
use std::process::Command;

/// Processor features that decide how fast the pipeline's parts are.
const FEATURES: [&str; 5] = ["aes", "avx2", "avx512f", "vaes", "sha_ni"];

/// Returns the shape in one line, for scratch files under `place`.
pub(crate) fn shape(place: &Path) -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = info.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    let has = |feature: &&&str| flags.split_whitespace().any(|flag| flag == **feature);
    let features: Vec<&str> = FEATURES.iter().filter(has).copied().collect();
    let virtual_machine = if flags.contains("hypervisor") { " virtual" } else { "" };
    format!(
        "{cores}{virtual_machine} {} cores ({}), {} GiB, {}, Linux {}",
        std::env::consts::ARCH,
        features.join(" "),
        memory_gib(),
        file_system(place),
        kernel()
    )
}

/// Returns the load average of the last minute: a busy machine explains a strange figure.
pub(crate) fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(f64::NAN)
}

fn memory_gib() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = text.lines().next().and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    (kib.unwrap_or_default() + (1 << 19)) >> 20
}

fn file_system(place: &Path) -> String {
    let mut command = Command::new("stat");
    command.args(["--file-system", "--format=%T"]).arg(place);
    let told = command.output().map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    match told.unwrap_or_default().as_str() {
        "ext2/ext3" => "ext4".to_owned(),
        other => other.to_owned(),
    }
}

/// Major and minor version: more would name a build.
fn kernel() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    text.trim().splitn(3, '.').take(2).collect::<Vec<_>>().join(".")
}
