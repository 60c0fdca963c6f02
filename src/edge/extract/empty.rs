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
        let JsonText(text) = JsonText::from_request(request, edge).await.map_err(without_body)?;
        let blank = text.chars().filter(|char| !char.is_ascii_whitespace()).collect::<String>();
        if blank.is_empty() || blank == "{}" { Ok(Self) } else { Err(unexpected()) }
    }
}

/// Where no body is expected, its type and its syntax are not what is wrong with it.
pub fn without_body(problem: Problem) -> Problem {
    let of_content = [slugs::UNSUPPORTED_MEDIA_TYPE.name, slugs::INVALID_JSON.name];
    if of_content.contains(&problem.slug().name) { unexpected() } else { problem }
}

fn unexpected() -> Problem {
    let detail = "this operation has no body";
    Problem::new(&slugs::INVALID_REQUEST).detail(detail).error("", detail)
}
