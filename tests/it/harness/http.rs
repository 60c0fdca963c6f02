//! The tests' HTTP client: one call, one answer, and the answer's body in every failure.

use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Client, ClientBuilder, Method};
use serde_json::Value;

use super::sse::Sse;
use super::wait::eventually;

/// Longer than any `Prefer: wait` that a test uses.
const TIMEOUT: Duration = Duration::from_secs(70);

#[derive(Clone)]
pub struct Http {
    client: Client,
    pub base: String,
}

/// Every client of a test is built here: the cryptography must be chosen first, and tests run in any order.
pub fn client() -> ClientBuilder {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().no_proxy()
}

impl Http {
    pub fn new(base: String) -> Self {
        // No connection is kept: a test that restarts the gateway would be given a broken one.
        let client = client().pool_max_idle_per_host(0).redirect(reqwest::redirect::Policy::none());
        Self { client: client.build().expect("a plain client can be built"), base }
    }

    /// A gateway that is too busy for an answer in time is asked again, as it says.
    pub async fn get(&self, path: &str) -> Answer {
        eventually(&format!("GET {path} is answered"), async || {
            let answer = self.send(Method::GET, path, &[], None).await;
            (!answer.is_too_busy()).then_some(answer)
        })
        .await
    }

    pub async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(Method::GET, path, headers, None).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_with(path, &[], body).await
    }

    pub async fn post_with(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        let mut all = vec![("content-type", "application/json")];
        all.extend_from_slice(headers);
        self.send(Method::POST, path, &all, Some(body.to_string().into_bytes())).await
    }

    /// As [`Http::post`], with a key, so that it can be repeated when the gateway is too busy.
    pub async fn post_once(&self, path: &str, body: &Value) -> Answer {
        let key = uuid::Uuid::now_v7().to_string();
        eventually(&format!("POST {path} is answered"), async || {
            let answer = self.post_with(path, &[("idempotency-key", &key)], body).await;
            (!answer.is_too_busy()).then_some(answer)
        })
        .await
    }

    /// Any call, any bytes.
    ///
    /// # Panics
    /// When no complete answer comes.
    pub async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Option<Vec<u8>>) -> Answer {
        self.try_send(method.clone(), path, headers, body)
            .await
            .unwrap_or_else(|error| panic!("{method} {path}: {error:?}"))
    }

    /// As [`Http::send`], for peers that may be away.
    pub async fn try_send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Vec<u8>>,
    ) -> Result<Answer, reqwest::Error> {
        let what = format!("{method} {path}");
        let mut request = self.client.request(method, format!("{}{path}", self.base)).timeout(TIMEOUT);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.body(body.unwrap_or_default()).send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Answer { what, status, headers, body: response.bytes().await?.to_vec() })
    }

    /// Opens a stream of server-sent events.
    ///
    /// # Panics
    /// When the answer is not 200 `text/event-stream`.
    pub async fn events(&self, path: &str, headers: &[(&str, &str)]) -> Sse {
        let mut request = self.client.get(format!("{}{path}", self.base)).header("accept", "text/event-stream");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.expect("the gateway answers");
        assert_eq!(response.status().as_u16(), 200, "GET {path}: {:?}", response.text().await);
        let kind = response.headers()["content-type"].to_str().expect("a text").to_owned();
        assert!(kind.starts_with("text/event-stream"), "GET {path}: {kind}");
        Sse::new(response)
    }
}

#[derive(Debug)]
pub struct Answer {
    pub what: String,
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{}: {error} in {}", self.what, self.text()))
    }

    /// The database did not answer in time, so the answer says nothing about the request.
    pub fn is_too_busy(&self) -> bool {
        self.status == 503 && self.text().contains("/problems/ledger-unavailable")
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body, if the status is this one.
    ///
    /// # Panics
    /// Otherwise, with the body.
    #[track_caller]
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}: {}", self.what, self.text());
        if self.body.is_empty() { Value::Null } else { self.json() }
    }

    /// The problem document of a refusal: checks the media type, `status`, and that `type` names `slug`.
    #[track_caller]
    pub fn problem(&self, status: u16, slug: &str) -> Value {
        let problem = self.expect(status);
        let kind = self.header("content-type").unwrap_or_default();
        assert!(kind.starts_with("application/problem+json"), "{}: {kind}", self.what);
        assert_eq!(problem["status"], status, "{}: {problem}", self.what);
        assert_eq!(problem["type"], format!("/problems/{slug}"), "{}: {problem}", self.what);
        problem
    }
}
