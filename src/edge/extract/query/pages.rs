//! Queries of lists that have no filters of tasks.

use axum::http::Uri;

use super::checked::{Checked, PAGING, foreign_cursor};
use super::parameters::Parameters;
use crate::edge::cursor;
use crate::edge::problem::Problem;
use ledger::{DeliveryFilter, DeliveryState, Page};

/// Page of a list without filters.
///
/// # Errors
/// As [`list_query`].
pub fn page_query(uri: &Uri) -> Result<Page, Problem> {
    let parameters = Parameters::of(uri)?;
    let mut checked = Checked::default();
    checked.known(&parameters, &PAGING);
    let page = checked.page(&parameters)?;
    checked.done(page)
}

/// Page of a list that is ordered by name: how many, and after which.
///
/// # Errors
/// As [`list_query`].
pub fn name_page_query(uri: &Uri) -> Result<(i64, Option<String>), Problem> {
    let parameters = Parameters::of(uri)?;
    let mut checked = Checked::default();
    checked.known(&parameters, &PAGING);
    let limit = checked.limit(&parameters);
    let after = checked.place(&parameters, cursor::read_name)?;
    checked.done((limit, after))
}

/// `n`: a number of 1 to `most`.
///
/// # Errors
/// As [`list_query`].
pub fn count_query(uri: &Uri, default: usize, most: usize) -> Result<usize, Problem> {
    let parameters = Parameters::of(uri)?;
    let mut checked = Checked::default();
    checked.known(&parameters, &["n"]);
    let count = match checked.single(&parameters, "n").map(str::parse) {
        None => default,
        Some(Ok(count)) if (1..=most).contains(&count) => count,
        Some(_) => {
            checked.refuse("n", format!("must be 1 to {most}"));
            default
        }
    };
    checked.done(count)
}

/// Filters and page of a webhook's deliveries. Whose they are stands in the path.
///
/// # Errors
/// As [`list_query`].
pub fn delivery_query(uri: &Uri) -> Result<(DeliveryFilter, Page), Problem> {
    let parameters = Parameters::of(uri)?;
    let mut checked = Checked::default();
    checked.known(&parameters, &[&["task_id", "state"][..], &PAGING].concat());
    let task_id = checked.single(&parameters, "task_id").map(str::to_owned);
    let state = checked.single(&parameters, "state").and_then(|text| {
        let state = DeliveryState::parse(text);
        if state.is_none() {
            checked.refuse("state", "is none of pending, delivered and failed");
        }
        state
    });
    let page = checked.page(&parameters)?;
    let filter = DeliveryFilter { endpoint_id: String::new(), task_id, state };
    checked.done((filter, page))
}

/// `limit` and a numeric `cursor`: how many of a queue's messages to skip.
///
/// # Errors
/// As [`list_query`].
pub fn messages_query(uri: &Uri) -> Result<(i64, i64), Problem> {
    let parameters = Parameters::of(uri)?;
    let mut checked = Checked::default();
    checked.known(&parameters, &PAGING);
    let limit = checked.limit(&parameters);
    let cursor = checked.single(&parameters, "cursor").map(cursor::read);
    let limit = checked.done(limit)?;
    match cursor {
        None => Ok((0, limit)),
        Some(Some(cursor)) if cursor.0 >= 0 => Ok((cursor.0, limit)),
        Some(_) => Err(foreign_cursor()),
    }
}
