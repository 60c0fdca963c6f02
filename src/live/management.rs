//! RabbitMQ's management API, where `broker.management_url` names it: AMQP itself shows no message without taking it.
//!
//! The API takes messages and puts them back at once, in their places. A classic queue marks them as redelivered by that; a quorum queue
//! counts it as a failed delivery, and drops a message that has too many. So quorum queues are not looked into.

use std::borrow::Cow;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use celery::Properties;
use reqwest::Url;
use serde::Deserialize;
use serde_json::{Value, json};

use broker::Standing;

const PATIENCE: Duration = Duration::from_secs(10);
/// Maximum number of messages to read from the front of a queue: all messages before a page are taken and put back with it.
pub const DEEPEST: i64 = 1_000;
/// Maximum size of an answer in bytes.
const MOST_BYTES: usize = 64 << 20;

#[derive(Debug, thiserror::Error)]
pub enum ManagementError {
    #[error("RabbitMQ's management API cannot be asked")]
    Away(#[from] reqwest::Error),
    #[error("RabbitMQ's management API answered {status}: {reason}")]
    Refused { status: u16, reason: String },
    #[error("RabbitMQ has no queue {0}")]
    NoQueue(String),
    #[error(
        "{0} is a quorum queue: looking at a message counts as a failed delivery there, and after some of those it is dropped"
    )]
    Quorum(String),
    #[error("only the first {DEEPEST} messages of a queue can be looked at")]
    TooDeep,
    #[error("the messages have more than {MOST_BYTES} bytes: ask for fewer, or for earlier ones")]
    TooLarge,
    #[error("RabbitMQ's management API answered something else than messages")]
    Unreadable(#[from] serde_json::Error),
}

/// The API of one virtual host.
pub struct Management {
    client: reqwest::Client,
    /// Contains the login, which the client sends as a header and never shows.
    base: Url,
    vhost: String,
}

#[derive(Deserialize)]
struct Described {
    #[serde(rename = "type", default)]
    kind: String,
}

#[derive(Deserialize)]
struct Message {
    payload: String,
    payload_encoding: String,
    exchange: String,
    routing_key: String,
    redelivered: bool,
    #[serde(default)]
    properties: Value,
}

impl Management {
    /// Makes no connection yet. `login` is used if the URL has no login.
    ///
    /// # Errors
    /// When it is not a URL.
    pub fn new(url: &str, login: (&str, &str), vhost: &str) -> anyhow::Result<Self> {
        let mut base = Url::parse(url)?;
        if base.username().is_empty() {
            let is_set = base.set_username(login.0).and_then(|()| base.set_password(Some(login.1)));
            is_set.map_err(|()| anyhow::anyhow!("it has no place for a login"))?;
        }
        Ok(Self { client: client(), base, vhost: vhost.to_owned() })
    }

    /// A page of a queue's messages, the next to be served first.
    ///
    /// # Errors
    /// When the API is down or refuses, or the queue must not be read.
    pub async fn contents(&self, queue: &str, skip: i64, limit: i64) -> Result<Vec<Standing>, ManagementError> {
        if skip >= DEEPEST {
            return Err(ManagementError::TooDeep);
        }
        let described = self.client.get(self.path(queue, &[])).send().await?;
        if described.status().as_u16() == 404 {
            return Err(ManagementError::NoQueue(queue.to_owned()));
        }
        let described: Described = answered(described).await?.json().await?;
        if described.kind != "classic" && !described.kind.is_empty() {
            return Err(ManagementError::Quorum(queue.to_owned()));
        }
        let wish = json!({
            "count": skip.saturating_add(limit).min(DEEPEST), "ackmode": "ack_requeue_true", "encoding": "base64",
        });
        let asked = self.client.post(self.path(queue, &["get"])).json(&wish).send().await?;
        let messages = messages(answered(asked).await?).await?;
        let skipped = usize::try_from(skip).unwrap_or(usize::MAX);
        Ok(messages.iter().skip(skipped).map(|message| Standing { step: 0, payload: envelope(message) }).collect())
    }

    fn path(&self, queue: &str, more: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["api", "queues", &self.vhost, queue]).extend(more);
        }
        url
    }
}

