//! Since when the oldest message of a queue has been waiting.
//!
//! Looks at the head of each list only. The ledger knows when a task was queued; of tasks of other clients a `UUIDv7` contains the
//! time when it was made. A broker that does not show its messages has no answer. A row that the ledger cannot read counts as unknown: one
//! bad row must not hide the figures of all queues.

use celery::Envelope;
use celery::task::TaskId;
use celery::task::json::Fields;
use tracing::debug;

use broker::Broker;
use ledger::Ledger;
use runtime::clock::Time;

#[derive(Debug, thiserror::Error)]
pub enum AgeError {
    #[error("the broker cannot be reached")]
    Broker(#[from] broker::Error),
    #[error("the ledger failed")]
    Ledger(#[from] ledger::Error),
}

/// When the oldest message was queued; `None` if that is not known or nothing waits.
///
/// # Errors
/// When the broker or the ledger does not answer.
pub async fn oldest(broker: &Broker, ledger: &dyn Ledger, queue: &str) -> Result<Option<Time>, AgeError> {
    let mut oldest = None;
    let Some(lists) = broker.lists() else { return Ok(None) };
    for head in lists.heads(queue).await? {
        let Some(id) = task_id(&head.payload) else { continue };
        let known = queued_at(ledger, &id).await?;
        let Some(at) = known.or_else(|| made_at(id.as_str())) else { continue };
        oldest = Some(oldest.map_or(at, |before: Time| before.min(at)));
    }
    Ok(oldest)
}

/// When the ledger says that a task was queued.
async fn queued_at(ledger: &dyn Ledger, id: &TaskId) -> Result<Option<Time>, ledger::Error> {
    match ledger.task(id).await {
        Ok(task) => Ok(task.map(|task| task.queued_at.unwrap_or(task.submitted_at))),
        Err(error) if error.is_transient() => Err(error),
        Err(error) => {
            debug!(task.id = %id, %error, "the age of {id} is unknown");
            Ok(None)
        }
    }
}

/// The id in a message.
pub fn task_id(payload: &[u8]) -> Option<TaskId> {
    let envelope = Envelope::decode(payload).ok()?;
    let id = Fields::parse(&envelope.headers).ok().and_then(|headers| headers.text("id"));
    TaskId::parse(id.or_else(|| envelope.properties.correlation_id.map(Into::into))?).ok()
}

fn made_at(id: &str) -> Option<Time> {
    let (secs, nanos) = id.parse::<uuid::Uuid>().ok()?.get_timestamp()?.to_unix();
    Some(Time(i64::try_from(secs).ok()? * 1_000_000 + i64::from(nanos) / 1_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_begins_with_its_time_tells_it() {
        assert_eq!(made_at("0193a0f0-0000-7000-8000-000000000000").map(|at| at.0 / 1_000_000), Some(1_733_571_903));
        assert_eq!(made_at("7c9e6679-7425-40de-944b-e07fc1f90ae7"), None);
        assert_eq!(made_at("nightly"), None);
    }
}
