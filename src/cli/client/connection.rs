//! The HTTP client of the commands, and its failures.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use reqwest::{Method, RequestBuilder, Response};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;
use serde_json::value::RawValue;

use super::profile;
use super::show::line;
use super::{At, Output};
use celery::task::json::Fields;

/// Where `serve` and `dev` listen by default.
const USUAL: &str = "http://127.0.0.1:8000";
const CONNECT: Duration = Duration::from_secs(10);
/// Timeout of a request without `Prefer: wait`.
const ANSWER: Duration = Duration::from_secs(60);
/// A stream that is silent for longer is broken: its heartbeat is 15 s by default.
pub const SILENCE: Duration = Duration::from_secs(120);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("{0}")]
    Unreachable(String),
    /// The gateway refused; this is its text.
    #[error("{0}")]
    Refused(String),
    /// The failure is on this side; the gateway was not asked.
    #[error("{0}")]
    Here(String),
    /// The command line is invalid.
    #[error("{0}")]
    Usage(String),
}

/// A connection to one gateway.
pub struct Client {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
    /// Print the answer as JSON, on one line or a line for each item.
    pub json: bool,
    pub output: Output,
    /// The time zone in which times are shown.
    zone: TimeZone,
}

/// A successful answer.
#[derive(Debug)]
pub struct Answer {
    pub text: String,
}

impl Client {
    pub fn new(at: &At) -> Result<Self, Failure> {
        let profile = profile::load(at.profile.as_deref())?;
        // The default profile's token belongs to its own gateway, not to a URL that was given.
        let profile_counts = at.url.is_none() || at.profile.is_some();
        let given = at.url.clone().or(profile.url).unwrap_or_else(|| USUAL.to_owned());
        let base = given.trim_end_matches('/').to_owned();
        let is_address = |url: &reqwest::Url| matches!(url.scheme(), "http" | "https") && url.has_host();
        if !reqwest::Url::parse(&base).is_ok_and(|url| is_address(&url)) {
            return Err(Failure::Usage(format!(
                "{base:?} is not an address of a gateway, such as https://gate.example"
            )));
        }
        let token = at.token.clone().or(profile.token.filter(|_| profile_counts));
        let ca = at.ca.clone().or(profile.ca.filter(|_| profile_counts));
        let output = if at.json { Output::Json } else { at.output };
        let zone = if at.utc { TimeZone::UTC } else { TimeZone::system() };
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls(ca.as_deref())?)
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("taskgate/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Failure::Here(chain(&error)))?;
        Ok(Self { http, base, token, json: output != Output::Table, output, zone })
    }

