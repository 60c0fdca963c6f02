//! Finds out whether a message that a worker announces (`task-received`) is a redelivery. Celery's event does not say so, but the
//! reserved message is marked; so the mark is read as soon as the event arrives, because the first delivery may have gone unseen.
//! Nothing waits for this: the event of a marked message is recorded a second time, with the mark.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::timeout;
use tracing::debug;

use broker::{Lists, Reservation};
use celery::event::{Call, Event, Kind, TaskNews};
use celery::task::TaskId;
use ledger::change::ANNOUNCED;
use runtime::clock::Time;

/// The message of a younger task cannot be a redelivery: no worker takes and loses a message faster.
const YOUNG: Duration = Duration::from_millis(500);
/// Timeout of the look-up, because the next events wait for it.
const PATIENCE: Duration = Duration::from_millis(250);

/// A `task-received` event of a message.
struct Announcement {
    /// The delivery tag that the message has if it is its task's first.
    tag: String,
    id: TaskId,
    hostname: String,
    timestamp: Timestamp,
}

/// Events whose messages must be looked up.
#[derive(Default)]
pub(super) struct Announced(Vec<Announcement>);

impl Announced {
    pub fn add(&mut self, events: &[Event]) {
        self.0.extend(events.iter().filter_map(announcement));
    }

    /// Looks the messages up. Returns the events whose messages are marked, with the mark added.
    pub async fn marked(&self, lists: &Lists) -> Vec<Event> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let tags: Vec<&str> = self.0.iter().map(|announcement| announcement.tag.as_str()).collect();
        match timeout(PATIENCE, lists.redelivered(&tags)).await {
            Ok(Ok(marked)) => {
                let is_marked =
                    |announcement: &&Announcement| marked.iter().any(|reservation| announcement.is_of(reservation));
                self.0.iter().filter(is_marked).map(Announcement::told_again).collect()
            }
            Ok(Err(error)) => {
                debug!(error = %error, "marks of announced messages were not read");
                Vec::new()
            }
            Err(_) => {
                debug!("Redis took too long to return the marks of announced messages");
                Vec::new()
            }
        }
    }
}

/// Reads an event. Messages of further deliveries and of retries have other tags, and a history already.
fn announcement(event: &Event) -> Option<Announcement> {
    let Kind::Task { uuid, news: TaskNews::Received(call) } = &event.kind else { return None };
    let may_have_it = !call.redelivered && call.retries == 0 && !is_young(uuid, at(event.timestamp));
    may_have_it.then(|| Announcement {
        tag: uuid.delivery_tag(1),
        id: uuid.clone(),
        hostname: event.hostname.clone(),
        timestamp: event.timestamp,
    })
}

fn at(timestamp: Timestamp) -> Time {
    Time(timestamp.as_microsecond())
}

fn is_young(id: &TaskId, at: Time) -> bool {
    id.made_at().is_some_and(|made| at.since(Time(made)) < YOUNG)
}

impl Announcement {
    /// Whether a reservation belongs to this event, and not to the delivery after it.
    fn is_of(&self, reservation: &Reservation) -> bool {
        let at = at(self.timestamp);
        let apart = |since: Time| at.since(since).max(since.since(at));
        let is_its = self.tag == reservation.tag && reservation.redelivered;
        is_its && reservation.since().is_some_and(|since| apart(since) <= ANNOUNCED)
    }

    fn told_again(&self) -> Event {
        let call = Call { redelivered: true, ..Call::default() };
        let news = TaskNews::Received(Box::new(call));
        let kind = Kind::Task { uuid: self.id.clone(), news };
        let (hostname, timestamp) = (self.hostname.clone(), self.timestamp);
        Event { hostname, pid: None, clock: 0, utcoffset: 0.0, timestamp, kind }
    }
}

#[cfg(test)]
mod tests {
    use super::super::event;
    use super::*;
    use runtime::clock;

    fn received(id: TaskId, at: Time, call: Call) -> Event {
        let timestamp = Timestamp::from_microsecond(at.as_micros()).unwrap();
        event::sample(id, timestamp, TaskNews::Received(Box::new(call)))
    }

    #[test]
    fn what_was_announced_much_earlier_or_later_is_another_delivery() {
        let id = TaskId::parse("t").unwrap();
        let reservation = Reservation { tag: id.delivery_tag(1), score: "20.0".to_owned(), redelivered: true };
        let is_its = |seconds: i64| {
            let event = received(id.clone(), Time(seconds * 1_000_000), Call::default());
            announcement(&event).is_some_and(|announced| announced.is_of(&reservation))
        };
        assert_eq!([17, 19, 20, 21, 23].map(is_its), [false, true, true, true, false]);
    }

    #[test]
    fn a_new_task_s_first_announcement_needs_no_look() {
        let (now, id) = (clock::now(), TaskId::from(clock::new_id()));
        let needs_look_up = |id: &TaskId, at: Time, call: Call| announcement(&received(id.clone(), at, call)).is_some();
        let later = now.plus(YOUNG * 2);
        assert!(!needs_look_up(&id, now, Call::default()));
        assert!(needs_look_up(&id, later, Call::default()));
        assert!(!needs_look_up(&id, later, Call { retries: 1, ..Call::default() }));
        assert!(!needs_look_up(&id, later, Call { redelivered: true, ..Call::default() }));
        assert!(needs_look_up(&TaskId::parse("t").unwrap(), now, Call::default()), "its age is not known");
    }
}
