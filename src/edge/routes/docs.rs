//! `/openapi.json` and Swagger UI.

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Redirect};
use axum::routing::get;
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::edge::answer::Described;
use crate::edge::base;
use crate::edge::state::Edge;

/// The contract
///
/// OpenAPI 3.1, with the endpoints of this gateway's catalog and of the tasks that were learned from workers.
#[utoipa::path(get, path = "/openapi.json", tag = "operation", operation_id = "openapi",
    responses((status = 200, description = "The document", body = Object)))]
pub async fn openapi(State(edge): State<Edge>) -> Described {
    let kind = HeaderValue::from_static("application/json");
    Described(([(header::CONTENT_TYPE, kind)], edge.contract.with(&edge.gateway.lesson())).into_response())
}

/// Swagger UI from assets inside the binary, with redirects from `/docs` to it and from `/` to the dashboard.
pub fn swagger_ui() -> Router<Edge> {
    let config = Config::from("../openapi.json").try_it_out_enabled(true).display_request_duration(true);
    Router::from(SwaggerUi::new("/swagger-ui").config(config))
        .route("/docs", get(|| async { Redirect::temporary(&base::path("/swagger-ui/")) }))
        .route("/", get(|| async { Redirect::temporary(&base::path("/dashboard/")) }))
}
