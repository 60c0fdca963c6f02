//! `GET /api/workers`: asks workers eight questions for each request, and returns their answers.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use futures_util::future::try_join_all;
use serde_json::{Map, Value};

use super::arguments::Arguments;
use super::{json as answer, plain};
use crate::edge::problem::Problem;
use crate::edge::state::Edge;
use crate::usecase::inspect::{ControlRequest, DEFAULT_PATIENCE};
use runtime::clock;

/// The inspect methods that Flower uses.
const METHODS: [&str; 8] =
    ["stats", "active_queues", "registered", "scheduled", "active", "reserved", "revoked", "conf"];

pub async fn list(State(edge): State<Edge>, given: Arguments) -> Result<Response, Problem> {
    let (status, wanted) = match given.switch("refresh").and_then(|_| given.switch("status")) {
        Ok(status) => (status, given.text("workername")),
        Err(refused) => return Ok(*refused),
    };
    let known = edge.gateway.workers().await?;
    if status {
        let alive = known.iter().map(|(worker, online)| (worker.hostname.clone(), Value::from(*online)));
        return Ok(answer(&Value::Object(alive.collect())));
    }
    if let Some(name) = wanted
        && !known.iter().any(|(worker, _)| worker.hostname == name)
    {
        return Ok(plain(StatusCode::NOT_FOUND, &format!("Unknown worker '{name}'")));
    }
    Ok(answer(&Value::Object(described(&edge, wanted).await?)))
}

async fn described(edge: &Edge, wanted: Option<&str>) -> Result<Map<String, Value>, Problem> {
    let ask = async |method: &'static str| {
        let request = ControlRequest {
            command: method.to_owned(),
            arguments: "{}".to_owned(),
            destination: wanted.map(|name| vec![name.to_owned()]),
            patience: DEFAULT_PATIENCE,
        };
        Ok::<_, Problem>((method, edge.gateway.inspect(request).await?))
    };
    let mut shown: Map<String, Value> = Map::new();
    for (method, replies) in try_join_all(METHODS.map(ask)).await? {
        for (node, reply) in &replies {
            let worker = shown.entry(node.clone()).or_insert_with(|| Value::Object(Map::new()));
            worker[method] = serde_json::from_str(reply.get()).unwrap_or_default();
            worker["timestamp"] = (clock::now().as_micros() as f64 / 1e6).into();
        }
    }
    Ok(shown)
}
