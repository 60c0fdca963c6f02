//! `/v1/capabilities`: what this deployment can, because of the broker that it runs on.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::edge::answer::Answer;
use crate::edge::state::Edge;
use crate::usecase::capabilities::Capabilities;

/// What this deployment can.
#[derive(Debug, Serialize, ToSchema)]
pub struct CapabilitiesView {
    /// `redis` or `rabbitmq`.
    #[schema(value_type = String, example = "redis")]
    broker: &'static str,
    /// A task that waits in the broker can be revoked for certain. Otherwise the revoke is told to the workers, and only what waits
    /// in the ledger is prevented for certain.
    revoke_waiting: bool,
    /// A crash between publication and its confirmation publishes once. Otherwise it may publish twice, and the history says so.
    publish_once: bool,
    /// The messages of a queue can be listed.
    queue_contents: bool,
    /// Messages that their workers lost are found, run again or called lost, as the recovery policy says. Otherwise the broker
    /// itself delivers them again.
    repair: bool,
    /// Which priority is served first: 0 in Redis, 9 in RabbitMQ, there in queues with `x-max-priority` only.
    first_priority: u8,
    /// A queue must exist before a message can go there.
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

/// What this deployment can
///
/// Brokers differ. What a call promises here does not change while the process runs.
#[utoipa::path(get, path = "/v1/capabilities", tag = "operation", operation_id = "capabilities")]
pub async fn capabilities(State(edge): State<Edge>) -> Answer<CapabilitiesView> {
    Answer::of(&CapabilitiesView::from(edge.gateway.capabilities()))
}
