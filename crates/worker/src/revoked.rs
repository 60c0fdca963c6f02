//! The tasks that must not run: ids and stamps given to `revoke`, remembered in the same number and for as long as in Celery.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use celery::Message;

/// Celery's `REVOKES_MAX`.
const MAX: usize = 50_000;
/// Celery's `REVOKE_EXPIRES`.
const KEPT: Duration = Duration::from_secs(10_800);

#[derive(Debug, Default)]
pub(crate) struct Revoked {
    ids: HashMap<String, Instant>,
    order: VecDeque<(String, Instant)>,
    stamps: HashMap<String, Vec<Value>>,
}

impl Revoked {
    pub fn add(&mut self, id: &str, now: Instant) {
        self.forget_old(now);
        if self.ids.insert(id.to_owned(), now).is_none() {
            self.order.push_back((id.to_owned(), now));
        }
    }

    /// Revokes every task that carries one of `values` as its stamp `name`.
    pub fn add_stamp(&mut self, name: &str, values: Vec<Value>) {
        if self.stamps.len() < MAX || self.stamps.contains_key(name) {
            let known = self.stamps.entry(name.to_owned()).or_default();
            known.extend(values);
            known.dedup();
        }
    }

    pub fn contains(&self, message: &Message) -> bool {
        self.ids.contains_key(message.id.as_str()) || self.is_stamped(message)
    }

    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.order.iter().filter(|(id, _)| self.ids.contains_key(id)).map(|(id, _)| id.as_str())
    }

    fn is_stamped(&self, message: &Message) -> bool {
        if self.stamps.is_empty() {
            return false;
        }
        let Some(stamps) = &message.stamps else { return false };
        let stamps: HashMap<String, Value> = serde_json::from_str(stamps.get()).unwrap_or_default();
        stamps.iter().any(|(name, value)| {
            let Some(revoked) = self.stamps.get(name) else { return false };
            match value {
                Value::Array(values) => values.iter().any(|value| revoked.contains(value)),
                value => revoked.contains(value),
            }
        })
    }

    fn forget_old(&mut self, now: Instant) {
        while let Some((id, at)) = self.order.front()
            && (self.order.len() >= MAX || now.saturating_duration_since(*at) > KEPT)
        {
            self.ids.remove(id);
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use celery::task::{TaskId, TaskName};

    fn message(id: &str) -> Message {
        let json = |text: &str| serde_json::value::RawValue::from_string(text.to_owned()).unwrap();
        Message::new(TaskName::parse("t").unwrap(), TaskId::parse(id).unwrap(), json("[]"), json("{}"))
    }

    #[test]
    fn ids_are_forgotten_by_age_and_number() {
        let mut revoked = Revoked::default();
        let start = Instant::now();
        revoked.add("a", start);
        assert!(revoked.contains(&message("a")));
        revoked.add("b", start + KEPT + Duration::from_secs(1));
        assert!(!revoked.contains(&message("a")) && revoked.contains(&message("b")));
        (0..MAX).for_each(|n| revoked.add(&n.to_string(), start + KEPT));
        assert!(revoked.ids().count() <= MAX);
    }

    #[test]
    fn a_stamp_revokes_every_task_that_carries_it() {
        let mut revoked = Revoked::default();
        revoked.add_stamp("batch", vec!["7".into()]);
        let mut stamped = message("a");
        stamped.stamps = serde_json::value::RawValue::from_string(r#"{"batch": ["7"]}"#.to_owned()).ok();
        assert!(revoked.contains(&stamped));
        assert!(!revoked.contains(&message("b")));
    }
}
