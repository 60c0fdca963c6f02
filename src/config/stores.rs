//! `[stores.NAME]`: where the files of requests are kept.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::value::{Secret, Span, Text};
use super::{Error, Said};

/// The longest validity of an S3 signature.
const LONGEST_PRESIGN: Duration = Duration::from_hours(7 * 24);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawStore {
    /// `file:///var/lib/taskgate/files`, which the workers see under the same path (`file:files` is relative to the folder that taskgate
    /// was started in), or `s3://bucket/prefix`. A store belongs to one ledger.
    url: Text,
    /// The endpoint of an S3-compatible service. Default Amazon's.
    #[serde(default)]
    endpoint: Option<Text>,
    /// The region of the bucket. Default `AWS_REGION`, else us-east-1.
    #[serde(default)]
    region: Option<Text>,
    /// The id of the access key. Default from the environment (`AWS_ACCESS_KEY_ID`, or a role of the machine).
    #[serde(default)]
    access_key_id: Option<Text>,
    /// The secret of `access_key_id`.
    #[serde(default)]
    secret_access_key: Option<Text>,
    /// How long an address that a task gets is valid, at most 7 days. Default 1 hour.
    #[serde(default)]
    presign: Option<Span>,
    /// A file that no task uses is removed after this time. Default 1 hour.
    #[serde(default)]
    orphan_after: Option<Span>,
    /// Pause between two searches for unused files. Default 10 minutes.
    #[serde(default)]
    sweep: Option<Span>,
}

/// A store of files.
#[derive(Debug, Clone)]
pub struct Store {
    pub name: String,
    pub place: StorePlace,
    pub endpoint: Option<String>,
    pub region: Option<String>,
    pub access_key_id: Option<String>,
    pub secret_access_key: Option<Secret>,
    pub presign: Duration,
    pub orphan_after: Duration,
    pub sweep: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StorePlace {
    Folder(PathBuf),
    Bucket { bucket: String, prefix: String },
}

/// The store of an entry that names none.
pub const DEFAULT: &str = "default";

impl Store {
    /// A folder with the default times.
    pub fn folder(name: &str, path: PathBuf) -> Self {
        Self {
            name: name.to_owned(),
            place: StorePlace::Folder(path),
            endpoint: None,
            region: None,
            access_key_id: None,
            secret_access_key: None,
            presign: Duration::from_hours(1),
            orphan_after: Duration::from_hours(1),
            sweep: Duration::from_mins(10),
        }
    }
}

pub(super) fn read(raw: BTreeMap<String, RawStore>, said: &Said) -> Result<Vec<Store>, Error> {
    raw.into_iter().map(|(name, raw)| store(name, raw, said)).collect()
}

fn store(name: String, raw: RawStore, said: &Said) -> Result<Store, Error> {
    let place = |key: &str| said.place(&format!("stores.{name}.{key}"));
    if raw.access_key_id.is_some() != raw.secret_access_key.is_some() {
        let harm = "either is of no use without the other";
        return Err(Error::pair(place("access_key_id"), place("secret_access_key"), harm));
    }
    let span = |key: &str, given: Option<Span>, usual: Duration| match given {
        Some(span) if span.0.is_zero() => Err(Error::value(place(key), "must be longer than nothing")),
        given => Ok(given.map_or(usual, |span| span.0)),
    };
    let usual = Store::folder(&name, PathBuf::new());
    let presign = span("presign", raw.presign, usual.presign)?;
    if presign > LONGEST_PRESIGN {
        return Err(Error::value(place("presign"), "must be at most 7 days: S3 takes no longer signature"));
    }
    Ok(Store {
        place: location(&raw.url.0).map_err(|message| Error::value(place("url"), message))?,
        endpoint: raw.endpoint.map(|text| text.0),
        region: raw.region.map(|text| text.0),
        access_key_id: raw.access_key_id.map(|text| text.0),
        secret_access_key: raw.secret_access_key.map(|text| Secret::new(text.0)),
        presign,
        orphan_after: span("orphan_after", raw.orphan_after, usual.orphan_after)?,
        sweep: span("sweep", raw.sweep, usual.sweep)?,
        name,
    })
}

fn location(url: &str) -> Result<StorePlace, String> {
    if let Some(rest) = url.strip_prefix("file:") {
        return match rest.strip_prefix("//") {
            Some(path) if path.starts_with('/') => Ok(StorePlace::Folder(path.into())),
            None if !rest.is_empty() => Ok(StorePlace::Folder(rest.into())),
            Some(_) | None => Err("names a host or nothing: write file:///var/lib/taskgate/files".to_owned()),
        };
    }
    let Some(rest) = url.strip_prefix("s3://") else {
        return Err(format!("{url:?} is neither file:///path nor s3://bucket/prefix"));
    };
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        return Err("names no bucket: write s3://bucket/prefix".to_owned());
    }
    Ok(StorePlace::Bucket { bucket: bucket.to_owned(), prefix: prefix.trim_matches('/').to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Role};

    #[test]
    fn a_store_is_a_folder_or_a_bucket() {
        let folder = |path: &str| Ok(StorePlace::Folder(path.into()));
        assert_eq!(location("file:///a/b"), folder("/a/b"));
        assert_eq!(location("file:taskgate-data/files"), folder("taskgate-data/files"));
        let bucket = |bucket: &str, prefix: &str| StorePlace::Bucket { bucket: bucket.into(), prefix: prefix.into() };
        assert_eq!(location("s3://b/some/where/"), Ok(bucket("b", "some/where")));
        assert_eq!(location("s3://b"), Ok(bucket("b", "")));
        for url in ["file://a/b", "file:", "s3://", "/a/b", "http://b"] {
            assert!(location(url).is_err(), "{url}");
        }
    }

    #[test]
    fn what_cannot_be_meant_stops_the_start() {
        for (text, named) in [
            ("url = 'ftp://x'", "stores.default.url"),
            ("url = 's3://b'\naccess_key_id = 'a'", "stores.default.secret_access_key"),
            ("url = 's3://b'\npresign = '8d'", "stores.default.presign"),
            ("url = 's3://b'\nsweep = 0", "stores.default.sweep"),
        ] {
            let error = Config::parse(Role::Check, &format!("[stores.default]\n{text}\n")).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
