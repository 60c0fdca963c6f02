//! Registered webhooks: create, read, update, rotate secrets without a gap, list deliveries and send one again.

use std::time::Duration;

use serde_json::value::RawValue;

use super::Gateway;
use crate::tell::webhooks::{check_literal, judge, new_secret};
use celery::task::Invalid;
use celery::task::invalid::Problems;
use celery::task::json::{self, Fields};
use celery::task::submission::{list, member, words};
use celery::task::webhook::{self, check_secret, check_url, target};
use ledger::{Cursor, Delivery, DeliveryFilter, Endpoint, EndpointDocument, Page};
use runtime::clock::{self, Time};

/// Maximum number of webhooks: each adds work to every event.
pub const MOST: usize = 500;
/// How long the old secret still signs, unless the request says otherwise.
const OVERLAP: Duration = Duration::from_hours(24);
const MAX_OVERLAP: f64 = 30.0 * 86_400.0;
const MAX_DESCRIPTION: usize = 500;
/// How often an edit is retried after a concurrent one.
const EDIT_ATTEMPTS: usize = 10;
const MEMBERS: [&str; 6] = ["url", "on", "tasks", "description", "enabled", "secret"];

#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    #[error("the webhook does not fit")]
    Invalid(Vec<Invalid>),
    #[error("there is no webhook {0}")]
    Unknown(String),
    #[error("there is no delivery {0} of this webhook")]
    UnknownDelivery(String),
    #[error("{0} is not registered by anybody: it can be switched off and its secret replaced, no more")]
    BuiltIn(String),
    #[error("there are {MOST} webhooks already")]
    TooMany,
    #[error("the Idempotency-Key was used for another webhook")]
    KeyReused,
    #[error("other requests change this webhook at the same time")]
    Busy,
    #[error("the ledger failed")]
    Ledger(#[from] ledger::Error),
}

/// The result of a registration.
#[derive(Debug)]
pub struct Registered {
    pub endpoint: Endpoint,
    /// Whether this is the answer of an earlier, equal request.
    pub replayed: bool,
}

/// The members of a request about a webhook; `None` where it has none.
#[derive(Default)]
struct Said {
    url: Option<String>,
    on: Option<Vec<String>>,
    tasks: Option<Vec<String>>,
    description: Option<String>,
    enabled: Option<bool>,
    secret: Option<String>,
}

