//! The request body as JSON text: its type, size, encoding and depth are checked, its content is not.
//!
//! A body that is too large is answered at once; the middleware `unread` reads the rest of it. Limits apply while the body is read,
//! and to the unpacked size of a compressed body.

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use http_body_util::BodyExt;

use super::packed::{Coding, Misfit};
use crate::config::Limits;
use crate::edge::problem::Problem;
use crate::edge::slugs;
use crate::edge::state::Edge;
use runtime::heavy;

/// The body's text, not yet parsed; empty when there is no body.
#[derive(Debug)]
pub struct JsonText(pub String);

impl FromRequest<Edge> for JsonText {
    type Rejection = Problem;

    async fn from_request(request: Request, edge: &Edge) -> Result<Self, Problem> {
        let (head, body) = request.into_parts();
        let bytes = match tokio::time::timeout(edge.http.request_timeout, read(body, &head.headers, edge)).await {
            Ok(bytes) => bytes?,
            Err(_) => return Err(Problem::new(&slugs::REQUEST_TIMEOUT)),
        };
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self(String::new()));
        }
        if bytes != b"{}" {
            check_type(&head.headers)?;
        }
        let (depth, width) = (edge.limits.depth, edge.limits.width);
        let text = heavy::run(bytes.len(), move || checked(bytes, depth, width)).await?;
        Ok(Self(text))
    }
}

/// Checks the bytes of a whole JSON text.
pub fn json_text(bytes: Vec<u8>, limits: &Limits) -> Result<String, Problem> {
    checked(bytes, limits.depth, limits.width)
}

pub(super) fn checked(bytes: Vec<u8>, depth: usize, width: usize) -> Result<String, Problem> {
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Problem::new(&slugs::INVALID_JSON).detail(format!("the body is not UTF-8: byte {at} is wrong"))
    })?;
    check_shape(&text, depth, width)?;
    check_surrogates(&text)?;
    Ok(text)
}

pub(super) async fn read(mut body: Body, headers: &HeaderMap, edge: &Edge) -> Result<Vec<u8>, Problem> {
    let limit = edge.limits.body;
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > limit) {
        return Err(too_large(limit));
    }
    let mut coding = Coding::of(headers, limit)?;
    let mut bytes = Vec::with_capacity(announced.unwrap_or(0));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Problem::new(&slugs::INVALID_JSON).detail("the body did not arrive whole").caused_by(error)
        })?;
        let Ok(mut data) = frame.into_data() else { continue };
        while !data.is_empty() {
            let part = coding.slice(&mut data);
            coding.unpack(&part, &mut bytes).map_err(|misfit| unfit(&misfit, limit))?;
            if bytes.len() > limit {
                return Err(too_large(limit));
            }
            coding.breathe().await;
        }
    }
    coding.end(&mut bytes).map_err(|misfit| unfit(&misfit, limit))?;
    if bytes.len() > limit { Err(too_large(limit)) } else { Ok(bytes) }
}

pub(super) fn unfit(misfit: &Misfit, limit: usize) -> Problem {
    match misfit {
        Misfit::TooLarge => too_large(limit),
        Misfit::Broken => Problem::new(&slugs::INVALID_JSON).detail("the body is called gzip and cannot be unpacked"),
    }
}

pub(super) fn too_large(limit: usize) -> Problem {
    Problem::new(&slugs::PAYLOAD_TOO_LARGE).detail(format!("the body has more than {limit} bytes"))
}
fn check_type(headers: &HeaderMap) -> Result<(), Problem> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json")) {
        return Ok(());
    }
    let detail = if given.is_empty() { "Content-Type is missing".to_owned() } else { format!("{given:?} is not JSON") };
    Err(Problem::new(&slugs::UNSUPPORTED_MEDIA_TYPE).detail(detail))
}