    pub async fn get(&self, path: &str) -> Result<Answer, Failure> {
        self.answer(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, headers: &[(&str, &str)], body: String) -> Result<Answer, Failure> {
        let mut request = self.request(Method::POST, path).header("content-type", "application/json").body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.answer(request).await
    }

    pub async fn put(&self, path: &str, body: String) -> Result<Answer, Failure> {
        self.answer(self.request(Method::PUT, path).header("content-type", "application/json").body(body)).await
    }

    /// Sends a JSON merge patch.
    pub async fn patch(&self, path: &str, body: String) -> Result<Answer, Failure> {
        self.answer(self.request(Method::PATCH, path).header("content-type", "application/json").body(body)).await
    }

    pub async fn delete(&self, path: &str) -> Result<Answer, Failure> {
        self.answer(self.request(Method::DELETE, path)).await
    }

    /// Prints the answer for a script, or `words` for a person.
    pub fn tell(&self, answer: &Answer, words: &str) {
        if self.json { line(&answer.text) } else { eprintln!("{words}") }
    }

    /// Tells how to ask for the next page, if there is one.
    pub fn tell_next(&self, answer: &Answer) {
        if let Some(next) = answer.text_of("next").filter(|_| !self.json) {
            eprintln!("more: --cursor {next}");
        }
    }

    /// A time without fractions of a second, in the chosen zone.
    pub fn when(&self, value: &Value) -> String {
        value.as_str().map_or_else(String::new, |text| local(text, &self.zone))
    }

    /// A stream of events, from after `last` on.
    pub async fn stream(&self, path: &str, last: Option<&str>) -> Result<Response, Failure> {
        let request = self.request(Method::GET, path).header("accept", "text/event-stream");
        let request = match last {
            Some(last) => request.header("last-event-id", last),
            None => request,
        };
        let response = self.send(request).await?;
        if response.status().is_success() { Ok(response) } else { Err(refusal(response).await) }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn answer(&self, request: RequestBuilder) -> Result<Answer, Failure> {
        let response = self.send(request.timeout(ANSWER)).await?;
        if !response.status().is_success() {
            return Err(refusal(response).await);
        }
        let text = response.text().await.map_err(|error| self.unreachable(&error))?;
        Ok(Answer { text })
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, Failure> {
        request.send().await.map_err(|error| self.unreachable(&error))
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        if error.is_builder() {
            return Failure::Here(chain(error));
        }
        Failure::Unreachable(format!("{} does not answer: {}", self.base, chain(error)))
    }
}

impl Answer {
    /// A member as the gateway wrote it: numbers keep all their digits.
    pub fn member(&self, name: &str) -> Option<Box<RawValue>> {
        Fields::parse(&self.text).ok()?.get(name).map(RawValue::to_owned)
    }

    pub fn text_of(&self, name: &str) -> Option<String> {
        Fields::parse(&self.text).ok()?.text(name)
    }
}

/// Reads a refusal: the problem's title, its detail and the fields that it names.
async fn refusal(response: Response) -> Failure {
    let status = response.status().as_u16();
    let text = response.text().await.unwrap_or_default();
    let words = match Fields::parse(&text) {
        Ok(problem) => {
            let title = problem.text("title").unwrap_or_else(|| format!("the answer is {status}"));
            let detail = problem.text("detail").map(|detail| format!(": {detail}")).unwrap_or_default();
            let places = problem.get("errors").map(places).unwrap_or_default();
            format!("{title}{detail}{places}")
        }
        Err(_) => format!("the answer is {status}, and it is not from a gateway"),
    };
    if matches!(status, 502..=504) { Failure::Unreachable(words) } else { Failure::Refused(words) }
}

fn places(errors: &RawValue) -> String {
    let errors: Vec<serde_json::Value> = serde_json::from_str(errors.get()).unwrap_or_default();
    let place = |error: &serde_json::Value| {
        let text = |name| error[name].as_str().unwrap_or_default().to_owned();
        format!("\n  {}: {}", text("pointer"), text("detail"))
    };
    errors.iter().map(place).collect()
}

fn tls(ca: Option<&Path>) -> Result<rustls::ClientConfig, Failure> {
    let mut roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(path) = ca {
        let unusable = |error: String| Failure::Here(format!("{}: {error}", path.display()));
        let found = CertificateDer::pem_file_iter(path).map_err(|error| unusable(error.to_string()))?;
        for certificate in found {
            let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
            roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(config.expect("ring speaks TLS 1.2 and 1.3").with_root_certificates(roots).with_no_client_auth())
}

/// `2026-11-20T18:17:30+09:00`, with `Z` where the zone is UTC; a text that is not a time stays as it is.
fn local(text: &str, zone: &TimeZone) -> String {
    let Ok(at) = text.parse::<jiff::Timestamp>() else { return text.to_owned() };
    let local = at.to_zoned(zone.clone());
    if local.offset().is_zero() {
        format!("{}Z", local.strftime("%Y-%m-%dT%H:%M:%S"))
    } else {
        local.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
    }
}

/// An error with its causes, because the cause is what helps the reader.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_in_the_zone_that_was_asked_for() {
        let text = "2026-11-20T18:17:30.123456Z";
        assert_eq!(local(text, &TimeZone::UTC), "2026-11-20T18:17:30Z");
        assert_eq!(local(text, &TimeZone::get("Asia/Seoul").unwrap()), "2026-11-21T03:17:30+09:00");
        assert_eq!(local("soon", &TimeZone::UTC), "soon");
    }
}
