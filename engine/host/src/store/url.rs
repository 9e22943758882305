//! Where a vault's store is: a directory, or a bucket of a cloud, written as one text.
//!
//! What is *not* here: credentials. A URL is shown and logged, so one that holds any is refused.

use std::fmt;
use std::path::{Path, PathBuf};

/// Kinds of cloud stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cloud {
    /// Amazon S3, or a server that speaks its protocol.
    S3,
    /// Azure Blob Storage.
    Azure,
    /// Google Cloud Storage.
    Google,
}

impl Cloud {
    /// Returns the scheme of its URLs.
    pub fn scheme(self) -> &'static str {
        match self {
            Cloud::S3 => "s3",
            Cloud::Azure => "az",
            Cloud::Google => "gs",
        }
    }

    /// Returns what the cloud calls the thing that holds objects.
    pub(super) fn holder(self) -> &'static str {
        if self == Cloud::Azure { "container" } else { "bucket" }
    }
}

/// Place of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUrl {
    /// A directory of this machine.
    Directory(PathBuf),
    /// A part of a bucket.
    Bucket {
        /// Whose.
        cloud: Cloud,
        /// Bucket or container.
        bucket: String,
        /// First parts of every object's name, without slashes at the ends; empty for none.
        prefix: String,
    },
}

/// Why a text is no place of a store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// The text is empty.
    #[error("the place of the vault is empty; write a directory, or s3://BUCKET/PREFIX")]
    Empty,
    /// No store has this scheme.
    #[error("{0:?} is no kind of store; known are file, s3, az and gs, such as s3://BUCKET/PREFIX")]
    Scheme(String),
    /// The part after the scheme is wrong.
    #[error("{url:?} is no place of a store: {why}")]
    Form {
        /// The text, without what may be secret.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl StoreUrl {
    /// Reads a directory's path, `file://PATH`, or `s3://`, `az://` or `gs://BUCKET[/PREFIX]`.
    pub fn parse(text: &str) -> Result<StoreUrl, UrlError> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return if text.is_empty() { Err(UrlError::Empty) } else { Ok(StoreUrl::Directory(text.into())) };
        };
        let wrong = |why| {
            // What stands before an @ or after a ? may be a secret.
            let shown = rest.rsplit('@').next().unwrap_or_default();
            let shown = shown.split('?').next().unwrap_or_default();
            Err(UrlError::Form { url: format!("{scheme}://{shown}"), why })
        };
        let cloud = match scheme {
            "s3" => Cloud::S3,
            "az" => Cloud::Azure,
            "gs" => Cloud::Google,
            "file" if rest.starts_with('/') => return Ok(StoreUrl::Directory(rest.into())),
            "file" => return wrong("write an absolute path, such as file:///srv/vault"),
            unknown => return Err(UrlError::Scheme(unknown.to_owned())),
        };
        if rest.contains(['@', '?', '#']) {
            return wrong("credentials and options do not belong in it; use the environment or a file");
        }
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_matches('/');
        let legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if bucket.is_empty() || !bucket.chars().all(legal) {
            return wrong("a bucket or container has letters, digits, dots, dashes and underscores");
        }
        let is_part = |part: &str| !["", ".", ".."].contains(&part) && part.chars().all(legal);
        if !prefix.is_empty() && !prefix.split('/').all(is_part) {
            return wrong("a prefix has parts of letters, digits, dots, dashes and underscores");
        }
        Ok(StoreUrl::Bucket { cloud, bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }

    /// Returns the directory, if it is one.
    pub fn directory(&self) -> Option<&Path> {
        match self {
            StoreUrl::Directory(path) => Some(path),
            StoreUrl::Bucket { .. } => None,
        }
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreUrl::Directory(path) => write!(f, "{}", path.display()),
            StoreUrl::Bucket { cloud, bucket, prefix } if prefix.is_empty() => {
                write!(f, "{}://{bucket}", cloud.scheme())
            }
            StoreUrl::Bucket { cloud, bucket, prefix } => write!(f, "{}://{bucket}/{prefix}", cloud.scheme()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_and_written_back() {
        for (text, shown) in [
            ("vault", "vault"),
            ("/srv/a b/vault", "/srv/a b/vault"),
            ("file:///srv/vault", "/srv/vault"),
            ("s3://bucket", "s3://bucket"),
            ("s3://bucket/", "s3://bucket"),
            ("az://container/dr/site-1/", "az://container/dr/site-1"),
            ("gs://a.b_c/x", "gs://a.b_c/x"),
        ] {
            let url = StoreUrl::parse(text).unwrap();
            assert_eq!(url.to_string(), shown);
            assert_eq!(StoreUrl::parse(shown).unwrap(), url);
        }
    }

    #[test]
    fn a_wrong_place_is_refused_in_clear_words_and_without_secrets() {
        for (text, part) in [
            ("", "is empty"),
            ("http://host/x", "known are file, s3, az and gs"),
            ("s4://bucket", "\"s4\" is no kind of store"),
            ("s3://", "a bucket or container has"),
            ("s3://b c/x", "a bucket or container has"),
            ("s3://b/x/../y", "a prefix has"),
            ("s3://b/x//y", "a prefix has"),
            ("file://relative", "absolute path"),
            ("s3://id:hush@bucket/x", "do not belong"),
            ("az://container?sig=hush", "do not belong"),
        ] {
            let error = StoreUrl::parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
            assert!(!error.contains("hush"), "{error}");
        }
    }
}
