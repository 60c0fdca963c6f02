//! Carries out the calls of handlers in this process.

use async_trait::async_trait;

use super::context::{ContextError, Host};
use super::finish::record;
use super::follow::Follow;
use super::logs::Counter;
use super::request::Request;
use super::shared::SharedRef;
use celery::Signature;
use celery::result::ResultTuple;
use celery::task::Json;

pub(crate) struct LocalHost(pub SharedRef);

#[async_trait]
impl Host for LocalHost {
    fn hostname(&self) -> &str {
        &self.0.settings.hostname
    }

    async fn update_state(&self, request: &Request, state: &str, meta: Json) {
        let record = record(&request.message, state, meta).encode();
        self.0.store(request.id(), request.origin.reply.as_ref(), record).await;
    }

    async fn submit(&self, request: &Request, signature: Signature) -> Result<ResultTuple, ContextError> {
        let follow = Follow { shared: &self.0, parent: &request.message, reply: request.origin.reply.as_ref() };
        let sent = follow.child(&signature).await;
        let mut sent = sent.map_err(|not_sent| ContextError::NotSent(not_sent.text()))?;
        sent.pop().ok_or_else(|| ContextError::NotSent("there was nothing to send".to_owned()))
    }

    fn log(&self, request: &Request, lines: &Counter, level: &str, text: &str) {
        if self.0.events.enabled() {
            self.0.logs.say(lines, &request.message.id, request.message.retries, level, text);
        }
    }
}
