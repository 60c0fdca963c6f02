//! `/v1/webhooks`: webhooks and their deliveries.

use axum::extract::{OriginalUri, State};
use axum::http::{HeaderName, header};

use super::tasks::linked;
use crate::edge::answer::{Answer, Body, Created, NoContent, Page, Query, Refused, Started};
use crate::edge::base;
use crate::edge::cursor;
use crate::edge::extract::{Caller, JsonText, NoBody, PathValues, Repeatable, delivery_query, name_page_query};
use crate::edge::state::Edge;
use crate::edge::view::{DeliveryListView, DeliveryView, WebhookListView, WebhookView};
use crate::usecase::webhooks::WebhookError;
use ledger::Endpoint;
use runtime::clock;

/// All webhooks, by id
///
/// Includes `catalog` and `submissions`, whose secrets sign the webhooks of catalog entries and of submissions.
#[utoipa::path(
    get, path = "/v1/webhooks", tag = "webhooks", operation_id = "list_webhooks",
    params(
        ("limit" = Option<u16>, Query, description = "1 to 500, default 50"),
        ("cursor" = Option<String>, Query, description = "`next` of the page before"),
    ),
)]
pub async fn list_webhooks(
    State(edge): State<Edge>,
    OriginalUri(uri): OriginalUri,
) -> Result<Page<WebhookListView<'static>>, Refused<(Query, WebhookError)>> {
    let (limit, after) = name_page_query(&uri)?;
    let (found, more) = edge.gateway.endpoints(after.as_deref(), limit).await?;
    let next = found.last().filter(|_| more).map(|last| cursor::write_name(&last.id));
    let now = clock::now();
    let webhooks = found.iter().map(|endpoint| WebhookView::of(endpoint, now)).collect();
    let view = WebhookListView { webhooks, next: next.clone() };
    Ok(linked(Page::lent(&view), &uri, next.as_deref()))
}

/// Register a webhook
///
/// From now on each matching change of a task is sent to `url`, signed by the scheme of Standard Webhooks. Only this answer
/// contains the secret.
#[utoipa::path(
    post, path = "/v1/webhooks", tag = "webhooks", operation_id = "register_webhook",
    request_body(content = ref("#/components/schemas/WebhookDocument"), content_type = "application/json"),
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repetition harmless")),
)]
pub async fn register_webhook(
    State(edge): State<Edge>,
    caller: Caller,
    repeatable: Repeatable,
    JsonText(body): JsonText,
) -> Result<Created<WebhookView<'static>>, Refused<(Body, WebhookError)>> {
    let key = repeatable.key.map(|key| format!("{} {key}", caller.keys("webhook")));
    let registered = edge.gateway.register_webhook(&body, key.as_deref()).await?;
    let view = with_secret(&registered.endpoint);
    let place = base::path(&format!("/v1/webhooks/{}", registered.endpoint.id));
    let answer = Created::lent(&view).no_store().with(header::LOCATION, &place);
    Ok(if registered.replayed { answer.with(&REPLAYED, "true") } else { answer })
}

/// One webhook
#[utoipa::path(
    get, path = "/v1/webhooks/{id}", tag = "webhooks", operation_id = "get_webhook",
    params(("id" = String, Path)),
)]
pub async fn get_webhook(
    State(edge): State<Edge>,
    path: PathValues,
) -> Result<Answer<WebhookView<'static>>, Refused<WebhookError>> {
    Ok(shown(&edge.gateway.find_webhook(&named(&path, "id")).await?))
}

/// Change parts of a webhook
///
/// Members that are not given stay. Pending deliveries go to the new `url`. For `catalog` and `submissions` only `enabled` can be
/// changed.
#[utoipa::path(
    patch, path = "/v1/webhooks/{id}", tag = "webhooks", operation_id = "change_webhook",
    request_body(content = ref("#/components/schemas/WebhookPatch"), content_type = "application/json"),
    params(("id" = String, Path)),
)]
pub async fn change_webhook(
    State(edge): State<Edge>,
    path: PathValues,
    JsonText(body): JsonText,
) -> Result<Answer<WebhookView<'static>>, Refused<(Body, WebhookError)>> {
    Ok(shown(&edge.gateway.change_webhook(&named(&path, "id"), &body).await?))
}

