//! `/problems/{slug}`: the pages that explain the kinds of problems.

use axum::extract::Path;
use axum::response::{Html, IntoResponse};

use crate::edge::answer::{Described, Refusals, Refused};
use crate::edge::base;
use crate::edge::problem::Problem;
use crate::edge::slugs::{self, Slug};

/// All kinds of problems
#[utoipa::path(get, path = "/problems", tag = "operation", operation_id = "list_problems",
    responses((status = 200, description = "A page", body = String, content_type = "text/html")))]
pub async fn list_problems() -> Described {
    let lines: String = slugs::ALL
        .iter()
        .map(|slug| {
            format!(
                "<li><a href=\"{3}\">{0}</a> ({1}): {2}</li>\n",
                slug.name,
                slug.status.as_u16(),
                escaped(slug.title),
                base::path(&format!("/problems/{}", slug.name))
            )
        })
        .collect();
    Described(page("Problems", &format!("<h1>Problems</h1>\n<ul>\n{lines}</ul>")).into_response())
}

/// A kind of problem explained
#[utoipa::path(get, path = "/problems/{slug}", tag = "operation", operation_id = "get_problem",
    params(("slug" = String, Path, description = "The last part of a problem's `type`", example = "invalid-request")),
    responses(
        (status = 200, description = "A page", body = String, content_type = "text/html"),
    ))]
pub async fn get_problem(Path(name): Path<String>) -> Result<Described, Refused<UnknownProblem>> {
    let slug = slugs::find(&name).ok_or_else(|| Problem::new(&slugs::PROBLEM_NOT_FOUND))?;
    Ok(Described(page(slug.title, &explained(slug)).into_response()))
}

/// The path does not name a kind of problem.
pub struct UnknownProblem;

impl Refusals for UnknownProblem {
    fn kinds() -> Vec<&'static Slug> {
        vec![&slugs::PROBLEM_NOT_FOUND]
    }
}

fn explained(slug: &Slug) -> String {
    format!(
        "<h1>{}</h1>\n<p><code>{}</code>, answered with status {}</p>\n<h2>Cause</h2>\n<p>{}</p>\n<h2>Cure</h2>\n<p>{}</p>\n<p><a href=\"{}\">All problems</a></p>",
        escaped(slug.title),
        slug.name,
        slug.status.as_u16(),
        escaped(slug.cause),
        escaped(slug.cure),
        base::path("/problems/")
    )
}

fn page(title: &str, content: &str) -> Html<String> {
    let title = escaped(title);
    Html(format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title} · taskgate</title><style>body{{font:16px/1.5 system-ui,sans-serif;max-width:42rem;margin:3rem auto;padding:0 1rem}}</style>\
         </head><body>\n{content}\n</body></html>\n"
    ))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
