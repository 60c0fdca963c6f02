//! The layers around all routes: `observe` outermost, then cross-origin requests if other origins may call, then `guard`.
//!
//! Each layer costs every request some allocations, so the two are one layer when there is nothing between them.

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;

use super::{cors, guard, observe};
use crate::edge::state::Edge;

/// The routes below their layers.
pub fn around(edge: &Edge, routes: Router<Edge>) -> Router<Edge> {
    match cors::layer(&edge.http) {
        Some(cors) => routes
            .layer(from_fn_with_state(edge.clone(), guard::guard))
            .layer(cors)
            .layer(from_fn_with_state(edge.clone(), observe::observe)),
        None => routes.layer(from_fn_with_state(edge.clone(), both)),
    }
}

/// `observe` and, directly below it, `guard`.
async fn both(State(edge): State<Edge>, request: Request, next: Next) -> Response {
    observe::observed(&edge, request, |request| guard::guarded(&edge, request, next)).await
}
