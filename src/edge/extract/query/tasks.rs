//! Queries of lists of tasks and of their feed: filters, and a page or the newest one.

use axum::http::Uri;

use super::checked::{Checked, PAGING};
use super::filter::FILTERS;
use super::parameters::Parameters;
use crate::edge::problem::Problem;
use ledger::{Filter, Page};

/// What `GET /v1/tasks` asks for.
pub struct ListQuery {
    pub filter: Filter,
    pub page: Page,
    /// Only the newest task, as a whole.
    pub newest: bool,
}

/// Filters and page of `GET /v1/tasks`.
///
/// # Errors
/// A problem that names every parameter that does not fit; another one for the cursor.
pub fn list_query(uri: &Uri) -> Result<ListQuery, Problem> {
    tasks_query(uri, &["newest"])
}

/// Filters and page of `GET /v1/dead-letters`.
///
/// # Errors
/// As [`list_query`].
pub fn dead_letter_query(uri: &Uri) -> Result<(Filter, Page), Problem> {
    tasks_query(uri, &[]).map(|query| (query.filter, query.page))
}

fn tasks_query(uri: &Uri, own: &[&str]) -> Result<ListQuery, Problem> {
    let parameters = Parameters::of(uri)?;
    let mut checked = Checked::default();
    checked.known(&parameters, &[&FILTERS[..], &PAGING, own].concat());
    let filter = checked.filter(&parameters);
    let newest = !own.is_empty() && checked.newest(&parameters);
    let page = checked.page(&parameters)?;
    let page = if newest { Page { limit: 1, after: None } } else { page };
    Ok(ListQuery { filter: checked.done(filter)?, page, newest })
}

/// Filters of `GET /v1/events`.
///
/// # Errors
/// As [`list_query`].
pub fn feed_filter(uri: &Uri) -> Result<Filter, Problem> {
    let parameters = Parameters::of(uri)?;
    let mut checked = Checked::default();
    checked.known(&parameters, &FILTERS);
    let filter = checked.filter(&parameters);
    checked.done(filter)
}

impl Checked {
    /// Beside it there are no pages.
    fn newest(&mut self, parameters: &Parameters) -> bool {
        let newest = match self.single(parameters, "newest") {
            None | Some("false") => return false,
            Some("true") => true,
            Some(_) => {
                self.refuse("newest", "must be true or false");
                false
            }
        };
        for name in PAGING.iter().filter(|name| !parameters.all(name).is_empty()) {
            self.refuse(name, "has no meaning beside newest=true, which finds one task");
        }
        newest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::cursor;
    use celery::task::Phase;

    fn list(query: &str) -> Result<(Filter, Page), Problem> {
        list_query(&format!("/v1/tasks?{query}").parse().unwrap()).map(|query| (query.filter, query.page))
    }

    #[test]
    fn filters_are_read_repeated_or_with_commas() {
        let (filter, page) =
            list("status=SUCCESS,RETRY&status=PENDING&label=run%3A1:2&phase=queued&q=a+b&limit=2").unwrap();
        assert_eq!(filter.status, ["SUCCESS", "RETRY", "PENDING"]);
        assert_eq!(filter.labels, [("run".to_owned(), "1:2".to_owned())]);
        assert_eq!(filter.phase, [Phase::Queued]);
        assert_eq!(filter.q.as_deref(), Some("a b"));
        assert_eq!(page.limit, 2);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for query in [
            "limit=0",
            "limit=501",
            "limit=x",
            "phase=nonsense",
            "from=yesterday",
            "no_such=1",
            "cursor=x",
            "label=a",
            "q=",
            "q=%FF",
            "root_id=a&root_id=b",
        ] {
            assert!(list(query).is_err(), "{query}");
        }
    }

    #[test]
    fn a_cursor_reads_back() {
        let (_, page) = list(&format!("cursor={}", cursor::write(ledger::Cursor(42)))).unwrap();
        assert_eq!(page.after, Some(ledger::Cursor(42)));
    }
}
