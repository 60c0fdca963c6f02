//! Finds the events that match webhooks, one page of the feed at a time.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;

use super::payload;
use crate::catalog::{Catalog, Pattern};
use crate::config;
use celery::task::webhook::{Webhook, matches, target};
use ledger::{CATALOG_ENDPOINT, Endpoint, Error, Event, Filter, NewDelivery, SUBMISSIONS_ENDPOINT, SharedLedger, Task};
use runtime::clock::{self, Time};

/// Events read in one pass, which bounds its transaction.
const PAGE: i64 = 1_000;
/// A page large enough for all endpoints that a ledger may have.
const ALL: i64 = 10_000;

/// The outcome of a pass.
#[derive(Debug, Clone, Copy)]
pub struct Noticed {
    pub written: usize,
    /// Whether there may be more.
    pub more: bool,
}

const NOTHING: Noticed = Noticed { written: 0, more: false };

/// Turns one page of events into deliveries. If another replica was faster, it writes nothing.
pub async fn run_once(ledger: &SharedLedger, catalog: &Catalog, config: &config::Webhooks) -> Result<Noticed, Error> {
    let from = ledger.noticed().await?;
    // Read the end of the feed before the webhooks, so that every webhook for an event that is visible now is seen below.
    let end = ledger.feed_end().await?;
    if end <= from {
        return Ok(NOTHING);
    }
    let endpoints = ledger.endpoints(None, ALL).await?;
    let wanted = Wanted::new(&endpoints, catalog);
    if wanted.is_nobody() && !ledger.has_wishes().await? {
        ledger.notice(from, end, &[]).await?;
        return Ok(NOTHING);
    }
    let (events, to) = ledger.feed(from, &Filter::default(), PAGE).await?;
    if to <= from {
        return Ok(NOTHING);
    }
    let deliveries = deliveries(ledger, &wanted, &events, config).await?;
    ledger.notice(from, to, &deliveries).await?;
    Ok(Noticed { written: deliveries.len(), more: true })
}

/// All webhooks except those of submissions.
struct Wanted<'a> {
    registered: Vec<(&'a Endpoint, Vec<Pattern>)>,
    catalog: &'a Catalog,
    heeds_catalog: bool,
    heeds_submissions: bool,
}

impl<'a> Wanted<'a> {
    fn new(endpoints: &'a [Endpoint], catalog: &'a Catalog) -> Self {
        let enabled = |id: &str| endpoints.iter().any(|endpoint| endpoint.id == id && endpoint.enabled);
        let patterns = |endpoint: &Endpoint| endpoint.document.tasks.iter().map(Pattern::new).collect();
        let registered = endpoints.iter().filter(|endpoint| endpoint.enabled && !endpoint.is_built_in());
        Self {
            registered: registered.map(|endpoint| (endpoint, patterns(endpoint))).collect(),
            heeds_catalog: enabled(CATALOG_ENDPOINT)
                && catalog.entries().iter().any(|entry| !entry.defaults.webhooks.is_empty()),
            heeds_submissions: enabled(SUBMISSIONS_ENDPOINT),
            catalog,
        }
    }

    fn is_nobody(&self) -> bool {
        self.registered.is_empty() && !self.heeds_catalog
    }

    /// The receivers of an event: endpoint and URL, each pair once. `own` are the webhooks of the task's submission.
    fn hearers(&self, event: &Event, own: &[Webhook]) -> Vec<(&str, String)> {
        let is_meant = |on: &[String]| matches(on, event.phase, &event.status);
        let name = event.name.as_deref();
        let mut hearers: Vec<(&str, String)> = Vec::new();
        for (endpoint, patterns) in &self.registered {
            let is_named =
                patterns.is_empty() || name.is_some_and(|name| patterns.iter().any(|pattern| pattern.matches(name)));
            if is_named && is_meant(&endpoint.document.on) {
                hearers.extend(endpoint.document.url.clone().map(|url| (endpoint.id.as_str(), url)));
            }
        }
        if self.heeds_catalog
            && let Some(entry) = name.and_then(|name| self.catalog.entry(name))
        {
            let hooks = entry.defaults.webhooks.iter().filter(|declared| is_meant(&declared.hook.on));
            hearers.extend(hooks.map(|declared| (CATALOG_ENDPOINT, declared.hook.url.clone())));
        }
        if self.heeds_submissions {
            hearers.extend(
                own.iter().filter(|hook| is_meant(&hook.on)).map(|hook| (SUBMISSIONS_ENDPOINT, hook.url.clone())),
            );
        }
        let mut seen = HashSet::new();
        hearers.retain(|hearer| seen.insert(hearer.clone()));
        hearers
    }
}

async fn deliveries(
    ledger: &SharedLedger,
    wanted: &Wanted<'_>,
    events: &[Event],
    config: &config::Webhooks,
) -> Result<Vec<NewDelivery>, Error> {
    let wishes = wishes(ledger, events).await?;
    let none = Vec::new();
    let heard: Vec<(&Event, Vec<(&str, String)>)> = events
        .iter()
        .map(|event| (event, wanted.hearers(event, wishes.get(&event.task_no).unwrap_or(&none))))
        .filter(|(_, hearers)| !hearers.is_empty())
        .collect();
    let mut numbers: Vec<i64> = heard.iter().map(|(event, _)| event.task_no).collect();
    numbers.dedup();
    let tasks: HashMap<i64, Task> =
        if numbers.is_empty() { HashMap::new() } else { by_number(ledger.subjects(&numbers).await?) };
    let now = clock::now();
    let mut deliveries = Vec::new();
    for (event, hearers) in heard {
        // The task was pruned meanwhile, so there is nothing left to send.
        let Some(task) = tasks.get(&event.task_no) else { continue };
        let payload = payload::text(event, task, wanted.catalog);
        deliveries
            .extend(hearers.into_iter().map(|(endpoint, url)| delivery(event, endpoint, url, &payload, now, config)));
    }
    Ok(deliveries)
}

fn by_number(tasks: Vec<Task>) -> HashMap<i64, Task> {
    tasks.into_iter().map(|task| (task.no, task)).collect()
}

/// The webhooks of the submissions of these events' tasks.
async fn wishes(ledger: &SharedLedger, events: &[Event]) -> Result<HashMap<i64, Vec<Webhook>>, Error> {
    let mut ids: Vec<_> = events.iter().map(|event| event.task_id.clone()).collect();
    ids.sort_unstable();
    ids.dedup();
    let tasks = ledger.standing(&ids).await?;
    let wish = |task: Task| {
        let hooks = Vec::<Webhook>::deserialize(task.options.webhooks?).ok()?;
        Some((task.no, hooks))
    };
    Ok(tasks.into_iter().filter_map(wish).collect())
}

fn delivery(
    event: &Event,
    endpoint: &str,
    url: String,
    payload: &str,
    now: Time,
    config: &config::Webhooks,
) -> NewDelivery {
    // The same event and receiver always give the same id.
    let name = format!("{endpoint} {url} {} {}", event.task_id, event.seq);
    NewDelivery {
        id: format!("msg_{}", uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, name.as_bytes()).simple()),
        endpoint_id: endpoint.to_owned(),
        task_no: event.task_no,
        task_id: event.task_id.to_string(),
        task_name: event.name.clone(),
        seq: event.seq,
        kind: payload::kind(event),
        target: target(&url),
        url,
        payload: payload.to_owned(),
        created_at: now,
        give_up_at: now.plus(config.retry_for),
    }
}