/// Reads the messages within a bound on their size: the API returns whole messages, including those before the page.
async fn messages(mut answer: reqwest::Response) -> Result<Vec<Message>, ManagementError> {
    let mut text = Vec::new();
    while let Some(bytes) = answer.chunk().await? {
        if text.len() + bytes.len() > MOST_BYTES {
            return Err(ManagementError::TooLarge);
        }
        text.extend_from_slice(&bytes);
    }
    Ok(serde_json::from_slice(&text)?)
}

async fn answered(answer: reqwest::Response) -> Result<reqwest::Response, ManagementError> {
    let status = answer.status().as_u16();
    if answer.status().is_success() {
        return Ok(answer);
    }
    let said: Value = answer.json().await.unwrap_or_default();
    let reason = said["reason"].as_str().or(said["error"].as_str()).unwrap_or("no reason").to_owned();
    Err(ManagementError::Refused { status, reason })
}

/// The message as kombu would write it to Redis, which is what the rest of the program reads.
fn envelope(message: &Message) -> Vec<u8> {
    let body = match message.payload_encoding.as_str() {
        "base64" => STANDARD.decode(&message.payload).unwrap_or_default(),
        _ => message.payload.clone().into_bytes(),
    };
    let from = &message.properties;
    let text = |name: &str| from[name].as_str().map(Cow::Borrowed);
    let properties = Properties {
        correlation_id: text("correlation_id"),
        reply_to: text("reply_to"),
        expiration: text("expiration"),
        delivery_mode: if from["delivery_mode"] == 1 { 1 } else { 2 },
        exchange: message.exchange.as_str().into(),
        routing_key: message.routing_key.as_str().into(),
        priority: u8::try_from(from["priority"].as_u64().unwrap_or(0)).unwrap_or(u8::MAX).min(9),
        delivery_tag: text("message_id").unwrap_or_default(),
        redelivered: message.redelivered,
    };
    let headers = if from["headers"].is_object() { as_sent(&from["headers"]).to_string() } else { "{}".to_owned() };
    let content_type = from["content_type"].as_str().unwrap_or("application/json");
    celery::envelope::packed(&headers, content_type, &body, &properties)
}

/// The API writes AMQP's void, which stands for null, as this text.
fn as_sent(shown: &Value) -> Value {
    match shown {
        Value::String(text) if text == "undefined" => Value::Null,
        Value::Array(values) => values.iter().map(as_sent).collect(),
        Value::Object(members) => members.iter().map(|(name, value)| (name.clone(), as_sent(value))).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => shown.clone(),
    }
}

/// Uses root certificates from the binary, so it works in an empty container.
fn client() -> reqwest::Client {
    let roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let builder = reqwest::Client::builder().tls_backend_preconfigured(tls).timeout(PATIENCE);
    builder.build().expect("nothing of it depends on the machine")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_queues_and_virtual_hosts_are_parts_of_the_path() {
        let api = Management::new("http://me:p%40ss@h:15672/rabbit/", ("guest", "guest"), "/").unwrap();
        let path = api.path("a/b c", &["get"]);
        assert_eq!(path.as_str(), "http://me:p%40ss@h:15672/rabbit/api/queues/%2F/a%2Fb%20c/get");
        let api = Management::new("http://h:1", ("u", "w/"), "v").unwrap();
        assert_eq!(api.path("q", &[]).as_str(), "http://u:w%2F@h:1/api/queues/v/q", "as at the broker");
    }

    #[test]
    fn a_message_is_read_as_one_of_redis_is() {
        let message: Message = serde_json::from_value(json!({
            "payload": STANDARD.encode("[[1], {}, {}]"), "payload_encoding": "base64", "exchange": "", "routing_key": "mail",
            "redelivered": true, "message_count": 3,
            "properties": {"priority": 7, "correlation_id": "a", "content_type": "application/json",
                "headers": {"id": "a", "task": "app.send", "eta": "undefined", "timelimit": ["undefined", 60]}},
        }))
        .unwrap();
        let read = celery::Envelope::decode(&envelope(&message)).unwrap();
        assert_eq!((read.body.as_slice(), read.properties.priority), (&b"[[1], {}, {}]"[..], 7));
        assert!(read.properties.redelivered && read.headers.contains("app.send"));
        assert!(read.headers.contains(r#""eta":null"#) && read.headers.contains("[null,60]"), "{}", read.headers);
    }
}
