//! The stores of the configuration, as the Rust worker uses them for arguments and results that are too large for a message.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::value::RawValue;

use crate::catalog::Catalog;
use crate::config::{Config, DEFAULT_STORE};
use crate::stores::{Kind, Reference, Store, Stores};
use celery::json::{Fields, elements};
use celery::task::{Json, TaskId, json};
use runtime::clock;
use taskgate_worker::{Registry, Storage};

/// Gives each registered task whose entry says `offload` the default store.
///
/// # Errors
/// When a store cannot be opened.
pub(super) fn register(config: &Config, catalog: &Catalog, registry: &mut Registry) -> anyhow::Result<()> {
    if catalog.names().iter().all(|name| catalog.offload(name).is_none()) {
        return Ok(());
    }
    let stores = Stores::open(&config.stores)?;
    for name in catalog.names() {
        let (limit, store) = (catalog.offload(name), stores.get(DEFAULT_STORE));
        if let (Some(limit), Some(store), Some(options)) = (limit, store, registry.options(name)) {
            options.storage(Arc::new(Offload { stores: stores.clone(), store: store.clone(), limit }));
        }
    }
    Ok(())
}

#[derive(Debug)]
struct Offload {
    stores: Stores,
    /// For results.
    store: Store,
    /// Bytes.
    limit: u64,
}

#[async_trait]
impl Storage for Offload {
    async fn arguments(&self, args: &RawValue, kwargs: &RawValue) -> Result<Option<(Json, Json)>, String> {
        let (Some(positional), Ok(named)) = (elements(args), Fields::parse(kwargs.get())) else { return Ok(None) };
        let values = positional.iter().copied().chain(named.iter().map(|(_, value)| value));
        if !values.into_iter().any(|value| Reference::read(value.get()).is_some()) {
            return Ok(None);
        }
        let (mut items, mut members) = (Vec::new(), Vec::new());
        for value in positional {
            items.push(self.put_back(value).await?);
        }
        for (name, value) in named.iter() {
            members.push(format!("{}: {}", serde_json::Value::from(name), self.put_back(value).await?));
        }
        Ok(Some((
            json::written(format!("[{}]", items.join(", "))),
            json::written(format!("{{{}}}", members.join(", "))),
        )))
    }

    async fn result(&self, id: &TaskId, result: &RawValue) -> Result<Option<Json>, String> {
        let text = result.get();
        if text.len() as u64 <= self.limit {
            return Ok(None);
        }
        let name = format!("{}.json", clock::random_id());
        let kept = self.store.keep(Kind::Result, id.as_str(), &name, text.as_bytes()).await;
        kept.map(|(reference, _)| Some(reference.json())).map_err(|error| error.told())
    }
}

impl Offload {
    async fn put_back(&self, value: &RawValue) -> Result<String, String> {
        let Some(reference) = Reference::read(value.get()) else { return Ok(value.get().to_owned()) };
        let store = self.stores.get(&reference.store);
        let store = store.ok_or_else(|| format!("this worker has no store {}", reference.store))?;
        let bytes = store.read(&reference).await.map_err(|error| error.told())?;
        let text = String::from_utf8(bytes.into()).map_err(|_| format!("{} is not JSON", reference.key))?;
        RawValue::from_string(text)
            .map(|value| value.get().to_owned())
            .map_err(|_| format!("{} is not JSON", reference.key))
    }
}
