//! Protects a gateway without tokens from web pages: requests must be addressed to a known name of this machine, and requests that
//! change something must not come from another site's page. A web page cannot forge `Host` and `Origin`.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, header};

use super::forwarded::Client;
use crate::config::{self, Auth};
use crate::edge::problem::Problem;
use crate::edge::slugs;
use crate::edge::state::Edge;

/// Probes may use any host name, because load balancers do, and they learn only that the process runs.
const PROBES: [&str; 3] = ["/livez", "/readyz", "/healthz"];

/// Refuses requests to an unknown host, and unsafe requests from other sites.
pub fn check_request(edge: &Edge, request: &Request) -> Result<(), Problem> {
    if edge.auth != Auth::None || PROBES.contains(&request.uri().path()) {
        return Ok(());
    }
    let authority = check_host(&edge.http, host(request))?;
    match *request.method() {
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE => Ok(()),
        _ => check_origin(&edge.http, authority, request.headers()),
    }
}

/// The host that the request is addressed to: from a trusted proxy, else `Host`, else (in HTTP/2) the URI's authority.
fn host(request: &Request) -> Option<&str> {
    let forwarded = request.extensions().get::<Client>().and_then(|client| client.host.as_deref());
    let given = || request.headers().get(header::HOST).and_then(|value| value.to_str().ok());
    forwarded.or_else(given).or_else(|| request.uri().authority().map(Authority::as_str))
}

/// Checks the host. Otherwise a page of another site whose name is made to point here (DNS rebinding) could read everything.
fn check_host<'a>(http: &config::Http, authority: Option<&'a str>) -> Result<&'a str, Problem> {
    let Some(authority) = authority else {
        return Err(Problem::new(&slugs::FOREIGN_HOST).detail("the request has no Host"));
    };
    if !is_ours(http, host_of(authority)) {
        return Err(Problem::new(&slugs::FOREIGN_HOST).detail(format!("{authority:?} is not a name of this gateway")));
    }
    Ok(authority)
}

fn check_origin(http: &config::Http, authority: &str, headers: &HeaderMap) -> Result<(), Problem> {
    match headers.get(header::ORIGIN).and_then(|value| value.to_str().ok()) {
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
        || host.rsplit_once('.').is_some_and(|(_, top)| top.eq_ignore_ascii_case("localhost"))
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
        let checked = check_host(&config.http, Some(host)).and_then(|host| check_origin(&config.http, host, &headers));
        checked.is_ok()
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
