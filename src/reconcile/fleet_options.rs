//! Compares the fleet's transport options with ours, because a message in a list that no worker reads waits for ever.
//!
//! Workers report their options (`inspect conf`); asking writes nothing into kombu's tables. Where they differ, the broker refuses
//! messages for lists that workers would not read ([`broker::Refusals`]), and a warning and an incident say what to change. While no
//! worker answers, the last known options apply.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use broker::{Lists, Replies, Request};
use celery::Transport;
use celery::conf::Conf;

/// Pause between two checks: a worker with other options may go unnoticed for this long.
const PERIOD: Duration = Duration::from_secs(5);
/// How long workers may take to answer; a busy one answers the next time.
const PATIENCE: Duration = Duration::from_secs(1);

/// The service that checks the options of the fleet's workers.
#[derive(Clone)]
pub struct FleetOptions {
    broker: Lists,
}

impl FleetOptions {
    pub fn new(broker: Lists) -> Self {
        Self { broker }
    }

    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            self.check().await;
            tokio::select! { () = stop.cancelled() => {} () = tokio::time::sleep(PERIOD) => {} }
        }
    }

    /// Asks once, and logs what has changed.
    pub async fn check(&self) {
        let asked = self.broker.ask(&Request::to_all("conf", r#"{"with_defaults": false}"#), PATIENCE).await;
        match asked {
            Ok(replies) if replies.is_empty() => {}
            Ok(replies) => self.note(theirs(self.broker.keys().transport(), &replies)),
            Err(error) => debug!(error = %error, "workers could not be asked for their options"),
        }
    }

    fn note(&self, theirs: Option<(String, Transport)>) {
        let (ours, before) = (self.broker.keys().transport(), self.broker.refusals().theirs());
        match &theirs {
            Some((node, theirs)) if before.as_ref() != Some(theirs) => {
                let lines: Vec<String> = ours.differences(theirs).into_iter().map(|(_, line)| line).collect();
                let lines = lines.join("; ");
                warn!(worker = %node, "{node} uses other transport options than [broker] says; write there: {lines}. Until \
                    then tasks whose list no worker reads are held");
            }
            None if before.is_some() => info!("the workers' transport options match [broker]"),
            Some(_) | None => {}
        }
        self.broker.refusals().note_theirs(theirs.map(|(_, theirs)| theirs));
    }
}

/// The first worker whose options differ from ours, with its options.
fn theirs(ours: &Transport, replies: &Replies) -> Option<(String, Transport)> {
    replies.iter().find_map(|(node, reply)| {
        let theirs = Conf::read(&serde_json::from_str(reply.get()).ok()?).transport(ours);
        (theirs != *ours).then(|| (node.clone(), theirs))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_with_other_options_is_found_among_those_with_ours() {
        let ours = Transport::default();
        let other = r#"{"broker_transport_options": {"sep": ":"}}"#;
        let replies = [("a@h", "{}"), ("b@h", other)];
        let replies: Replies = replies
            .into_iter()
            .map(|(node, reply)| (node.to_owned(), celery::task::json::written(reply.to_owned())))
            .collect();
        let (node, found) = theirs(&ours, &replies).unwrap();
        assert_eq!((node.as_str(), found.sep.as_str()), ("b@h", ":"));
        let fleet = Transport { sep: ":".to_owned(), ..Transport::default() };
        assert_eq!(theirs(&fleet, &replies).unwrap().0, "a@h", "the other way round too");
    }
}
