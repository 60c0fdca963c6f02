//! The edge over a real ledger (SQLite) and no Redis at all: what it answers must not depend on Redis.

mod batch;
mod contract;
mod hostile;
mod numbers;
mod refusals;
mod submission;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

use super::Edge;
use crate::app::App;
use crate::config::{Config, Role};
use ledger::sqlite::{SqliteLedger, Synchronous};
use runtime::lifecycle::Tasks;

const CATALOG: &str = include_str!("../../../examples/taskgate.toml");

/// A gateway without a network.
struct Bench {
    router: Router,
    _folder: tempfile::TempDir,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Bench {
    /// `extra` is TOML of top-level keys, or of further entries.
    async fn start(extra: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (keys, entries) = if extra.starts_with('[') { ("", extra) } else { (extra, "") };
        let toml = format!(
            "{keys}\n{CATALOG}\n{entries}\n[broker]\nurl = \"redis://127.0.0.1:1/0\"\n[backend]\nurl = \"redis://127.0.0.1:1/1\"\n"
        );
        let mut config = Config::parse(Role::Dev, &toml).unwrap();
        config.stores = vec![crate::config::Store::folder("default", folder.path().join("files"))];
        let tasks = Tasks::default();
        let ledger = SqliteLedger::open(folder.path().join("ledger.db"), Synchronous::Normal);
        let app = App::build(&config, std::sync::Arc::new(ledger), tasks.clone()).unwrap();
        let edge = Edge::new(&config, app.behind.clone(), tasks, None);
        let bench = Self { router: super::router(edge), _folder: folder };
        while bench.get("/readyz").await.status != StatusCode::OK {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        bench
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        Answer { status: head.status, headers: head.headers, body: body.collect().await.unwrap().to_bytes().to_vec() }
    }

    async fn get(&self, path: &str) -> Answer {
        self.get_with(path, &[]).await
    }

    async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(request("GET", path, headers, Vec::new())).await
    }

    async fn post(&self, path: &str, body: impl Into<Vec<u8>>) -> Answer {
        self.post_with(path, &[], body).await
    }

    async fn post_with(&self, path: &str, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Answer {
        let all: Vec<_> = [("content-type", "application/json")].iter().chain(headers).copied().collect();
        self.send(request("POST", path, &all, body.into())).await
    }
}

fn request(method: &str, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path).header("host", "127.0.0.1:8000");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::from(body)).unwrap()
}

impl Answer {
    #[track_caller]
    fn json(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", String::from_utf8_lossy(&self.body));
        serde_json::from_slice(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The problem document, whose media type, status and slug are as expected.
    #[track_caller]
    fn problem(&self, slug: &str) -> Value {
        let expected = super::slugs::find(slug).expect("a known slug");
        let problem = self.json(expected.status.as_u16());
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{problem}");
        assert_eq!(problem["type"], format!("/problems/{slug}"), "{problem}");
        for field in ["title", "detail", "instance"] {
            assert!(problem[field].as_str().is_some_and(|text| !text.is_empty()), "no {field} in {problem}");
        }
        problem
    }
}
