//! Finds mismatches on the wire: keys of the wrong type, transport options that differ, workers that do not report what they do.

use super::{Incident, Kind, Lookout, Trouble};
use crate::reconcile::silence::{Silence, began};
use broker::Depth;
use ledger::Worker;
use runtime::clock::Time;

impl Lookout {
    pub(super) fn other_options(&self, now: Time) -> Option<Incident> {
        let lists = self.broker.lists()?;
        let theirs = lists.refusals().theirs()?;
        let lines: Vec<String> =
            lists.keys().transport().differences(&theirs).into_iter().map(|(_, line)| line).collect();
        let detail = format!(
            "the workers use other transport options than [broker] says: tasks whose list none of them reads are held; write \
             there: {}",
            lines.join("; ")
        );
        Some(Incident { kind: Kind::OtherOptions, subject: "broker".to_owned(), since: now, detail })
    }

    /// Queues whose key is not a list, or that do not exist: other checks skip them.
    pub(super) fn wrong_keys(&self, queues: &[String], depths: &[Depth], now: Time) -> Vec<Incident> {
        let troubled = queues.iter().zip(depths).filter_map(|(queue, depth)| Some((queue, depth.trouble.as_ref()?)));
        let incident = |(queue, trouble): (&String, &String)| Incident {
            kind: if self.broker.lists().is_some() { Kind::WrongKey } else { Kind::NoQueue },
            subject: queue.clone(),
            since: now,
            detail: format!(
                "{trouble}; until then nothing is published to {queue}, and its tasks are not looked after"
            ),
        };
        troubled.map(incident).collect()
    }

    /// Checks the keys of reserved messages: with a wrong type workers crash, and it is unknown what is reserved.
    pub(super) async fn wrong_reservations(&self, now: Time) -> Result<Vec<Incident>, Trouble> {
        let Some(lists) = self.broker.lists() else { return Ok(Vec::new()) };
        let incident = |(key, trouble): (String, String)| Incident {
            kind: Kind::WrongKey,
            subject: key,
            since: now,
            detail: format!(
                "{trouble}; workers fail at it, and until then no task that may be reserved is repaired, nor its lease renewed"
            ),
        };
        Ok(lists.wrong_reservations().await?.into_iter().map(incident).collect())
    }
}

/// Workers that send no events, or answer nothing.
pub(super) fn reticent(online: &[&Worker], now: Time) -> Vec<Incident> {
    let incident = |worker: &&Worker| {
        let silence = Silence::of(worker, now)?;
        let kind = match silence {
            Silence::Mute => Kind::MuteWorker,
            Silence::Deaf => Kind::DeafWorker,
        };
        let since = began(worker).unwrap_or(now);
        Some(Incident { kind, subject: worker.hostname.clone(), since, detail: silence.told(&worker.hostname) })
    };
    online.iter().filter_map(incident).collect()
}
