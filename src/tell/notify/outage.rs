//! An outage of the ledger itself: it cannot be recorded while it lasts, so its notices are kept in memory.
//!
//! Each replica sends a notice once, because none knows what the others sent. When the outage is over it is added to the history too. A
//! replica that stops meanwhile forgets it.

use runtime::clock::Time;

use super::message;
use crate::tell::incidents::Incident;
use ledger::{FoundIncident, KeptIncident, Notice, SettledNotice};

#[derive(Default)]
pub(super) struct Outage {
    /// The one that lasts.
    now: Option<FoundIncident>,
    /// An outage that is over and not in the history yet.
    over: Option<FoundIncident>,
    notices: Vec<(Time, Notice)>,
    next: i64,
}

impl Outage {
    /// `down` is what health says, `writes` whether the ledger has just taken a write.
    pub fn note(&mut self, down: Option<&Incident>, writes: bool, channels: &[String], at: Time) {
        match (&self.now, down) {
            (None, Some(down)) if !writes => {
                let found = message::found(down);
                self.tell(&found, None, channels, at);
                self.now = Some(found);
            }
            (Some(_), None) if writes => {
                let found = self.now.take().expect("matched above");
                self.tell(&found, Some(at), channels, at);
                self.over = Some(found);
            }
            _ => {}
        }
    }

    fn tell(&mut self, found: &FoundIncident, ended_at: Option<Time>, channels: &[String], at: Time) {
        for channel in channels {
            self.next += 1;
            let incident = KeptIncident {
                no: at.as_micros(),
                found: found.clone(),
                ended_at,
                acknowledged_at: None,
                acknowledged_by: None,
                muted_until: None,
            };
            let notice = Notice {
                no: self.next,
                channel: channel.clone(),
                is_end: ended_at.is_some(),
                created_at: at,
                tries: 0,
                incident,
            };
            self.notices.push((at, notice));
        }
    }

    /// What goes into the history with the next write, as open; the write after that ends it.
    pub fn over(&self) -> Option<&FoundIncident> {
        self.over.as_ref()
    }

    pub fn is_written(&mut self) {
        self.over = None;
    }

    pub fn due(&self, now: Time) -> Vec<Notice> {
        self.notices.iter().filter(|(at, _)| *at <= now).map(|(_, notice)| notice.clone()).collect()
    }

    pub fn settle(&mut self, settled: &[SettledNotice]) {
        for sent in settled {
            match (sent.again_at, self.notices.iter().position(|(_, notice)| notice.no == sent.no)) {
                (Some(again), Some(place)) => {
                    self.notices[place].0 = again;
                    self.notices[place].1.tries += 1;
                }
                (None, Some(place)) => drop(self.notices.remove(place)),
                (_, None) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tell::incidents::Kind;

    #[test]
    fn an_outage_is_told_once_when_it_begins_and_once_when_it_is_over() {
        let down = Incident { kind: Kind::LedgerDown, subject: "ledger".into(), since: Time(1), detail: "away".into() };
        let (mut outage, names) = (Outage::default(), ["ops".to_owned()]);
        outage.note(Some(&down), false, &names, Time(5));
        outage.note(Some(&down), false, &names, Time(6));
        let due = outage.due(Time(6));
        assert!(due.len() == 1 && !due[0].is_end);
        outage.settle(&[SettledNotice { no: due[0].no, again_at: Some(Time(9)) }]);
        assert!(outage.due(Time(8)).is_empty());
        outage.settle(&[SettledNotice { no: due[0].no, again_at: None }]);
        outage.note(None, true, &names, Time(10));
        let due = outage.due(Time(10));
        assert!(due.len() == 1 && due[0].is_end && outage.over().is_some());
    }
}
