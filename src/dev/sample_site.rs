//! The notice boards that dev's sample crawler reads. Not part of the contract: `serve` does not have them.

use axum::Router;
use axum::extract::Path;
use axum::response::Html;
use axum::routing::get;

use super::notice_boards;
use crate::edge::problem::Problem;
use crate::edge::slugs;

/// `GET /sample-site/{board}/{page}`.
pub fn router() -> Router {
    Router::new().route("/sample-site/{board}/{page}", get(page))
}

async fn page(Path((board, page)): Path<(String, String)>) -> Result<Html<String>, Problem> {
    let html = page.parse().ok().and_then(|page| notice_boards::page(&board, page));
    html.map(Html).ok_or_else(|| Problem::new(&slugs::ROUTE_NOT_FOUND))
}
