//! `/v1/tokens` and `/v1/inboxes`: the tokens, and the databases with inboxes. Tokens are created on the command line, where only someone
//! with access to the ledger sees the secret.

use axum::extract::State;

use crate::edge::answer::{Answer, Refused};
use crate::edge::extract::{NoBody, PathValues, path_value};
use crate::edge::middleware::audit::Remark;
use crate::edge::problem::Problem;
use crate::edge::slugs;
use crate::edge::state::Edge;
use crate::edge::view::{InboxListView, InboxView, TokenListView, TokenView};
use runtime::clock;

/// Tokens
///
/// Tokens that `taskgate token create` made, including revoked ones, newest first. The secrets themselves are not stored.
#[utoipa::path(get, path = "/v1/tokens", tag = "operation", operation_id = "list_tokens")]
pub async fn list_tokens(State(edge): State<Edge>) -> Result<Answer<TokenListView>, Refused<ledger::Error>> {
    let now = clock::now();
    let tokens = edge.gateway.tokens().await?.into_iter().map(|token| TokenView::of(token, now)).collect();
    Ok(Answer::of(&TokenListView { tokens }))
}

/// Revoke a token
///
/// Requests with it are refused from now on: by this gateway at once, by other replicas within a second or two.
#[utoipa::path(
    delete, path = "/v1/tokens/{id}", tag = "operation", operation_id = "revoke_token",
    params(("id" = String, Path, description = "Its id, as the list has it")),
    responses((status = 404, description = "There is no such token, or it is revoked already", body = crate::edge::problem::ProblemDocument, content_type = "application/problem+json")),
)]
pub async fn revoke_token(
    State(edge): State<Edge>,
    path: PathValues,
    _: NoBody,
) -> Result<Answer<TokenView>, Refused<ledger::Error>> {
    let id = path_value(&path, "id", |text| if text.len() <= 64 { Ok(text.to_owned()) } else { Err("is too long") })?;
    let revoked = edge.gateway.revoke_token(&id).await?;
    let token = revoked.ok_or_else(|| Problem::new(&slugs::TOKEN_NOT_FOUND))?;
    let remark = Remark { verdict: None, detail: Some(token.name.clone()) };
    Ok(Answer::of(&TokenView::of(token, clock::now())).noting(remark))
}

/// Inboxes
///
/// Databases whose transactions submit tasks (`[[inboxes]]` and the ledger's own), with the calls that wait in each.
#[utoipa::path(get, path = "/v1/inboxes", tag = "operation", operation_id = "list_inboxes")]
pub async fn list_inboxes(State(edge): State<Edge>) -> Answer<InboxListView> {
    let now = clock::now();
    let view = |state: crate::usecase::inboxes::InboxState| InboxView {
        name: state.name,
        trouble: state.trouble,
        waiting: state.status.as_ref().map(|(waiting, _)| *waiting),
        oldest_seconds: state.status.and_then(|(_, oldest)| oldest).map(|at| now.since(at).as_secs_f64()),
        poll_seconds: state.poll.as_secs_f64(),
    };
    let inboxes = edge.gateway.inbox_states().await.into_iter().map(view).collect();
    Answer::of(&InboxListView { inboxes })
}
