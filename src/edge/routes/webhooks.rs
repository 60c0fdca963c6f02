//! `/v1/webhooks`: who is told what, and how that went.

use axum::extract::{OriginalUri, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;

use super::submission::{json_response, text};
use crate::edge::cursor;
use crate::edge::extract::{Caller, JsonText, NoBody, PathValues, Repeatable, delivery_query, name_page_query};
use crate::edge::problem::{Problem, ProblemDocument};
use crate::edge::state::Edge;
use crate::edge::view::{DeliveryListView, DeliveryView, WebhookListView, WebhookView};
use ledger::Endpoint;
use runtime::clock;

/// All webhooks, by id
///
/// Besides the registered ones: `catalog` and `submissions`, whose secrets sign what catalog entries and submissions ask for.
#[utoipa::path(
    get, path = "/v1/webhooks", tag = "webhooks", operation_id = "list_webhooks",
    params(
        ("limit" = Option<u16>, Query, description = "1 to 500, default 50"),
        ("cursor" = Option<String>, Query, description = "`next` of the page before"),
    ),
    responses((status = 200, description = "A page", body = WebhookListView)),
)]
pub async fn list_webhooks(State(edge): State<Edge>, OriginalUri(uri): OriginalUri) -> Result<Response, Problem> {
    let (limit, after) = name_page_query(&uri)?;
    let (found, more) = edge.gateway.endpoints(after.as_deref(), limit).await?;
    let next = found.last().filter(|_| more).map(|last| cursor::write_name(&last.id));
    let now = clock::now();
    let webhooks = found.iter().map(|endpoint| WebhookView::of(endpoint, now)).collect();
    let mut response = json_response(StatusCode::OK, text(&WebhookListView { webhooks, next: next.clone() }));
    super::tasks::link_next(&mut response, &uri, next.as_deref());
    Ok(response)
}

