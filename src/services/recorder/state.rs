//! What the recorder remembers from one word to the next: ends in doubt, and ends just heard.

use std::time::Duration;

use tokio::time::Instant;

use super::asking::Asking;
use super::pending::{Pending, Recent};
use super::{event, record};
use crate::celery::event::Event;
use crate::celery::result::ResultMeta;
use crate::clock;
use crate::store::{News, Source};
use crate::task::{Phase, TaskId};

/// A FAILURE or REVOKED that nothing else confirms is the end after this.
const DOUBT: Duration = Duration::from_secs(10);
/// How long the record may arrive after the event that tells the same end.
const RECORD_PATIENCE: Duration = Duration::from_millis(250);

/// What the recorder remembers between batches. Lost with the process; the records are read again then.
#[derive(Default)]
pub struct State {
    pub pending: Pending,
    pub asking: Asking,
    recent: Recent,
}

impl State {
    pub fn hear_record(&mut self, id: TaskId, record: ResultMeta, news: &mut Vec<News>) {
        let told = self.pending.withdraw(&id);
        match record::read(id.clone(), record, clock::now()) {
            record::Said::Now(one) => {
                let is_end = one.phase.is_final();
                news.push(*one);
                // The event came first: its facts (run time, worker) are still good.
                news.extend(told.filter(|told| told.source == Source::Event && is_end));
                if is_end {
                    self.recent.remember(id);
                }
            }
            record::Said::Unless { first, end } => {
                news.extend(first.map(|first| *first));
                news.extend(self.pending.hold(*end, DOUBT));
            }
        }
    }

    pub fn hear_event(&mut self, event: Event, news: &mut Vec<News>) {
        self.asking.hear(&event, Instant::now());
        match event::read(event) {
            event::Said::Now(one) => {
                if one.phase.is_final() || one.phase == Phase::Received {
                    self.pending.withdraw(&one.task_id);
                }
                news.push(*one);
            }
            event::Said::End(one) if self.recent.contains(&one.task_id) => news.push(*one),
            event::Said::End(one) => self.end_by_event(*one, news),
            event::Said::Nothing => {}
        }
    }

    /// A FAILURE that the task had set itself is confirmed by the event; else the record has a moment to arrive.
    fn end_by_event(&mut self, one: News, news: &mut Vec<News>) {
        match self.pending.withdraw(&one.task_id) {
            Some(doubtful) if doubtful.source == Source::Result && doubtful.phase == Phase::Failed => {
                news.push(doubtful);
                news.push(one);
            }
            _ => news.extend(self.pending.hold(one, RECORD_PATIENCE)),
        }
    }
}
