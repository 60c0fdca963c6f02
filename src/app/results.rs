//! The result backend that the configuration names, and the API that shows what AMQP does not.

use std::sync::Arc;

use anyhow::Context;

use super::{amqp_link, link, tell_ignored};
use crate::config::{self, Config};
use crate::live::management::Management;
use crate::live::stored::DatabaseResults;
use broker::amqp::RpcResults;
use broker::backend::{Backend, BackendConfig, ResultBackend};
use ledger::stored::StoredResults;

/// What the ledger keeps of a result.
const MOST_BYTES: usize = 64 << 20;

/// The result backend that the configuration names. Connects to nothing yet.
///
/// # Errors
/// When its URL is not understood, or a file of certificates cannot be read.
pub fn open_backend(config: &Config) -> anyhow::Result<ResultBackend> {
    tell_ignored("backend.url", &config.backend.redis.ignored);
    if let Some(results) = &config.backend.results {
        let table = StoredResults::open(results.url.reveal(), &results.table, MOST_BYTES)
            .with_context(|| config.said.place("backend.url"))?;
        return Ok(Arc::new(DatabaseResults::new(table, results.poll)));
    }
    match config.backend.reply_queue() {
        Some(queue) => Ok(Arc::new(RpcResults::new(amqp_link(config)?, queue))),
        None => Ok(Arc::new(open_records(config)?)),
    }
}

/// Celery counts the parts of a chord in key-value stores only.
pub(super) fn uncounted(backend: &config::Backend) -> Option<&'static str> {
    match (&backend.results, backend.reply_queue()) {
        (Some(_), _) => Some("a database"),
        (None, Some(_)) => Some("rpc://"),
        (None, None) => None,
    }
}

/// RabbitMQ's management API, where it is named. Connects to nothing yet.
pub(super) fn open_management(config: &Config) -> anyhow::Result<Option<Management>> {
    let Some(url) = &config.broker.management_url else { return Ok(None) };
    let link = amqp_link(config)?;
    let broker = link.addresses.first().context("a broker's URL names a node")?;
    let management = Management::new(url.reveal(), (&broker.user, &broker.password), &broker.vhost);
    management.map(Some).with_context(|| config.said.place("broker.management_url"))
}

/// Redis as the result backend.
pub(super) fn open_records(config: &Config) -> anyhow::Result<Backend> {
    let redis = &config.backend.redis;
    Ok(Backend::new(BackendConfig { link: link(redis)?, key_prefix: redis.key_prefix.clone() })?)
}
