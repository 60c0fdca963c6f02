//! Checks whether the file stores can be used, and whether the addresses in tasks are valid for long enough. Nothing is written.

use std::path::Path;
use std::time::Duration;

use super::{Facts, Finding, Weight};
use crate::catalog::Catalog;
use crate::config::{self, StorePlace};
use crate::stores::Store;

/// A store that takes longer than this counts as not answering.
const PATIENCE: Duration = Duration::from_secs(5);

/// The state of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreState {
    Usable,
    /// A folder that does not exist yet, which `serve` creates.
    Missing,
    Unusable(String),
}

/// Checks each store.
pub(super) async fn states(stores: &[config::Store]) -> Vec<(config::Store, StoreState)> {
    let checks = stores.iter().map(async |store| (store.clone(), state(store).await));
    futures_util::future::join_all(checks).await
}

async fn state(configured: &config::Store) -> StoreState {
    if let StorePlace::Folder(path) = &configured.place {
        return of_folder(path);
    }
    let reached = match Store::open(configured) {
        Ok(store) => {
            tokio::time::timeout(PATIENCE, store.reach()).await.map(|answer| answer.map_err(|error| error.told()))
        }
        Err(error) => return StoreState::Unusable(format!("{error:#}")),
    };
    match reached {
        Ok(Ok(())) => StoreState::Usable,
        Ok(Err(error)) => StoreState::Unusable(error),
        Err(_) => StoreState::Unusable("no answer in time".to_owned()),
    }
}

fn of_folder(path: &Path) -> StoreState {
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => StoreState::Missing,
        Err(error) => StoreState::Unusable(error.to_string()),
        Ok(found) if !found.is_dir() => StoreState::Unusable("it is not a folder".to_owned()),
        Ok(found) if found.permissions().readonly() => StoreState::Unusable("it is read-only".to_owned()),
        Ok(_) => StoreState::Usable,
    }
}

pub(super) fn judge(catalog: &Catalog, facts: &Facts) -> Vec<Finding> {
    let mut findings: Vec<Finding> = facts.stores.iter().map(|(store, state)| found(store, state)).collect();
    findings.extend(facts.stores.iter().flat_map(|(store, _)| short_lived(catalog, store)));
    findings
}

fn found(store: &config::Store, state: &StoreState) -> Finding {
    let (name, place) = (&store.name, place(store));
    match state {
        StoreState::Usable => Finding::new(Weight::Fine, format!("the store {name} of files is at {place}")),
        StoreState::Missing => {
            let text =
                format!("the store {name} of files will be made at {place}: workers must see it under this path");
            Finding::new(Weight::Warning, text)
        }
        StoreState::Unusable(why) => {
            Finding::new(Weight::Problem, format!("the store {name} of files at {place} cannot be used: {why}"))
        }
    }
}

fn place(store: &config::Store) -> String {
    match &store.place {
        StorePlace::Folder(path) => path.display().to_string(),
        StorePlace::Bucket { bucket, prefix } => format!("s3://{bucket}/{prefix}"),
    }
}

/// Addresses that may expire before the task that reads them ends.
fn short_lived(catalog: &Catalog, store: &config::Store) -> Vec<Finding> {
    let StorePlace::Bucket { .. } = store.place else { return Vec::new() };
    let signed = store.presign.as_secs_f64();
    let is_here = |name: &str| name == store.name;
    let entries = catalog.entries().iter().filter(|entry| entry.wants_address());
    let entries = entries.filter(|entry| entry.upload.as_ref().is_some_and(|upload| is_here(&upload.store)));
    let tell = |entry: &std::sync::Arc<crate::catalog::Entry>| {
        let limit = entry.defaults.time_limit.filter(|limit| *limit > signed)?;
        let text = format!(
            "{} may run {limit} s and is given an address that is good for {signed} s (stores.{}.presign): give it the key, or sign for \
             longer",
            entry.name, store.name
        );
        Some(Finding::new(Weight::Warning, text))
    };
    entries.filter_map(tell).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Role};

    #[tokio::test]
    async fn a_folder_is_there_or_will_be_made_or_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let at = |path: &Path| config::Store::folder("default", path.to_owned());
        assert_eq!(state(&at(folder.path())).await, StoreState::Usable);
        assert_eq!(state(&at(&folder.path().join("later"))).await, StoreState::Missing);
        assert_eq!(state(&at(&file)).await, StoreState::Unusable("it is not a folder".to_owned()));
        assert!(!folder.path().join("later").exists(), "a look makes nothing");
    }

    #[test]
    fn an_address_that_ends_before_its_task_is_told() {
        let text = "[stores.default]\nurl = 's3://b'\npresign = '10m'\n[[tasks]]\nname = 'a'\nendpoint = 'POST /a'\n\
                    args = ['{file_url}']\ntime_limit = '1h'\nsoft_time_limit = '50m'\nupload = { field = 'file' }\n";
        let config = Config::parse(Role::Check, text).unwrap();
        let catalog = Catalog::compile(&config).unwrap();
        let found = short_lived(&catalog, &config.stores[0]);
        assert!(found[0].text.contains("3600 s") && found[0].text.contains("600 s"), "{found:?}");
        let keyed = Config::parse(Role::Check, &text.replace("{file_url}", "{file}")).unwrap();
        let catalog = Catalog::compile(&keyed).unwrap();
        assert!(short_lived(&catalog, &keyed.stores[0]).is_empty());
    }
}
