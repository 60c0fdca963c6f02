//! Query parameters of the list and of the firehose: filters and pages.

use axum::http::Uri;

use crate::edge::cursor;
use crate::edge::problem::{Place, Problem};
use crate::edge::slugs;
use celery::spelling::{distance, nearest};
use celery::task::Phase;
use ledger::{DeliveryFilter, DeliveryState, Filter, Page};
use runtime::clock::Time;

const FILTERS: [&str; 11] =
    ["status", "phase", "task", "queue", "worker", "label", "root_id", "group_id", "schedule", "from", "to"];
const SEARCH: [&str; 1] = ["q"];
const PAGING: [&str; 2] = ["limit", "cursor"];
const DEFAULT_LIMIT: i64 = 50;
const MAX_LIMIT: i64 = 500;
/// Maximum number of values of a filter.
const MAX_VALUES: usize = 100;
/// Maximum length of a search text, because it is matched against many rows.
const MAX_SEARCH: usize = 200;

/// The query's parameters, decoded, in order.
#[derive(Debug, Default)]
pub struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// # Errors
    /// When it is not UTF-8 after percent-decoding.
    pub fn of(uri: &Uri) -> Result<Self, Problem> {
        Self::read(uri.query().unwrap_or_default())
    }

    /// # Errors
    /// As [`Parameters::of`].
    pub fn read(query: &str) -> Result<Self, Problem> {
        let mut parameters = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (Some(name), Some(value)) = (decoded(name), decoded(value)) else {
                return Err(Problem::new(&slugs::INVALID_QUERY).detail("the query is not UTF-8 after percent-decoding"));
            };
            parameters.push((name, value));
        }
        Ok(Self(parameters))
    }

    pub fn into_pairs(self) -> Vec<(String, String)> {
        self.0
    }

    pub(super) fn all(&self, name: &str) -> Vec<&str> {
        self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect()
    }
}

/// Reads parameters and collects all mistakes.
#[derive(Default)]
pub(super) struct Checked {
    errors: Vec<Place>,
}

impl Checked {
    pub(super) fn refuse(&mut self, name: &str, detail: impl Into<String>) {
        self.errors.push(Place { pointer: name.to_owned(), detail: detail.into() });
    }

    pub(super) fn known(&mut self, parameters: &Parameters, known: &[&str]) {
        for (name, _) in &parameters.0 {
            if !known.contains(&name.as_str()) {
                let hint = nearest(name, known).map_or_else(String::new, |near| format!("; did you mean {near}?"));
                self.refuse(name, format!("is not a parameter of this operation{hint}"));
            }
        }
    }