/// Register a webhook
///
/// From now on each change of a task that it asks for is sent to `url`, signed by the scheme of Standard Webhooks. The answer
/// has the secret, for the only time.
#[utoipa::path(
    post, path = "/v1/webhooks", tag = "webhooks", operation_id = "register_webhook",
    request_body(content = ref("#/components/schemas/WebhookDocument"), content_type = "application/json"),
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repetition harmless")),
    responses(
        (status = 201, description = "Registered", body = WebhookView, headers(("Location" = String, description = "The webhook"))),
        (status = 409, description = "There are too many", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, description = "Does not fit", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub async fn register_webhook(
    State(edge): State<Edge>,
    caller: Caller,
    repeatable: Repeatable,
    JsonText(body): JsonText,
) -> Result<Response, Problem> {
    let key = repeatable.key.map(|key| format!("{} {key}", caller.keys("webhook")));
    let registered = edge.gateway.register_webhook(&body, key.as_deref()).await?;
    let mut response = with_secret(StatusCode::CREATED, &registered.endpoint);
    let headers = response.headers_mut();
    if let Ok(place) = HeaderValue::from_str(&format!("/v1/webhooks/{}", registered.endpoint.id)) {
        headers.insert(header::LOCATION, place);
    }
    if registered.replayed {
        headers.insert("idempotency-replayed", HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// One webhook
#[utoipa::path(
    get, path = "/v1/webhooks/{id}", tag = "webhooks", operation_id = "get_webhook",
    params(("id" = String, Path)),
    responses(
        (status = 200, description = "The webhook, without its secret", body = WebhookView),
        (status = 404, description = "Unknown", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub async fn get_webhook(State(edge): State<Edge>, path: PathValues) -> Result<Response, Problem> {
    Ok(shown(&edge.gateway.find_webhook(&named(&path, "id")).await?))
}

/// Change parts of a webhook
///
/// Members that are not named stay. What is still to be sent goes to the new `url`. Of `catalog` and `submissions` only `enabled`
/// can be changed.
#[utoipa::path(
    patch, path = "/v1/webhooks/{id}", tag = "webhooks", operation_id = "change_webhook",
    request_body(content = ref("#/components/schemas/WebhookPatch"), content_type = "application/json"),
    params(("id" = String, Path)),
    responses(
        (status = 200, description = "Changed", body = WebhookView),
        (status = 404, description = "Unknown", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, description = "It is not registered by anybody", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, description = "Does not fit", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub async fn change_webhook(
    State(edge): State<Edge>,
    path: PathValues,
    JsonText(body): JsonText,
) -> Result<Response, Problem> {
    Ok(shown(&edge.gateway.change_webhook(&named(&path, "id"), &body).await?))
}

/// Delete a webhook and its deliveries
#[utoipa::path(
    delete, path = "/v1/webhooks/{id}", tag = "webhooks", operation_id = "delete_webhook",
    params(("id" = String, Path)),
    responses(
        (status = 204, description = "Gone"),
        (status = 404, description = "Unknown", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, description = "It is not registered by anybody", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub async fn delete_webhook(State(edge): State<Edge>, path: PathValues, _: NoBody) -> Result<StatusCode, Problem> {
    edge.gateway.delete_webhook(&named(&path, "id")).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Replace a webhook's secret
///
/// The answer has the new secret, for the only time. The one before signs too for `overlap` seconds (86,400 by default), so that
/// the receiver can be changed in between.
#[utoipa::path(
    post, path = "/v1/webhooks/{id}/rotate", tag = "webhooks", operation_id = "rotate_webhook",
    request_body(content = ref("#/components/schemas/WebhookRotation"), content_type = "application/json"),
    params(("id" = String, Path)),
    responses(
        (status = 200, description = "The webhook with its new secret", body = WebhookView),
        (status = 404, description = "Unknown", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, description = "Does not fit", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub async fn rotate_webhook(
    State(edge): State<Edge>,
    path: PathValues,
    JsonText(body): JsonText,
) -> Result<Response, Problem> {
    Ok(with_secret(StatusCode::OK, &edge.gateway.rotate_webhook(&named(&path, "id"), &body).await?))
}

/// What was sent to a webhook, newest first
#[utoipa::path(
    get, path = "/v1/webhooks/{id}/deliveries", tag = "webhooks", operation_id = "list_deliveries",
    params(
        ("id" = String, Path, description = "A webhook's id, `catalog` or `submissions`"),
        ("task_id" = Option<String>, Query),
        ("state" = Option<String>, Query, description = "`pending`, `delivered` or `failed`"),
        ("limit" = Option<u16>, Query, description = "1 to 500, default 50"),
        ("cursor" = Option<String>, Query, description = "`next` of the page before"),
    ),
    responses(
        (status = 200, description = "A page", body = DeliveryListView),
        (status = 404, description = "Unknown", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub async fn list_deliveries(
    State(edge): State<Edge>,
    path: PathValues,
    OriginalUri(uri): OriginalUri,
) -> Result<Response, Problem> {
    let (mut filter, page) = delivery_query(&uri)?;
    filter.endpoint_id = named(&path, "id");
    let (found, next) = edge.gateway.webhook_deliveries(&filter, &page).await?;
    let next = next.map(cursor::write);
    let view = DeliveryListView { deliveries: found.iter().map(DeliveryView::of).collect(), next: next.clone() };
    let mut response = json_response(StatusCode::OK, text(&view));
    super::tasks::link_next(&mut response, &uri, next.as_deref());
    Ok(response)
}

/// Send a delivery again
///
/// Whatever became of it, with the same `webhook-id`.
#[utoipa::path(
    post, path = "/v1/webhooks/{id}/deliveries/{delivery}/resend", tag = "webhooks", operation_id = "resend_delivery",
    params(("id" = String, Path), ("delivery" = String, Path, description = "The `webhook-id`")),
    responses(
        (status = 202, description = "It is due", body = DeliveryView),
        (status = 404, description = "Unknown", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub async fn resend_delivery(State(edge): State<Edge>, path: PathValues, _: NoBody) -> Result<Response, Problem> {
    let (id, delivery) = (named(&path, "id"), named(&path, "delivery"));
    let delivery = edge.gateway.resend_delivery(&id, &delivery).await?;
    Ok(json_response(StatusCode::ACCEPTED, text(&DeliveryView::of(&delivery))))
}

fn named(PathValues(values): &PathValues, name: &str) -> String {
    values.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone()).unwrap_or_default()
}

fn shown(endpoint: &Endpoint) -> Response {
    json_response(StatusCode::OK, text(&WebhookView::of(endpoint, clock::now())))
}

/// No cache may keep the secret.
fn with_secret(status: StatusCode, endpoint: &Endpoint) -> Response {
    let view = WebhookView::of(endpoint, clock::now()).with_secret(endpoint);
    let mut response = json_response(status, text(&view));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
