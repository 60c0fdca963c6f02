//! The edge: access, HTTP, the routes, and the client.

mod client;
mod commands;
pub mod http;
mod http2;
mod routes;
mod tokens;

use std::sync::OnceLock;

use serde_json::Value;

use crate::harness::gateway::run;
use crate::harness::postgres::cluster;
use crate::harness::{Answer, Gateway, Http, Redis, RedisOptions};

/// Two replicas that require tokens, on one ledger and one Redis, without a worker.
pub struct Guarded {
    pub gateways: [Gateway; 2],
    _redis: Redis,
    pub database: String,
    /// A token with every scope.
    pub admin: String,
}

impl Guarded {
    /// Used by several tests at once: leave it as it is.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Guarded> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    fn start() -> Self {
        let redis = Redis::start(RedisOptions::default());
        let database = cluster().migrated_database();
        let admin = create(&database, &["--name", "admin", "--scope", "admin"]);
        let launch = || Gateway::launch(&database, &redis.url(0), &redis.url(1), "auth = 'token'");
        let mut gateways = [launch(), launch()];
        gateways.iter_mut().for_each(Gateway::wait_until_ready);
        Self { gateways, _redis: redis, database, admin }
    }

    pub fn token(&self, options: &[&str]) -> String {
        create(&self.database, options)
    }

    /// A client of one of the replicas, with a token.
    pub fn caller(&self, replica: usize, token: &str) -> Caller {
        Caller { http: self.gateways[replica].http(), token: format!("Bearer {token}") }
    }
}

/// `taskgate token create`: the token.
///
/// # Panics
/// With its output, when it fails.
pub fn create(database: &str, options: &[&str]) -> String {
    let words: Vec<&str> = ["token", "create"].iter().chain(options).copied().collect();
    let done = run(&words, &[("DATABASE_URL", database)]);
    assert!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).expect("a text").trim().to_owned()
}

/// A caller with a token.
pub struct Caller {
    pub http: Http,
    pub token: String,
}

impl Caller {
    pub async fn get(&self, path: &str) -> Answer {
        self.http.get_with(path, &[("authorization", &self.token)]).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.http.post_with(path, &[("authorization", &self.token)], body).await
    }

    pub async fn send(&self, method: reqwest::Method, path: &str, body: Option<&Value>) -> Answer {
        let headers = [("authorization", self.token.as_str()), ("content-type", "application/json")];
        self.http.send(method, path, &headers, body.map(|body| body.to_string().into_bytes())).await
    }
}