    pub(super) fn one<'a>(&mut self, parameters: &'a Parameters, name: &str) -> Option<&'a str> {
        let values = parameters.all(name);
        if values.len() > 1 {
            self.refuse(name, "stands twice");
        }
        values.first().copied()
    }

    /// Reads a parameter that may be repeated or have several values separated by commas.
    pub(super) fn many(&mut self, parameters: &Parameters, name: &str) -> Vec<String> {
        let values: Vec<String> =
            parameters.all(name).iter().flat_map(|value| value.split(',')).map(str::to_owned).collect();
        if values.iter().any(String::is_empty) {
            self.refuse(name, "must not be empty");
        }
        if values.len() > MAX_VALUES {
            self.refuse(name, format!("has {} values, at most {MAX_VALUES} are allowed", values.len()));
        }
        values
    }

    pub(super) fn time(&mut self, parameters: &Parameters, name: &str) -> Option<Time> {
        let text = self.one(parameters, name)?;
        let time = Time::parse_rfc3339(text).ok();
        if time.is_none() {
            self.refuse(name, "must be an RFC 3339 time with an offset, such as 2026-11-20T18:17:30Z");
        }
        time
    }

    fn filter(&mut self, parameters: &Parameters) -> Filter {
        let phases = self.many(parameters, "phase");
        let mut phase = Vec::with_capacity(phases.len());
        for text in phases.iter().filter(|text| !text.is_empty()) {
            match text.parse::<Phase>() {
                Ok(one) => phase.push(one),
                Err(_) => {
                    let known = Phase::ALL.map(Phase::as_str);
                    self.refuse("phase", format!("{text:?} is none of {}", known.join(", ")));
                }
            }
        }
        let q = self.one(parameters, "q").map(str::to_owned);
        if q.as_ref().is_some_and(|q| q.is_empty() || q.chars().count() > MAX_SEARCH) {
            self.refuse("q", format!("must have 1 to {MAX_SEARCH} characters"));
        }
        Filter {
            status: self.status(parameters),
            phase,
            task: self.many(parameters, "task"),
            task_patterns: Vec::new(),
            queue: self.many(parameters, "queue"),
            worker: self.many(parameters, "worker"),
            labels: self.labels(parameters),
            root_id: self.one(parameters, "root_id").map(usual),
            group_id: self.one(parameters, "group_id").map(usual),
            schedule: self.one(parameters, "schedule").map(str::to_owned),
            from: self.time(parameters, "from"),
            to: self.time(parameters, "to"),
            q,
            dead_letters: false,
        }
    }

    /// Reads states, also custom ones. A probable misspelling of a Celery state, or a phase, is refused: otherwise an empty list would
    /// suggest that there are no such tasks.
    fn status(&mut self, parameters: &Parameters) -> Vec<String> {
        let words = self.many(parameters, "status");
        for word in words.iter().filter(|word| !word.is_empty()) {
            if let Some(meant) = misspelt(word) {
                self.refuse("status", format!("{word:?} is no state of a task: {meant}"));
            }
        }
        words
    }

    fn labels(&mut self, parameters: &Parameters) -> Vec<(String, String)> {
        let mut labels = Vec::new();
        for text in parameters.all("label") {
            match text.split_once(':') {
                Some((key, value)) if !key.is_empty() => labels.push((key.to_owned(), value.to_owned())),
                _ => self.refuse("label", format!("{text:?} is not key:value")),
            }
        }
        labels
    }

    /// Reads `newest`, which excludes the parameters of pages.
    fn newest(&mut self, parameters: &Parameters) -> bool {
        let newest = match self.one(parameters, "newest") {
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

    fn limit(&mut self, parameters: &Parameters) -> i64 {
        let Some(text) = self.one(parameters, "limit") else { return DEFAULT_LIMIT };
        match text.parse() {
            Ok(limit) if (1..=MAX_LIMIT).contains(&limit) => limit,
            _ => {
                self.refuse("limit", format!("must be 1 to {MAX_LIMIT}"));
                DEFAULT_LIMIT
            }
        }
    }

    pub(super) fn done<T>(self, value: T) -> Result<T, Problem> {
        if self.errors.is_empty() {
            return Ok(value);
        }
        let detail = match self.errors.as_slice() {
            [one] => format!("{}: {}", one.pointer, one.detail),
            many => format!("{} parameters do not fit", many.len()),
        };
        Err(Problem::new(&slugs::INVALID_QUERY).detail(detail).errors(self.errors))
    }
}

/// A suggestion for a probably misspelled status.
fn misspelt(word: &str) -> Option<String> {
    let known = Phase::ALL.map(Phase::status);
    if known.contains(&word) {
        return None;
    }
    if word.parse::<Phase>().is_ok() {
        return Some(format!("write phase={word}"));
    }
    let is_near = |one: &&&str| distance(word, one) <= 1;
    known.iter().find(is_near).map(|near| format!("did you mean {near}?"))
}

/// What `GET /v1/tasks` asks for.
pub struct ListQuery {
    pub filter: Filter,
    pub page: Page,
    /// Whether to return only the newest task, with all its fields.
    pub newest: bool,
}

/// Filters and page of `GET /v1/tasks`.
///
/// # Errors
/// A problem that names every wrong parameter; a different one for the cursor.
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
    checked.known(&parameters, &[&FILTERS[..], &SEARCH, &PAGING, own].concat());
    let filter = checked.filter(&parameters);
    let newest = !own.is_empty() && checked.newest(&parameters);
    let limit = checked.limit(&parameters);
    let after = place(&mut checked, &parameters, cursor::read)?;
    let page = if newest { Page { limit: 1, after: None } } else { Page { limit, after } };
    Ok(ListQuery { filter: checked.done(filter)?, page, newest })
}

