//! Who we are to a cloud store: names and values from the environment, then from a file that only its owner
//! may read. Never from a command line, which every process of the machine can see, and never shown.

use super::StoreOpenError;
use super::url::Cloud;
use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// A file of credentials is written by hand; more than this is something else.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// A name in lower case and its value.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Credential {
    pub(super) name: String,
    pub(super) value: String,
    /// It was written for us: a name that means nothing is a mistake.
    pub(super) is_ours: bool,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=***", self.name)
    }
}

/// Collects the variables that the cloud's own tools use, and the lines of the file after them: of two of
/// the same name the later one wins.
pub(super) fn collect(cloud: Cloud, file: Option<&Path>) -> Result<Vec<Credential>, StoreOpenError> {
    let prefix = match cloud {
        Cloud::S3 => "AWS_",
        Cloud::Azure => "AZURE_",
        Cloud::Google => "GOOGLE_",
    };
    let given = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        let name = name.into_string().ok().filter(|name| name.starts_with(prefix))?;
        let value = value.into_string().ok()?;
        Some(Credential { name: name.to_ascii_lowercase(), value, is_ours: false })
    };
    let mut all: Vec<Credential> = std::env::vars_os().filter_map(given).collect();
    // The order of the environment is nobody's choice.
    all.sort_by(|a, b| a.name.cmp(&b.name));
    if let Some(file) = file {
        all.extend(read(file)?);
    }
    Ok(all)
}

/// Reads lines of `NAME=VALUE`; empty ones and those that begin with `#` are skipped.
fn read(path: &Path) -> Result<Vec<Credential>, StoreOpenError> {
    let wrong = |why: String| StoreOpenError::Credentials { path: path.display().to_string(), why };
    let metadata = std::fs::metadata(path).map_err(|error| wrong(error.to_string()))?;
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(wrong("others may read it; run `chmod 600` on it".to_owned()));
    }
    if metadata.len() > FILE_BYTES_MAX {
        return Err(wrong(format!("it has {} bytes; that is no list of names and values", metadata.len())));
    }
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let mut all = Vec::new();
    for (number, line) in text.lines().enumerate().map(|(at, line)| (at + 1, line.trim())) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        // A wrong line may be a secret: only its number is said.
        let (name, value) =
            line.split_once('=').ok_or_else(|| wrong(format!("line {number} is not NAME=VALUE")))?;
        let value = value.trim();
        let bare = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
        let name = name.trim().to_ascii_lowercase();
        all.push(Credential { name, value: bare.to_owned(), is_ours: true });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(mode: u32, text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("credentials");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        (directory, path)
    }

    #[test]
    fn a_file_gives_names_and_values_and_shows_none() {
        let (_directory, path) =
            file(0o600, "# ours\nAWS_ACCESS_KEY_ID = id\n\nAWS_SECRET_ACCESS_KEY=\"hu=sh\"\n");
        let read = read(&path).unwrap();
        let expected = [("aws_access_key_id", "id"), ("aws_secret_access_key", "hu=sh")];
        let found = read.iter().map(|one| (one.name.as_str(), one.value.as_str()));
        assert_eq!(found.collect::<Vec<_>>(), expected);
        assert_eq!(format!("{read:?}"), "[aws_access_key_id=***, aws_secret_access_key=***]");
    }

    #[test]
    fn a_wrong_file_is_refused_without_its_content() {
        for (mode, text, part) in
            [(0o640, "a=b", "others may read it"), (0o600, "a=b\nhush\n", "line 2 is not NAME=VALUE")]
        {
            let (_directory, path) = file(mode, text);
            let error = read(&path).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("credentials"), "{error}");
            assert!(!error.contains("hush"), "{error}");
        }
        assert!(read(Path::new("/nonexistent")).unwrap_err().to_string().contains("No such file"));
    }
}
