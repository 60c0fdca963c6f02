//! Problems that a pass over unfinished tasks found but does not repair: every replica reports them as incidents. And the bound on how
//! many tasks one pass may run again.

use std::collections::BTreeMap;

use ledger::{Error, Finding, SharedLedger, Task};
use runtime::clock;

/// Of all findings: one service at a time looks for them, the one for the broker in use.
const SOURCE: &str = "sweeper";
/// Maximum number of listed tasks that are undecided for the same reason.
const MOST: usize = 200;
/// How many tasks may run again in one pass without a loss of data; or a hundredth of the running tasks, if that is more.
pub const MOST_AT_ONCE: usize = 20;

/// The number of running tasks, if `count` of them are too many to run again at once; else `None`.
///
/// # Errors
/// Errors of the ledger.
pub async fn running_if_too_many(ledger: &SharedLedger, count: usize) -> Result<Option<i64>, Error> {
    if count <= MOST_AT_ONCE {
        return Ok(None);
    }
    let census = ledger.census().await?;
    let running: i64 = census.iter().filter(|((_, phase), _)| phase.is_at_worker()).map(|(_, count)| count).sum();
    let is_share_small = i64::try_from(count).is_ok_and(|count| count * 100 <= running);
    Ok((!is_share_small).then_some(running))
}

/// Findings by kind and subject.
#[derive(Default)]
pub struct Findings {
    now: BTreeMap<(&'static str, String), String>,
    /// The findings as they were last written.
    told: Option<Vec<(&'static str, String, String)>>,
}

impl Findings {
    /// Nobody knows what to do with this task; `why` says what is not known, and which request decides.
    pub fn note_undecided(&mut self, task: &Task, why: &str) {
        let detail = format!("{}: {why}", task.name.as_deref().unwrap_or("a task"));
        if self.now.keys().filter(|(kind, _)| *kind == "undecided").count() < MOST {
            self.put("undecided", task.id.to_string(), detail);
        }
    }

    /// `count` tasks of `workers` would run again at once, so none does.
    pub fn note_suspended(&mut self, count: usize, running: i64, workers: Vec<&str>) {
        let mut workers = workers;
        workers.sort_unstable();
        workers.dedup();
        workers.truncate(5);
        let detail = format!(
            "{count} tasks would run again at once, of {running} that run ({}), and the broker lost nothing: none of them does. \
             POST /v1/tasks/{{id}}/resolve decides each; when no more than {MOST_AT_ONCE} are left, these run again by themselves",
            workers.join(", ")
        );
        self.put("repair-suspended", "recovery".to_owned(), detail);
    }

    fn put(&mut self, kind: &'static str, subject: String, detail: String) {
        self.now.insert((kind, subject), detail);
    }

    /// Writes the findings of a pass if they have changed, and begins anew.
    ///
    /// # Errors
    /// Errors of the ledger; the next pass writes them.
    pub async fn tell(&mut self, ledger: &SharedLedger) -> Result<(), Error> {
        let now: Vec<_> = std::mem::take(&mut self.now)
            .into_iter()
            .map(|((kind, subject), detail)| (kind, subject, detail))
            .collect();
        if self.told.as_ref() == Some(&now) {
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
        ledger.note_findings(SOURCE, &written).await?;
        self.told = Some(now);
        Ok(())
    }
}