impl Gateway {
    /// Registers a webhook. A repeated request with the same `key` gets the same webhook.
    pub async fn register_webhook(&self, text: &str, key: Option<&str>) -> Result<Registered, WebhookError> {
        let said = self.read_webhook(text, true)?;
        self.judge_url(said.url.as_deref()).await?;
        let now = clock::now();
        let id = match key {
            Some(key) => uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, key.as_bytes()),
            None => clock::new_id(),
        };
        let endpoint = Endpoint {
            id: id.to_string(),
            version: 1,
            enabled: said.enabled.unwrap_or(true),
            disabled_reason: None,
            secret: said.secret.unwrap_or_else(new_secret),
            old_secret: None,
            created_at: now,
            updated_at: now,
            document: EndpointDocument {
                url: said.url,
                on: said.on.unwrap_or_else(webhook::usual),
                tasks: said.tasks.unwrap_or_default(),
                description: said.description,
            },
        };
        if self.ledger.endpoints(None, MOST as i64 + 2).await?.iter().filter(|endpoint| !endpoint.is_built_in()).count()
            >= MOST
        {
            return Err(WebhookError::TooMany);
        }
        if self.ledger.create_endpoint(&endpoint).await? {
            return Ok(Registered { endpoint, replayed: false });
        }
        let there = self.find_webhook(&endpoint.id).await?;
        if there.version == 1 && there.document != endpoint.document {
            return Err(WebhookError::KeyReused);
        }
        Ok(Registered { endpoint: there, replayed: true })
    }

    pub async fn find_webhook(&self, id: &str) -> Result<Endpoint, WebhookError> {
        self.ledger.endpoint(id).await?.ok_or_else(|| WebhookError::Unknown(id.to_owned()))
    }

    /// Changes a webhook; members that are not in the text stay.
    pub async fn change_webhook(&self, id: &str, text: &str) -> Result<Endpoint, WebhookError> {
        let said = self.read_webhook(text, false)?;
        self.judge_url(said.url.as_deref()).await?;
        self.edit_webhook(id, |endpoint, _| {
            let only_enabled = said.url.is_none()
                && said.on.is_none()
                && said.tasks.is_none()
                && said.description.is_none()
                && said.secret.is_none();
            if endpoint.is_built_in() && !only_enabled {
                return Err(WebhookError::BuiltIn(id.to_owned()));
            }
            let document = &mut endpoint.document;
            replace(&mut document.on, said.on.as_ref());
            replace(&mut document.tasks, said.tasks.as_ref());
            document.url = said.url.clone().or(document.url.take());
            document.description = said.description.clone().or(document.description.take());
            replace(&mut endpoint.secret, said.secret.as_ref());
            if let Some(enabled) = said.enabled {
                endpoint.enabled = enabled;
                endpoint.disabled_reason = None;
            }
            Ok(())
        })
        .await
    }

    /// Replaces the secret; the old one signs too for `overlap` seconds. Only this answer contains the new secret.
    pub async fn rotate_webhook(&self, id: &str, text: &str) -> Result<Endpoint, WebhookError> {
        let (overlap, secret) = read(text, |problems, fields| {
            problems.refuse_unknown(fields, &["overlap", "secret"]);
            let overlap = member(problems, fields, "overlap", |problems, value| {
                let secs = problems.number(value, 0.0)?;
                if secs > MAX_OVERLAP {
                    problems.add(format!("must be at most {MAX_OVERLAP}"));
                }
                Duration::try_from_secs_f64(secs).ok()
            });
            (overlap.unwrap_or(OVERLAP), secret(problems, fields))
        })?;
        let new = secret.unwrap_or_else(new_secret);
        self.edit_webhook(id, |endpoint, now| {
            let old = std::mem::replace(&mut endpoint.secret, new.clone());
            endpoint.old_secret = (!overlap.is_zero()).then(|| (old, now.plus(overlap)));
            Ok(())
        })
        .await
    }

    async fn edit_webhook(
        &self,
        id: &str,
        edit: impl Fn(&mut Endpoint, Time) -> Result<(), WebhookError>,
    ) -> Result<Endpoint, WebhookError> {
        for _ in 0..EDIT_ATTEMPTS {
            let mut endpoint = self.find_webhook(id).await?;
            let now = clock::now();
            edit(&mut endpoint, now)?;
            endpoint.updated_at = now;
            let target = endpoint.document.url.as_deref().map(target).unwrap_or_default();
            if self.ledger.edit_endpoint(&endpoint, &target).await? {
                endpoint.version += 1;
                self.webhooks.nudge();
                return Ok(endpoint);
            }
        }
        Err(WebhookError::Busy)
    }

    /// Deletes the webhook and all its deliveries.
    pub async fn delete_webhook(&self, id: &str) -> Result<(), WebhookError> {
        if self.find_webhook(id).await?.is_built_in() {
            return Err(WebhookError::BuiltIn(id.to_owned()));
        }
        if self.ledger.delete_endpoint(id).await? { Ok(()) } else { Err(WebhookError::Unknown(id.to_owned())) }
    }

    pub async fn webhook_deliveries(
        &self,
        filter: &DeliveryFilter,
        page: &Page,
    ) -> Result<(Vec<Delivery>, Option<Cursor>), WebhookError> {
        self.find_webhook(&filter.endpoint_id).await?;
        Ok(self.ledger.deliveries(filter, page).await?)
    }

    /// Sends a delivery again, whatever its state, with the same `webhook-id`.
    pub async fn resend_delivery(&self, id: &str, delivery: &str) -> Result<Delivery, WebhookError> {
        self.find_webhook(id).await?;
        let now = clock::now();
        let found = self.ledger.resend(id, delivery, now, now.plus(self.hooks.retry_for)).await?;
        self.webhooks.nudge();
        found.ok_or_else(|| WebhookError::UnknownDelivery(delivery.to_owned()))
    }

    async fn judge_url(&self, url: Option<&str>) -> Result<(), WebhookError> {
        let Some(url) = url else { return Ok(()) };
        let refused = |detail| WebhookError::Invalid(vec![Invalid { pointer: "/url".to_owned(), detail }]);
        judge(&self.hooks, url).await.map_err(refused)
    }

    fn read_webhook(&self, text: &str, whole: bool) -> Result<Said, WebhookError> {
        read(text, |problems, fields| {
            problems.refuse_unknown(fields, &MEMBERS);
            if whole && fields.get("url").is_none() {
                problems.add_at("url", "is required");
            }
            Said {
                url: member(problems, fields, "url", |problems, value| self.url(problems, value)),
                on: member(problems, fields, "on", words),
                tasks: member(problems, fields, "tasks", patterns),
                description: member(problems, fields, "description", |problems, value| {
                    problems.parsed(value, description)
                }),
                enabled: member(problems, fields, "enabled", Problems::boolean),
                secret: secret(problems, fields),
            }
        })
    }

    /// Reads the URL. A private address is refused at once; a name is checked when it is resolved.
    fn url(&self, problems: &mut Problems, value: &RawValue) -> Option<String> {
        let url = problems.parsed(value, check_url)?;
        check_literal(&self.hooks, &url).map_err(|refused| problems.add(refused.to_string())).ok()?;
        Some(url)
    }
}

fn replace<T: Clone>(place: &mut T, said: Option<&T>) {
    if let Some(said) = said {
        said.clone_into(place);
    }
}

fn secret(problems: &mut Problems, fields: &Fields<'_>) -> Option<String> {
    member(problems, fields, "secret", |problems, value| problems.parsed(value, check_secret))
}

fn patterns(problems: &mut Problems, value: &RawValue) -> Option<Vec<String>> {
    list(problems, value, 100, |problems, value| {
        problems.parsed(value, |text| match text.chars().count() {
            1..=255 if !text.chars().any(char::is_control) => Ok(text),
            _ => Err("must have 1 to 255 characters and no control characters"),
        })
    })
}

fn description(text: String) -> Result<String, String> {
    if text.chars().count() <= MAX_DESCRIPTION {
        return Ok(text);
    }
    Err(format!("must have at most {MAX_DESCRIPTION} characters"))
}

/// Reads an object; an empty text counts as an empty object.
fn read<T>(text: &str, read: impl FnOnce(&mut Problems, &Fields<'_>) -> T) -> Result<T, WebhookError> {
    let mut problems = Problems::default();
    let text = if text.trim().is_empty() { "{}" } else { text };
    let found = json::verbatim(text.to_owned()).map_err(|error| {
        WebhookError::Invalid(vec![Invalid { pointer: String::new(), detail: format!("is not JSON: {error}") }])
    })?;
    let value = problems.object(&found).map(|fields| read(&mut problems, &fields));
    match value {
        Some(value) if problems.found.is_empty() => Ok(value),
        _ => Err(WebhookError::Invalid(problems.found)),
    }
}
