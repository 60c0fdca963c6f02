//! `/openapi.json` and Swagger UI.

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Redirect};
use axum::routing::get;
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::edge::answer::Described;
use crate::edge::base;
use crate::edge::middleware::authenticate::whoever;
use crate::edge::state::Edge;
use crate::guard::tokens::Identity;
use ledger::Scope;

/// The contract
///
/// OpenAPI 3.1, with the endpoints of this gateway's catalog. A caller who may submit or read finds an operation for each task in `learn` that
/// workers have reported, too, as far as its token sees the task's name.
#[utoipa::path(get, path = "/openapi.json", tag = "operation", operation_id = "openapi",
    responses((status = 200, description = "The document", body = Object)))]
pub async fn openapi(State(edge): State<Edge>, headers: HeaderMap) -> Described {
    let kind = HeaderValue::from_static("application/json");
    let varies = HeaderValue::from_static("authorization, cookie");
    let document = match reader(&edge, &headers).await {
        Some(reader) => edge.contract.with(&edge.gateway.lesson(), reader.visibility()).await,
        None => edge.contract.fixed(),
    };
    Described(([(header::CONTENT_TYPE, kind), (header::VARY, varies)], document).into_response())
}

/// The caller, if it may know names of tasks. An unknown or wrong token still gets what anybody gets.
async fn reader(edge: &Edge, headers: &HeaderMap) -> Option<Identity> {
    let (identity, _) = whoever(edge, headers).await.ok().flatten()?;
    [Scope::Submit, Scope::Read].into_iter().any(|scope| identity.may(scope)).then_some(identity)
}

/// Swagger UI from assets inside the binary, with redirects from `/docs` to it and from `/` to the dashboard.
pub fn swagger_ui() -> Router<Edge> {
    let config = Config::from("../openapi.json").try_it_out_enabled(true).display_request_duration(true);
    Router::from(SwaggerUi::new("/swagger-ui").config(config))
        .route("/docs", get(|| async { Redirect::temporary(&base::path("/swagger-ui/")) }))
        .route("/", get(|| async { Redirect::temporary(&base::path("/dashboard/")) }))
}
