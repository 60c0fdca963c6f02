//! Reads single parameters and notes everything that is wrong with them, so that one answer names it all.

use super::parameters::Parameters;
use crate::edge::cursor;
use crate::edge::problem::{Place, Problem};
use crate::edge::slugs;
use celery::spelling::nearest;
use celery::task::invalid::MAX_FOUND;
use ledger::Page;
use runtime::clock::Time;

pub(super) const PAGING: [&str; 2] = ["limit", "cursor"];
const DEFAULT_LIMIT: i64 = 50;
const MAX_LIMIT: i64 = 500;
/// A filter by more values than this is a mistake.
const MAX_VALUES: usize = 100;
/// Further mistakes are not noted.
const MAX_NOTED: usize = MAX_FOUND;

/// Notes everything that is wrong.
#[derive(Default)]
pub(in crate::edge::extract) struct Checked {
    errors: Vec<Place>,
}

impl Checked {
    pub(in crate::edge::extract) fn refuse(&mut self, name: &str, detail: impl Into<String>) {
        if self.errors.len() < MAX_NOTED {
            self.errors.push(Place { pointer: name.to_owned(), detail: detail.into() });
        }
    }

    pub(in crate::edge::extract) fn known(&mut self, parameters: &Parameters, known: &[&str]) {
        for name in parameters.names() {
            if self.errors.len() >= MAX_NOTED {
                return;
            }
            if !known.contains(&name) {
                let hint = nearest(name, known).map_or_else(String::new, |near| format!("; did you mean {near}?"));
                self.refuse(name, format!("is not a parameter of this operation{hint}"));
            }
        }
    }

    pub(in crate::edge::extract) fn single<'a>(&mut self, parameters: &'a Parameters, name: &str) -> Option<&'a str> {
        let values = parameters.all(name);
        if values.len() > 1 {
            self.refuse(name, "stands twice");
        }
        values.first().copied()
    }

    /// Repeated or with commas.
    pub(in crate::edge::extract) fn many(&mut self, parameters: &Parameters, name: &str) -> Vec<String> {
        let values: Vec<String> =
            parameters.all(name).iter().flat_map(|value| value.split(',')).map(str::to_owned).collect();
        if values.iter().any(String::is_empty) {
            self.refuse(name, "must not be empty");
        }
        if values.len() > MAX_VALUES {
            self.refuse(name, format!("has {} values, at most {MAX_VALUES} are allowed", values.len()));
            return Vec::new();
        }
        values
    }

    pub(in crate::edge::extract) fn time(&mut self, parameters: &Parameters, name: &str) -> Option<Time> {
        let text = self.single(parameters, name)?;
        let time = Time::parse_rfc3339(text).ok();
        if time.is_none() {
            self.refuse(name, "must be an RFC 3339 time with an offset, as 2026-11-20T18:17:30Z");
        }
        time
    }

    pub(super) fn limit(&mut self, parameters: &Parameters) -> i64 {
        let Some(text) = self.single(parameters, "limit") else { return DEFAULT_LIMIT };
        match text.parse() {
            Ok(limit) if (1..=MAX_LIMIT).contains(&limit) => limit,
            _ => {
                self.refuse("limit", format!("must be 1 to {MAX_LIMIT}"));
                DEFAULT_LIMIT
            }
        }
    }

    /// Where the page begins. A cursor of something else is a problem of its own, but other mistakes come first.
    pub(super) fn place<T>(
        &mut self,
        parameters: &Parameters,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, Problem> {
        let Some(text) = self.single(parameters, "cursor") else { return Ok(None) };
        match read(text) {
            Some(place) => Ok(Some(place)),
            None if self.errors.is_empty() => Err(foreign_cursor()),
            None => Ok(None),
        }
    }

    /// The page of a list: how many, and after which.
    pub(super) fn page(&mut self, parameters: &Parameters) -> Result<Page, Problem> {
        let limit = self.limit(parameters);
        Ok(Page { limit, after: self.place(parameters, cursor::read)? })
    }

    pub(in crate::edge::extract) fn done<T>(self, value: T) -> Result<T, Problem> {
        if self.errors.is_empty() {
            return Ok(value);
        }
        let detail = match self.errors.as_slice() {
            [place] => format!("{}: {}", place.pointer, place.detail),
            many => format!("{} parameters do not fit", many.len()),
        };
        Err(Problem::new(&slugs::INVALID_QUERY).detail(detail).errors(self.errors))
    }
}

/// The cursor of another list, or none at all.
pub(super) fn foreign_cursor() -> Problem {
    Problem::new(&slugs::INVALID_CURSOR).error("cursor", "is not the `next` of an answer")
}