/// Page of a list without filters.
///
/// # Errors
/// As [`list_query`].
pub fn page_query(uri: &Uri) -> Result<Page, Problem> {
    let parameters = Parameters::of(uri)?;
    let mut checked = Checked::default();
    checked.known(&parameters, &PAGING);
    let limit = checked.limit(&parameters);
    let after = place(&mut checked, &parameters, cursor::read)?;
    checked.done(Page { limit, after })
}

/// Page of a list that is ordered by name: its size, and the name after which it begins.
///
/// # Errors
/// As [`list_query`].
pub fn name_page_query(uri: &Uri) -> Result<(i64, Option<String>), Problem> {
    let parameters = Parameters::of(uri)?;
    let mut checked = Checked::default();
    checked.known(&parameters, &PAGING);
    let limit = checked.limit(&parameters);
    let after = place(&mut checked, &parameters, cursor::read_name)?;
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
    let count = match checked.one(&parameters, "n").map(str::parse) {
        None => default,
        Some(Ok(count)) if (1..=most).contains(&count) => count,
        Some(_) => {
            checked.refuse("n", format!("must be 1 to {most}"));
            default
        }
    };
    checked.done(count)
}

/// Where the page begins. A foreign cursor is a problem of its own, but other mistakes are reported first.
fn place<T>(
    checked: &mut Checked,
    parameters: &Parameters,
    read: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, Problem> {
    let Some(text) = checked.one(parameters, "cursor") else { return Ok(None) };
    match read(text) {
        Some(place) => Ok(Some(place)),
        None if checked.errors.is_empty() => {
            Err(Problem::new(&slugs::INVALID_CURSOR).error("cursor", "is not the `next` of an answer"))
        }
        None => Ok(None),
    }
}

/// Filters of `GET /v1/events`.
///
/// # Errors
/// As [`list_query`].
pub fn feed_filter(uri: &Uri) -> Result<Filter, Problem> {
    let parameters = Parameters::of(uri)?;
    let mut checked = Checked::default();
    checked.known(&parameters, &[&FILTERS[..], &SEARCH].concat());
    let filter = checked.filter(&parameters);
    checked.done(filter)
}

/// Filters and page of a webhook's deliveries. The webhook is named in the path.
///
/// # Errors
/// As [`list_query`].
pub fn delivery_query(uri: &Uri) -> Result<(DeliveryFilter, Page), Problem> {
    let parameters = Parameters::of(uri)?;
    let mut checked = Checked::default();
    checked.known(&parameters, &[&["task_id", "state"][..], &PAGING].concat());
    let task_id = checked.one(&parameters, "task_id").map(str::to_owned);
    let state = checked.one(&parameters, "state").and_then(|text| {
        let state = DeliveryState::parse(text);
        if state.is_none() {
            checked.refuse("state", "is none of pending, delivered and failed");
        }
        state
    });
    let limit = checked.limit(&parameters);
    let after = place(&mut checked, &parameters, cursor::read)?;
    let filter = DeliveryFilter { endpoint_id: String::new(), task_id, state };
    checked.done((filter, Page { limit, after }))
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
    let cursor = checked.one(&parameters, "cursor").map(cursor::read);
    let limit = checked.done(limit)?;
    match cursor {
        None => Ok((0, limit)),
        Some(Some(cursor)) if cursor.0 >= 0 => Ok((cursor.0, limit)),
        Some(_) => Err(Problem::new(&slugs::INVALID_CURSOR).error("cursor", "is not the `next` of an answer")),
    }
}

/// `a%20b+c` → `a b c`; `None` when the bytes are not UTF-8.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
                match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
                    Some(byte) => {
                        bytes.push(byte);
                        rest = &tail[2..];
                    }
                    None => bytes.push(b'%'),
                }
            }
            byte => bytes.push(*byte),
        }
    }
    String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}

/// An id, in the usual spelling if it is a UUID.
fn usual(id: &str) -> String {
    celery::task::TaskId::parse_uuid(id).map_or_else(|_| id.to_owned(), |id| id.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

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
