//! Asks the other workers at start which tasks were revoked, Celery's mingle.

use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::time::Instant;
use tracing::{debug, info};

use super::super::dispatcher::Dispatcher;
use super::super::service::Node;
use super::inspect::texts;
use super::{Answer, read};
use celery::json::Fields;

/// How long Celery waits for the answers.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Deserialize)]
struct Hello {
    #[serde(default)]
    #[expect(dead_code, reason = "looked at before: nobody greets itself")]
    from_node: Option<String>,
    #[serde(default)]
    revoked: Option<Value>,
}

/// Whether a `hello` comes from this node itself.
pub(super) fn is_from(arguments: &RawValue, hostname: &str) -> bool {
    Fields::parse(arguments.get()).ok().and_then(|fields| fields.text("from_node")).as_deref() == Some(hostname)
}

pub(super) fn hello(dispatcher: &mut Dispatcher, arguments: &RawValue) -> Answer {
    let Hello { revoked, .. } = read("hello", arguments)?;
    remember(dispatcher, revoked.as_ref());
    let ids: Vec<&str> = dispatcher.revoked.ids().collect();
    Ok(json!({"revoked": ids, "clock": dispatcher.shared.events.lamport.now()}))
}

fn remember(dispatcher: &mut Dispatcher, revoked: Option<&Value>) {
    let now = Instant::now();
    let ids = match revoked {
        // Some versions send ids with the times of their revocation.
        Some(Value::Object(ids)) => ids.keys().cloned().collect(),
        Some(other) => texts(other),
        None => Vec::new(),
    };
    ids.iter().for_each(|id| dispatcher.revoked.add(id, now));
    dispatcher.settle_waiting_revoked();
}

impl Node {
    /// Sends `hello` to the other workers and stores the revoked ids that they answer. Without answers or a broker it does nothing.
    pub async fn mingle(&self) {
        let hostname = &self.shared.settings.hostname;
        let arguments = json!({"from_node": hostname, "revoked": []}).to_string();
        let request = broker::Request::to_all("hello", &arguments);
        let replies = match self.shared.transport.ask(&request, PATIENCE).await {
            Ok(replies) => replies,
            Err(error) => return debug!(error = %error, "the other workers could not be asked: {error}"),
        };
        let replies: Vec<Value> = replies.values().filter_map(|reply| serde_json::from_str(reply.get()).ok()).collect();
        if replies.is_empty() {
            return;
        }
        info!(workers = replies.len(), "{} other workers answered", replies.len());
        self.ask(move |dispatcher| {
            for reply in &replies {
                dispatcher.shared.events.lamport.hear(reply["clock"].as_i64().unwrap_or(0));
                remember(dispatcher, reply.get("revoked"));
            }
        })
        .await;
    }
}
