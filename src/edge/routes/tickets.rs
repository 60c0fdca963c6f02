//! `POST /v1/stream-tickets`: tickets that replace a token in a URL, because `EventSource` cannot send headers.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::edge::answer::{Body, Created, Refused};
use crate::edge::extract::{Caller, JsonText, wishes};
use crate::edge::state::Edge;

/// A single-use ticket.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StreamTicket)]
pub struct TicketView {
    /// Goes into the address of a stream: `?ticket=…`
    #[schema(example = "tgt_8N0m…")]
    ticket: String,
    /// RFC 3339, UTC: 30 seconds from now
    expires_at: String,
}

/// A ticket for a stream
///
/// Opens an event stream with the token's rights: `new EventSource("/v1/events?ticket=…")`. It is valid once, for 30 seconds, at every
/// replica. To continue after an interruption, get another ticket and add `last_event_id` to the query.
#[utoipa::path(post, path = "/v1/stream-tickets", tag = "tasks", operation_id = "create_stream_ticket")]
pub async fn create_ticket(
    State(edge): State<Edge>,
    Caller(identity): Caller,
    JsonText(body): JsonText,
) -> Result<Created<TicketView>, Refused<(Body, ledger::Error)>> {
    wishes(&body, &[], |_, _| ())?;
    let (ticket, expires_at) = edge.authority.ticket(&identity).await?;
    let view = TicketView { ticket: ticket.reveal(), expires_at: expires_at.rfc3339() };
    Ok(Created::of(&view).no_store())
}
