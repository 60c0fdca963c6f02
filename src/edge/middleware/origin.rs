//! Who may change something where no token is required: requests that are addressed to this machine by a name it has, and that
//! do not come from a page of another site. A web page cannot forge `Host` and `Origin`; a terminal need not.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::{HeaderMap, Method, header};

use super::forwarded::Client;
use crate::config::{self, Auth};
use crate::edge::problem::Problem;
use crate::edge::slugs;
use crate::edge::state::Edge;

/// Refuses unsafe requests of strangers.
pub fn check_request(edge: &Edge, request: &Request) -> Result<(), Problem> {
    let is_safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE);
    if is_safe || edge.auth != Auth::None {
        return Ok(());
    }
    check(&edge.http, host(request).as_deref(), request.headers())
}

/// To whom the request was addressed: what a trusted proxy says, else `Host`, else (HTTP/2 has none) the URI's authority.
fn host(request: &Request) -> Option<String> {
    let forwarded = request.extensions().get::<Client>().and_then(|client| client.host.clone());
    let given = || request.headers().get(header::HOST).and_then(|value| value.to_str().ok()).map(str::to_owned);
    forwarded.or_else(given).or_else(|| request.uri().authority().map(|authority| authority.as_str().to_owned()))
}

fn check(http: &config::Http, authority: Option<&str>, headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(authority) = authority else {
        return Err(Problem::new(&slugs::FOREIGN_HOST).detail("the request has no Host"));
    };
    if !is_ours(http, host_of(authority)) {
        return Err(Problem::new(&slugs::FOREIGN_HOST).detail(format!("{authority:?} is not a name of this gateway")));
    }
    match text(header::ORIGIN) {
        Some(origin)
            if !is_same(origin, authority) && !http.origins.iter().any(|known| known == origin || known == "*") =>
        {
            Err(Problem::new(&slugs::FOREIGN_ORIGIN).detail(format!("{origin:?} is not an origin of this gateway")))
        }
        _ => Ok(()),
    }
}

fn is_ours(http: &config::Http, host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.to_ascii_lowercase().ends_with(".localhost")
        || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
        || http.hosts.iter().any(|known| known == "*" || known.eq_ignore_ascii_case(host))
}

/// The host without its port.
fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

fn is_same(origin: &str, authority: &str) -> bool {
    origin.split_once("://").is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(authority))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Role};

    fn allowed(host: &str, origin: Option<&str>) -> bool {
        let toml = "[http]\nhosts = [\"gateway.internal\"]\norigins = [\"https://app.example\"]";
        let config = Config::parse(Role::Dev, toml).unwrap();
        let mut headers = HeaderMap::new();
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        check(&config.http, Some(host), &headers).is_ok()
    }

    #[test]
    fn addresses_localhost_and_configured_names_are_ours() {
        for host in ["127.0.0.1:8000", "[::1]:8000", "localhost", "app.localhost:1", "gateway.internal:8000"] {
            assert!(allowed(host, None), "{host}");
        }
        assert!(!allowed("evil.example:8000", None));
    }

    #[test]
    fn pages_of_other_sites_are_refused_unless_configured() {
        assert!(allowed("127.0.0.1:8000", Some("http://127.0.0.1:8000")));
        assert!(allowed("127.0.0.1:8000", Some("https://app.example")));
        assert!(!allowed("127.0.0.1:8000", Some("http://evil.example")));
        assert!(!allowed("127.0.0.1:8000", Some("http://127.0.0.1:9000")));
        assert!(!allowed("127.0.0.1:8000", Some("null")));
    }
}