/// Counts brackets and commas outside of strings, so that later readers neither recurse without bound nor get more members than
/// fit into memory.
fn check_shape(text: &str, depth: usize, width: usize) -> Result<(), Problem> {
    let (mut in_string, mut escaped) = (false, false);
    // The number of members of each open array and object: one more than its commas.
    let mut open: Vec<usize> = Vec::new();
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                open.push(1);
                if open.len() > depth {
                    return Err(Problem::new(&slugs::INVALID_JSON)
                        .detail(format!("the body is nested deeper than {depth} levels"))
                        .error(place(&text[..at]), "is one level too deep"));
                }
            }
            b'}' | b']' if !in_string => drop(open.pop()),
            b',' if !in_string => {
                if let Some(members) = open.last_mut() {
                    *members += 1;
                    if *members > width {
                        return Err(Problem::new(&slugs::INVALID_JSON)
                            .detail(format!("an array or object of the body has more than {width} members"))
                            .error(place(&text[..=at]), "is one member too many"));
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// The JSON Pointer of the value that begins after `text`.
fn place(text: &str) -> String {
    let (mut path, mut word, mut in_string, mut escaped): (Vec<Result<String, usize>>, _, _, _) =
        (Vec::new(), 0..0, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' if in_string => (word.end, in_string) = (at + 1, false),
            b'"' => (word, in_string) = (at..at, true),
            _ if in_string => {}
            b'{' => path.push(Ok(String::new())),
            b'[' => path.push(Err(0)),
            b'}' | b']' => drop(path.pop()),
            b',' => {
                if let Some(Err(index)) = path.last_mut() {
                    *index += 1;
                }
            }
            b':' => {
                if let Some(Ok(name)) = path.last_mut() {
                    *name = serde_json::from_str(&text[word.clone()]).unwrap_or_default();
                }
            }
            _ => {}
        }
    }
    let step = |step: &Result<String, usize>| match step {
        Ok(name) => format!("/{}", name.replace('~', "~0").replace('/', "~1")),
        Err(index) => format!("/{index}"),
    };
    path.iter().map(step).collect()
}

/// Refuses escaped lone surrogates: Python could neither print nor store them.
fn check_surrogates(text: &str) -> Result<(), Problem> {
    if !text.contains("\\u") {
        return Ok(());
    }
    let bytes = text.as_bytes();
    let mut at = 0;
    let mut open = None;
    while at < bytes.len() {
        let unit = (bytes[at] == b'\\').then(|| unit_at(bytes, at)).flatten();
        match (open, unit) {
            (None, Some(0xD800..=0xDBFF)) => open = Some(at),
            (Some(_), Some(0xDC00..=0xDFFF)) => open = None,
            (Some(half), _) => return Err(lone_surrogate(half)),
            (None, Some(0xDC00..=0xDFFF)) => return Err(lone_surrogate(at)),
            (None, _) => {}
        }
        at += match (bytes[at], unit) {
            (_, Some(_)) => 6,
            (b'\\', None) => 2,
            _ => 1,
        };
    }
    open.map_or(Ok(()), |half| Err(lone_surrogate(half)))
}

/// The code unit of `\\uXXXX` at this place.
fn unit_at(bytes: &[u8], at: usize) -> Option<u16> {
    let escape = bytes.get(at..at + 6).filter(|escape| escape[1] == b'u')?;
    u16::from_str_radix(std::str::from_utf8(&escape[2..]).ok()?, 16).ok()
}

fn lone_surrogate(at: usize) -> Problem {
    Problem::new(&slugs::INVALID_JSON).detail(format!("the body has half a surrogate pair at byte {at}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn surrogates_come_in_pairs() {
        assert!(check_surrogates(r#""\ud83d\ude80 \\ud800 \n""#).is_ok());
        for text in
            [r#""\ud800""#, r#""\ude80""#, r#""\ud800x""#, r#""\ud800\n""#, r#""\ud83d\ud83d\ude80""#, r"\ud800"]
        {
            assert!(check_surrogates(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_too_deep_or_too_wide_is_named() {
        let named = |text: &str| check_shape(text, 2, 3).unwrap_err().places()[0].pointer.clone();
        assert_eq!(named(r#"{"a/b": [1, {"c,:": 2}]}"#), "/a~1b/1");
        assert_eq!(named(r#"[["x"], [2, "\"[", []]]"#), "/1/2");
        assert_eq!(named(r#"{"x": {"y": 1}, "z": {"q": [3], "r": 1}}"#), "/z/q");
        assert_eq!(named(r#"{"x": 1, "z": [1, 2, 3, 4]}"#), "/z/3");
    }

    #[test]
    fn depth_and_width_are_counted_outside_of_strings() {
        assert!(check_shape(r#"["[[[[\"[[", [1]]"#, 2, 9).is_ok());
        assert!(check_shape("[[[1]]]", 2, 9).is_err());
        assert!(check_shape("[[1],[2],[3]]", 2, 9).is_ok());
        assert!(check_shape("[1,2,3]", 2, 3).is_ok() && check_shape("[1,2,3,4]", 2, 3).is_err());
        assert!(check_shape("[[1,2],[1,2]]", 2, 2).is_ok(), "each for itself");
        assert!(check_shape(r#"{"a":",,,,", "b": [","]}"#, 2, 2).is_ok());
    }
}