/// Delete a webhook and its deliveries
#[utoipa::path(
    delete, path = "/v1/webhooks/{id}", tag = "webhooks", operation_id = "delete_webhook",
    params(("id" = String, Path)),
)]
pub async fn delete_webhook(
    State(edge): State<Edge>,
    path: PathValues,
    _: NoBody,
) -> Result<NoContent, Refused<WebhookError>> {
    edge.gateway.delete_webhook(&named(&path, "id")).await?;
    Ok(NoContent)
}

/// Replace a webhook's secret
///
/// Only this answer contains the new secret. For `overlap` seconds (86,400 by default) the old secret signs too, so that the
/// receiver can be changed meanwhile.
#[utoipa::path(
    post, path = "/v1/webhooks/{id}/rotate", tag = "webhooks", operation_id = "rotate_webhook",
    request_body(content = ref("#/components/schemas/WebhookRotation"), content_type = "application/json"),
    params(("id" = String, Path)),
)]
pub async fn rotate_webhook(
    State(edge): State<Edge>,
    path: PathValues,
    JsonText(body): JsonText,
) -> Result<Answer<WebhookView<'static>>, Refused<(Body, WebhookError)>> {
    let endpoint = edge.gateway.rotate_webhook(&named(&path, "id"), &body).await?;
    Ok(Answer::lent(&with_secret(&endpoint)).no_store())
}

/// The deliveries of a webhook, newest first
#[utoipa::path(
    get, path = "/v1/webhooks/{id}/deliveries", tag = "webhooks", operation_id = "list_deliveries",
    params(
        ("id" = String, Path, description = "A webhook's id, `catalog` or `submissions`"),
        ("task_id" = Option<String>, Query),
        ("state" = Option<String>, Query, description = "`pending`, `delivered` or `failed`"),
        ("limit" = Option<u16>, Query, description = "1 to 500, default 50"),
        ("cursor" = Option<String>, Query, description = "`next` of the page before"),
    ),
)]
pub async fn list_deliveries(
    State(edge): State<Edge>,
    path: PathValues,
    OriginalUri(uri): OriginalUri,
) -> Result<Page<DeliveryListView<'static>>, Refused<(Query, WebhookError)>> {
    let (mut filter, page) = delivery_query(&uri)?;
    filter.endpoint_id = named(&path, "id");
    let (found, next) = edge.gateway.webhook_deliveries(&filter, &page).await?;
    let next = next.map(cursor::write);
    let view = DeliveryListView { deliveries: found.iter().map(DeliveryView::of).collect(), next: next.clone() };
    Ok(linked(Page::lent(&view), &uri, next.as_deref()))
}

/// Send a delivery again
///
/// Whatever its state, with the same `webhook-id`.
#[utoipa::path(
    post, path = "/v1/webhooks/{id}/deliveries/{delivery}/resend", tag = "webhooks", operation_id = "resend_delivery",
    params(("id" = String, Path), ("delivery" = String, Path, description = "The `webhook-id`")),
)]
pub async fn resend_delivery(
    State(edge): State<Edge>,
    path: PathValues,
    _: NoBody,
) -> Result<Started<DeliveryView<'static>>, Refused<WebhookError>> {
    let (id, delivery) = (named(&path, "id"), named(&path, "delivery"));
    let delivery = edge.gateway.resend_delivery(&id, &delivery).await?;
    Ok(Started::lent(&DeliveryView::of(&delivery)))
}

static REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

fn named(PathValues(values): &PathValues, name: &str) -> String {
    values.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone()).unwrap_or_default()
}

fn shown(endpoint: &Endpoint) -> Answer<WebhookView<'static>> {
    Answer::lent(&WebhookView::of(endpoint, clock::now()))
}

/// The view for answers that contain the secret, which must not be cached.
fn with_secret(endpoint: &Endpoint) -> WebhookView<'_> {
    WebhookView::of(endpoint, clock::now()).with_secret(endpoint)
}
