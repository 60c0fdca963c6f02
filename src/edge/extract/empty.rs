//! Operations without a body accept no body or `{}`; anything else would be ignored, so it is refused.

use axum::extract::{FromRequest, Request};

use super::JsonText;
use crate::edge::problem::Problem;
use crate::edge::slugs;
use crate::edge::state::Edge;

#[derive(Debug)]
pub struct NoBody;

impl FromRequest<Edge> for NoBody {
    type Rejection = Problem;

    async fn from_request(request: Request, edge: &Edge) -> Result<Self, Problem> {
        let JsonText(text) = JsonText::from_request(request, edge).await?;
        let blank = text.chars().filter(|char| !char.is_ascii_whitespace()).collect::<String>();
        if blank.is_empty() || blank == "{}" {
            return Ok(Self);
        }
        let detail = "this operation has no body";
        Err(Problem::new(&slugs::INVALID_REQUEST).detail(detail).error("", detail))
    }
}
