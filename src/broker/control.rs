//! Remote control: requests go to every worker over one channel, replies come back to a list of one's own.

use super::{Broker, Error};
use crate::celery::{Properties, envelope};
use crate::clock;

/// Celery's default `control_exchange`, with the suffix kombu gives it.
pub const CONTROL_EXCHANGE: &str = "celery.pidbox";

impl Broker {
    /// Tells all workers, without waiting for replies. `arguments` is a JSON object. Returns how many listened.
    pub async fn broadcast(&self, method: &str, arguments: &str) -> Result<i64, Error> {
        let method = serde_json::Value::from(method);
        let body = format!(
            r#"{{"method": {method}, "arguments": {arguments}, "destination": null, "pattern": null, "matcher": null}}"#
        );
        let tag = clock::random_id().to_string();
        let mut properties = Properties::transient(CONTROL_EXCHANGE, "", &tag);
        properties.delivery_mode = 2;
        let message = envelope(r#"{"clock": 1, "expires": 0}"#, &body, &properties);
        let channel = self.keys.fanout(CONTROL_EXCHANGE, "");
        self.link.call(redis::cmd("PUBLISH").arg(channel).arg(message)).await
    }
}
