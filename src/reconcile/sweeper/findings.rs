//! Problems that a survey found but cannot repair: every replica reports them as incidents.

use std::collections::BTreeMap;

use super::absence::Absent;
use super::decision::Decision;
use super::survey::State;
use super::{Sweeper, Trouble};
use ledger::Finding;
use runtime::clock;

const SOURCE: &str = "sweeper";
/// Maximum number of listed tasks that are undecided for the same reason.
const MOST: usize = 200;

/// Findings by kind and subject.
#[derive(Default)]
pub(super) struct Findings {
    now: BTreeMap<(&'static str, String), String>,
    /// The findings as they were last written.
    told: Option<Vec<(&'static str, String, String)>>,
}

impl Findings {
    pub fn note_undecided(&mut self, absence: &Absent) {
        let Decision::Unclear(doubt) = absence.decision else { return };
        let id = absence.task.id.to_string();
        let detail =
            format!("{}: {}", absence.task.name.as_deref().unwrap_or("a task"), doubt.sentence(&absence.about, &id));
        if self.now.keys().filter(|(kind, _)| *kind == "undecided").count() < MOST {
            self.put("undecided", id, detail);
        }
    }

    pub fn note_suspended(&mut self, count: usize, running: i64, workers: &str) {
        let detail = format!(
            "{count} tasks would run again at once, of {running} that run ({workers}), and Redis lost nothing: none of them does. \
             POST /v1/tasks/{{id}}/resolve decides each; when no more than {MOST_AT_ONCE} are left, these run again by themselves"
        );
        self.put("repair-suspended", "recovery".to_owned(), detail);
    }

    fn put(&mut self, kind: &'static str, subject: String, detail: String) {
        self.now.insert((kind, subject), detail);
    }
}

/// How many tasks may run again in one pass without a loss of data; or a hundredth of the running tasks, if that is more.
pub(super) const MOST_AT_ONCE: usize = 20;

impl Sweeper {
    /// Writes the findings of a survey if they have changed.
    pub(super) async fn tell(&self, state: &mut State) -> Result<(), Trouble> {
        let findings = &mut state.findings;
        let now: Vec<_> = std::mem::take(&mut findings.now)
            .into_iter()
            .map(|((kind, subject), detail)| (kind, subject, detail))
            .collect();
        if findings.told.as_ref() == Some(&now) {
            return Ok(());
        }
        let at = clock::now();
        let written: Vec<Finding> = now
            .iter()
            .map(|(kind, subject, detail)| Finding {
                kind: (*kind).to_owned(),
                subject: subject.clone(),
                since: at,
                detail: detail.clone(),
            })
            .collect();
        self.ledger.note_findings(SOURCE, &written).await?;
        findings.told = Some(now);
        Ok(())
    }
}
