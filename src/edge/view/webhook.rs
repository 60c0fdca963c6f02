//! Webhooks and their deliveries. A secret is shown only in the answer to the request that created it.

use crate::edge::answer::Lends;
use crate::edge::base;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use ledger::{Delivery, Endpoint};
use runtime::clock::Time;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Webhook)]
pub struct WebhookView<'a> {
    /// A UUID; `catalog` or `submissions` for the built-in ones.
    #[schema(value_type = String)]
    pub id: &'a str,
    /// Null for `catalog` and `submissions`.
    #[schema(value_type = Option<String>, example = "https://example.org/hook")]
    pub url: Option<&'a str>,
    #[schema(value_type = Vec<String>, example = json!(["success", "failure"]))]
    pub on: &'a [String],
    /// Patterns of task names; all tasks when empty.
    #[schema(value_type = Vec<String>, example = json!(["tasks.*"]))]
    pub tasks: &'a [String],
    #[schema(value_type = Option<String>)]
    pub description: Option<&'a str>,
    pub enabled: bool,
    /// Why taskgate disabled it by itself.
    #[schema(value_type = Option<String>)]
    pub disabled_reason: Option<&'a str>,
    /// Only in the answer to the request that created it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")]
    pub secret: Option<&'a str>,
    /// Until this time the previous secret also signs.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub old_secret_until: Option<Time>,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Time,
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Time,
    pub links: WebhookLinks,
}

impl Lends for WebhookView<'static> {
    type With<'a> = WebhookView<'a>;
}

#[derive(Debug, Serialize, ToSchema)]
pub struct WebhookLinks {
    #[serde(rename = "self")]
    this: String,
    deliveries: String,
}

impl<'a> WebhookView<'a> {
    pub fn of(endpoint: &'a Endpoint, now: Time) -> Self {
        let Endpoint { id, document, .. } = endpoint;
        Self {
            id,
            url: document.url.as_deref(),
            on: &document.on,
            tasks: &document.tasks,
            description: document.description.as_deref(),
            enabled: endpoint.enabled,
            disabled_reason: endpoint.disabled_reason.as_deref(),
            secret: None,
            old_secret_until: endpoint.old_secret.as_ref().map(|(_, until)| *until).filter(|until| *until > now),
            created_at: endpoint.created_at,
            updated_at: endpoint.updated_at,
            links: WebhookLinks {
                this: base::path(&format!("/v1/webhooks/{id}")),
                deliveries: base::path(&format!("/v1/webhooks/{id}/deliveries")),
            },
        }
    }

    pub fn with_secret(self, endpoint: &'a Endpoint) -> Self {
        Self { secret: Some(&endpoint.secret), ..self }
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WebhookList)]
pub struct WebhookListView<'a> {
    pub webhooks: Vec<WebhookView<'a>>,
    /// The `cursor` of the next page; null on the last one.
    pub next: Option<String>,
}

impl Lends for WebhookListView<'static> {
    type With<'a> = WebhookListView<'a>;
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WebhookDelivery)]
pub struct DeliveryView<'a> {
    /// The `webhook-id` header, the same for every try.
    #[schema(value_type = String, example = "msg_5b0b5a0e6b0c5d4e9b55111111111111")]
    pub id: &'a str,
    #[schema(value_type = String, example = "task.succeeded")]
    pub r#type: &'a str,
    #[schema(value_type = String)]
    pub task_id: &'a str,
    /// The task's `seq` of the event.
    pub seq: i64,
    #[schema(value_type = String)]
    pub url: &'a str,
    /// `pending`, `delivered` or `failed` (given up).
    #[schema(value_type = String, example = "delivered")]
    pub state: &'static str,
    pub attempts: i32,
    /// Status of the last try; null when no answer came.
    pub last_status: Option<i32>,
    #[schema(value_type = Option<String>)]
    pub last_error: Option<&'a str>,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_attempt_at: Option<Time>,
    /// Only while pending.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_attempt_at: Option<Time>,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub delivered_at: Option<Time>,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Time,
    /// The body.
    #[schema(value_type = Object)]
    pub payload: Option<&'a RawValue>,
}

impl Lends for DeliveryView<'static> {
    type With<'a> = DeliveryView<'a>;
}

impl<'a> DeliveryView<'a> {
    pub fn of(delivery: &'a Delivery) -> Self {
        Self {
            id: &delivery.id,
            r#type: &delivery.kind,
            task_id: &delivery.task_id,
            seq: delivery.seq,
            url: &delivery.url,
            state: delivery.state.as_str(),
            attempts: delivery.attempts,
            last_status: delivery.last_status,
            last_error: delivery.last_error.as_deref(),
            last_attempt_at: delivery.last_at,
            next_attempt_at: delivery.next_at,
            delivered_at: delivery.delivered_at,
            created_at: delivery.created_at,
            payload: serde_json::from_str(&delivery.payload).ok(),
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WebhookDeliveryList)]
pub struct DeliveryListView<'a> {
    pub deliveries: Vec<DeliveryView<'a>>,
    /// The `cursor` of the next page; null on the last one.
    pub next: Option<String>,
}

impl Lends for DeliveryListView<'static> {
    type With<'a> = DeliveryListView<'a>;
}
