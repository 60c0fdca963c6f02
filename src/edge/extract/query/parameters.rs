//! The parameters of a query, decoded: bytes that are no UTF-8, or a NUL among them, are refused and never replaced.

use std::borrow::Cow;

use axum::http::Uri;
use percent_encoding::percent_decode_str;

use crate::edge::problem::Problem;
use crate::edge::slugs;

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

    pub(in crate::edge::extract) fn all(&self, name: &str) -> Vec<&str> {
        self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }
}

/// `a%20b+c` → `a b c`; `None` when the bytes are not UTF-8. `form_urlencoded` would put a replacement character there.
fn decoded(text: &str) -> Option<String> {
    let spaced = text.replace('+', " ");
    let text = percent_decode_str(&spaced).decode_utf8().ok().map(Cow::into_owned)?;
    (!text.contains('\0')).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded_as_a_form_is() {
        let read = |query: &str| Parameters::read(query).map(Parameters::into_pairs);
        let pair = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
        for (query, name, value) in [
            ("q=a%20b+c", "q", "a b c"),
            ("q=100%", "q", "100%"),
            ("q=%zz%2", "q", "%zz%2"),
            ("a%3Db=c=d", "a=b", "c=d"),
            ("q=%E2%98%83", "q", "☃"),
            ("&&q&", "q", ""),
        ] {
            assert_eq!(read(query).unwrap(), pair(name, value), "{query}");
        }
        for query in ["q=%FF", "q=%C0%80", "q=a%00b", "%FF=q"] {
            assert!(read(query).is_err(), "{query}");
        }
    }
}
