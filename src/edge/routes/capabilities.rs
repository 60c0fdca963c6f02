//! `/v1/capabilities`: what this deployment can do, which depends on its broker.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::edge::answer::Answer;
use crate::edge::state::Edge;
use crate::usecase::capabilities::Capabilities;

/// What this deployment can do.
#[derive(Debug, Serialize, ToSchema)]
pub struct CapabilitiesView {
    /// `redis` or `rabbitmq`.
    #[schema(value_type = String, example = "redis")]
    broker: &'static str,
    /// A task that waits in the broker can be revoked with certainty. Otherwise the revoke is only sent to the workers, and just tasks
    /// that wait in the ledger are prevented with certainty.
    revoke_waiting: bool,
    /// A crash between publication and its confirmation publishes once. Otherwise it may publish twice, and the history says so.
    publish_once: bool,
    /// The messages of a queue can be listed.
    queue_contents: bool,
    /// Messages that workers lost are found, and run again or are recorded as lost, as the recovery policy says. Otherwise the broker
    /// itself redelivers them.
    repair: bool,
    /// Which priority is served first: 0 in Redis, 9 in RabbitMQ (only in queues with `x-max-priority`).
    first_priority: u8,
    /// A queue must exist before a message can be sent to it.
    queues_must_exist: bool,
}

impl From<Capabilities> for CapabilitiesView {
    fn from(can: Capabilities) -> Self {
        Self {
            broker: can.broker,
            revoke_waiting: can.revoke_waiting,
            publish_once: can.publish_once,
            queue_contents: can.queue_contents,
            repair: can.repair,
            first_priority: can.first_priority,
            queues_must_exist: can.queues_must_exist,
        }
    }
}

/// What this deployment can do
///
/// Depends on the broker. The answer does not change while the process runs.
#[utoipa::path(get, path = "/v1/capabilities", tag = "operation", operation_id = "capabilities")]
pub async fn capabilities(State(edge): State<Edge>) -> Answer<CapabilitiesView> {
    Answer::of(&CapabilitiesView::from(edge.gateway.capabilities()))
}
