//! Paths of an entry: its endpoint `POST /run-crawler/{category}`, and the stream of its tasks `GET /stream/{id}`.

use super::template::{Part, parts};

/// First path segments that belong to the gateway itself.
pub const RESERVED: [&str; 17] = [
    "mcp",
    "v1",
    "result",
    "chain",
    "group",
    "chord",
    "readyz",
    "livez",
    "healthz",
    "docs",
    "metrics",
    "openapi.json",
    "swagger-ui",
    "dashboard",
    "problems",
    "sample-site",
    "favicon.ico",
];

/// Fields of the answer to a submission. Path parameters are repeated in the answer, so they may not have these names.
pub const ANSWER_FIELDS: [&str; 13] = [
    "task_id",
    "group_id",
    "status",
    "phase",
    "task",
    "queue",
    "message",
    "children",
    "links",
    "deduplicated",
    "count",
    "warnings",
    "replaced",
];

/// The method of a path in the catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Submits a task.
    Post,
    /// Follows a task.
    Get,
}

impl Method {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Post => "POST",
            Self::Get => "GET",
        }
    }
}

/// A path with parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// As written: `/run-crawler/{category}`.
    pub path: String,
    /// Parameters in order.
    pub params: Vec<String>,
}

impl Endpoint {
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn parse(text: &str, wanted: Method) -> Result<Self, String> {
        let (method, path) = text
            .trim()
            .split_once(' ')
            .ok_or_else(|| format!("write a method and a path, as {} /add", wanted.as_str()))?;
        match wanted {
            Method::Post if method != "POST" => {
                return Err(format!("{method} cannot submit a task: only POST is supported"));
            }
            Method::Get if method != "GET" => {
                return Err(format!("{method} cannot follow a task: only GET is supported"));
            }
            Method::Post | Method::Get => {}
        }
        let path = path.trim();
        let segments = path.strip_prefix('/').filter(|rest| !rest.is_empty()).ok_or("the path must begin with /")?;
        let mut params = Vec::new();
        for segment in segments.split('/') {
            if let Some(param) = param(segment)? {
                if params.contains(&param) {
                    return Err(format!("{{{param}}} stands twice in the path"));
                }
                params.push(param);
            }
        }
        let endpoint = Self { path: path.to_owned(), params };
        endpoint.checked(wanted)
    }

    fn checked(self, wanted: Method) -> Result<Self, String> {
        let first = self.first_segment();
        if RESERVED.contains(&first) {
            return Err(format!("/{first} belongs to the gateway itself"));
        }
        if first.starts_with('{') {
            return Err(
                "the first part of the path must be a word: a parameter there would answer for every path".to_owned()
            );
        }
        let is_answered = |param: &&String| wanted == Method::Post && ANSWER_FIELDS.contains(&param.as_str());
        if let Some(param) = self.params.iter().find(is_answered) {
            return Err(format!(
                "the parameter {{{param}}} has the name of a field of the answer, where it is shown too"
            ));
        }
        Ok(self)
    }

    fn first_segment(&self) -> &str {
        self.path[1..].split('/').next().unwrap_or_default()
    }

    /// Equal for two paths that match the same requests.
    pub fn shape(&self) -> String {
        self.path
            .split('/')
            .map(|segment| if segment.starts_with('{') { "{}" } else { segment })
            .collect::<Vec<_>>()
            .join("/")
    }
}

/// The parameter that fills this segment, if it is one.
fn param(segment: &str) -> Result<Option<String>, String> {
    match parts(segment).map_err(|error| error.to_string())?.as_slice() {
        [Part::Name(name)] if name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') => Ok(Some(name.clone())),
        [Part::Name(name)] => Err(format!("{{{name}}}: a parameter's name has letters, digits and _ only")),
        [Part::Text(text)] if text.chars().all(|c| c.is_ascii_alphanumeric() || "-._~".contains(c)) => Ok(None),
        [Part::Text(text)] => Err(format!("{text:?}: a part of a path has letters, digits and -._~ only")),
        [] => Err("a part of the path is empty".to_owned()),
        _ => Err(format!("{segment:?}: a parameter must fill the whole part between two slashes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_has_a_path_with_parameters() {
        let endpoint = Endpoint::parse("POST /run-crawler/{category}", Method::Post).unwrap();
        assert_eq!(endpoint.path, "/run-crawler/{category}");
        assert_eq!(endpoint.params, ["category"]);
        assert_eq!(endpoint.shape(), "/run-crawler/{}");
    }

    #[test]
    fn what_cannot_be_served_is_refused_with_a_reason() {
        for (text, reason) in [
            ("GET /add", "only POST"),
            ("/add", "method"),
            ("POST add", "begin with /"),
            ("POST /v1/add", "belongs to the gateway"),
            ("POST /result/{x}", "belongs to the gateway"),
            ("POST /{x}", "every path"),
            ("POST /add/{task_id}", "field of the answer"),
            ("POST /add/{x}/{x}", "twice"),
            ("POST /add/{x}.json", "whole part"),
            ("POST /add/{*rest}", "letters"),
            ("POST /a b", "letters"),
            ("POST /add/", "empty"),
        ] {
            let error = Endpoint::parse(text, Method::Post).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
