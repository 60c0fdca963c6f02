//! Options of an entry that apply to all its tasks: webhooks, labels, the unique key, limits by key and the fair share.

use std::fmt;

use serde_json::Value;

use super::template::Template;
use celery::task::invalid::Problems;
use celery::task::limit::{Fair, KeyLimit, OnLimit, fair, key_limits};
use celery::task::reader;
use celery::task::submission::{OnConflict, Unique, UniqueWhile, list, member, unique, words};
use celery::task::webhook::{self, Webhook};

/// A webhook of an entry.
#[derive(Clone, PartialEq, Eq)]
pub struct CatalogHook {
    pub hook: Webhook,
    /// `whsec_…`; without it the ledger's secret for the catalog is used.
    pub secret: Option<String>,
}

impl fmt::Debug for CatalogHook {
    /// Does not print the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CatalogHook").field("hook", &self.hook).finish_non_exhaustive()
    }
}

/// `limits = [{ key = "site:{category}", max = 2, rate = "1/m" }]`.
#[derive(Debug, Clone)]
pub(super) struct LimitTemplate {
    pub key: Template,
    limit: KeyLimit,
}

impl LimitTemplate {
    pub fn with(&self, key: String) -> KeyLimit {
        KeyLimit { key, ..self.limit.clone() }
    }
}

/// `fair = { key = "{tenant}", weight = 2 }`.
#[derive(Debug, Clone)]
pub(super) struct FairTemplate {
    pub key: Template,
    weight: u32,
}

impl FairTemplate {
    pub fn with(&self, key: String) -> Fair {
        Fair { key, weight: self.weight }
    }
}

/// `unique = { key = "document:{upload_id}", on_conflict = "replace" }`.
#[derive(Debug, Clone)]
pub(super) struct UniqueTemplate {
    pub key: Template,
    until: UniqueWhile,
    on_conflict: OnConflict,
}

impl UniqueTemplate {
    pub fn with_key(&self, key: String) -> Unique {
        Unique { key, until: self.until, on_conflict: self.on_conflict }
    }
}

/// # Errors
/// As [`hooks`].
pub(super) fn unique_template(value: &Value) -> Result<UniqueTemplate, String> {
    let Unique { key, until, on_conflict } = read(value, unique)?;
    let key = Template::parse(&Value::String(key)).map_err(|error| error.to_string())?;
    Ok(UniqueTemplate { key, until, on_conflict })
}

/// # Errors
/// As [`hooks`].
pub(super) fn labels(value: &Value) -> Result<Vec<(String, Template)>, String> {
    let labels = read(value, reader::labels)?;
    let template = |(name, text): (String, String)| {
        let template = Template::parse(&Value::String(text)).map_err(|error| format!("/{name} {error}"))?;
        Ok((name, template))
    };
    labels.into_iter().map(template).collect()
}

/// # Errors
/// The first mistake.
pub(super) fn hooks(value: &Value) -> Result<Vec<CatalogHook>, String> {
    read(value, |problems, value| {
        list(problems, value, 16, |problems, value| {
            let fields = problems.object(value)?;
            problems.refuse_unknown(&fields, &["url", "on", "secret"]);
            if fields.get("url").is_none() {
                problems.add_at("url", "is required");
            }
            let url = member(problems, &fields, "url", |problems, value| problems.parsed(value, webhook::check_url));
            let on = member(problems, &fields, "on", words).unwrap_or_else(webhook::usual);
            let secret =
                member(problems, &fields, "secret", |problems, value| problems.parsed(value, webhook::check_secret));
            Some(CatalogHook { hook: Webhook { url: url?, on }, secret })
        })
    })
}

/// # Errors
/// As [`hooks`].
pub(super) fn limits(value: &Value, usual: OnLimit) -> Result<Vec<LimitTemplate>, String> {
    let limits = read(value, |problems, value| key_limits(problems, value, usual))?;
    let template = |limit: KeyLimit| Ok(LimitTemplate { key: template(&limit.key)?, limit });
    limits.into_iter().map(template).collect()
}

/// # Errors
/// As [`hooks`].
pub(super) fn share(value: &Value) -> Result<FairTemplate, String> {
    let share = read(value, fair)?;
    Ok(FairTemplate { key: template(&share.key)?, weight: share.weight })
}

fn template(key: &str) -> Result<Template, String> {
    Template::parse(&Value::String(key.to_owned())).map_err(|error| error.to_string())
}

fn read<T>(
    value: &Value,
    read: impl FnOnce(&mut Problems, &serde_json::value::RawValue) -> Option<T>,
) -> Result<T, String> {
    let raw = celery::task::json::written(value.to_string());
    let mut problems = Problems::default();
    let read = read(&mut problems, &raw);
    match (read, problems.found.first()) {
        (Some(read), None) => Ok(read),
        (_, Some(first)) => Err(format!("{} {}", first.pointer, first.detail).trim().to_owned()),
        (None, None) => Err("does not fit".to_owned()),
    }
}
