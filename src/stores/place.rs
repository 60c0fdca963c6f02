//! The target of a store's URL: a folder of this machine, or a bucket.

use std::path::PathBuf;

use anyhow::Context;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::local::LocalFileSystem;
use object_store::path::Path;

use crate::config::{Store, StorePlace};

#[derive(Debug)]
pub(super) enum Place {
    Folder { root: PathBuf, files: LocalFileSystem },
    Bucket(Box<AmazonS3>),
}

/// The place, and the prefix of keys in it.
pub(super) fn open(configured: &Store) -> anyhow::Result<(Place, Path)> {
    match &configured.place {
        StorePlace::Folder(root) => Ok((folder(configured, root)?, Path::default())),
        StorePlace::Bucket { bucket, prefix } => {
            Ok((Place::Bucket(Box::new(self::bucket(configured, bucket)?)), Path::from(prefix.as_str())))
        }
    }
}

fn folder(configured: &Store, root: &std::path::Path) -> anyhow::Result<Place> {
    let told = || format!("stores.{}.url: the folder {}", configured.name, root.display());
    std::fs::create_dir_all(root).with_context(told)?;
    let root = root.canonicalize().with_context(told)?;
    // A file is on disk before the commit of the task that needs it.
    let files = LocalFileSystem::new_with_prefix(&root).with_context(told)?.with_fsync(true);
    Ok(Place::Folder { root, files })
}

fn bucket(configured: &Store, bucket: &str) -> anyhow::Result<AmazonS3> {
    let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
    if let Some(endpoint) = &configured.endpoint {
        builder = builder.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http://"));
    }
    if let Some(region) = &configured.region {
        builder = builder.with_region(region);
    }
    if let (Some(id), Some(secret)) = (&configured.access_key_id, &configured.secret_access_key) {
        builder = builder.with_access_key_id(id).with_secret_access_key(secret.reveal());
    }
    builder.build().with_context(|| format!("stores.{}", configured.name))
}
