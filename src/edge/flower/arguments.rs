//! Arguments of a request as Tornado reads them: from the query and from a form in the body; the last value wins.

use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::response::Response;

use super::plain;
use crate::edge::extract::{Parameters, Urlencoded};
use crate::edge::problem::Problem;
use crate::edge::state::Edge;

/// The named values of a request.
pub struct Arguments(Vec<(String, String)>);

impl FromRequest<Edge> for Arguments {
    type Rejection = Problem;

    async fn from_request(request: Request, edge: &Edge) -> Result<Self, Problem> {
        let mut found = Parameters::of(request.uri())?.into_pairs();
        let Urlencoded(form) = Urlencoded::from_request(request, edge).await?;
        found.extend(form);
        Ok(Self(found))
    }
}

impl Arguments {
    /// A value; an empty one counts as missing, as in Tornado.
    pub fn text(&self, name: &str) -> Option<&str> {
        let last = self.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.trim());
        last.filter(|value| !value.is_empty())
    }

    /// # Errors
    /// 400, in Flower's form.
    pub fn needed(&self, name: &str) -> Result<&str, Box<Response>> {
        let missing = || Box::new(plain(StatusCode::BAD_REQUEST, &format!("Missing argument {name}")));
        self.text(name).ok_or_else(missing)
    }

    /// # Errors
    /// 400 when it is not a number.
    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Box<Response>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let kind = if std::any::type_name::<T>().starts_with('f') { "float" } else { "int" };
        let wrong = || Box::new(plain(StatusCode::BAD_REQUEST, &format!("Invalid argument '{text}' of type '{kind}'")));
        text.parse().map(Some).map_err(|_| wrong())
    }

    /// # Errors
    /// 400 for a word that Flower does not know.
    pub fn switch(&self, name: &str) -> Result<bool, Box<Response>> {
        match self.text(name).map(str::to_ascii_lowercase).as_deref() {
            None | Some("n" | "no" | "f" | "false" | "off" | "0") => Ok(false),
            Some("y" | "yes" | "t" | "true" | "on" | "1") => Ok(true),
            Some(other) => {
                Err(Box::new(plain(StatusCode::BAD_REQUEST, &format!("Invalid argument '{other}' of type 'bool'"))))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_flower_reads_them() {
        let pairs = [("n", "2"), ("n", "3"), ("terminate", "Yes"), ("empty", " "), ("half", "0.5")];
        let given = Arguments(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect());
        assert_eq!(given.number::<i64>("n").unwrap(), Some(3));
        assert!(given.switch("terminate").unwrap() && !given.switch("absent").unwrap());
        assert_eq!(given.text("empty"), None);
        assert!(given.number::<i64>("half").is_err() && given.number::<f64>("half").is_ok());
        assert!(given.needed("absent").is_err());
    }
}
