//! Repairs need proof, not only absence (P11): tasks that end without a record, that replace themselves, that kill their
//! workers, and workers that report nothing. Executions are counted from what the tasks themselves recorded.

mod endings;
mod keys;
mod kinds;
mod poison;
mod silent;
mod suspended;

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::environment::{Harness, Lent, Options};
use crate::harness::process::folder;
use crate::harness::wait::within;
use crate::harness::{Celery, CeleryOptions, eventually};

/// Surveys more often than in production, so that a test takes seconds.
const QUICK: &str = "[sweeper]\nperiod = '1s'\ngrace = '500ms'\nworker_lost_after = '5s'\n\
     [recovery]\nsettle_after = '4s'\n";
const SETTLED: Duration = Duration::from_secs(120);

type Env = Lent<Box<Harness>>;

/// An environment in which every execution is counted.
struct Counted {
    env: Env,
    journal: PathBuf,
}

impl Counted {
    fn start(celery: CeleryOptions, config: &str) -> Self {
        let journal = folder("journal").join("journal");
        let celery = journalled(celery, &journal);
        let env = Harness::start(&Options { celery, config: format!("{QUICK}{config}"), ..Options::default() });
        Self { env, journal }
    }

    /// Its worker may ignore requests and send no events, so the test does not wait for its events.
    fn start_deaf(celery: CeleryOptions, config: &str) -> Self {
        let mut this = Self::start_without(config);
        this.env.celery = Some(this.second_worker(celery));
        this
    }

    /// No worker consumes its queues.
    fn start_without(config: &str) -> Self {
        let journal = folder("journal").join("journal");
        let options = Options { without_worker: true, config: format!("{QUICK}{config}"), ..Options::default() };
        Self { env: Harness::start(&options), journal }
    }

    /// Its worker is one of the newest Celery, with default flags.
    async fn usual(config: &str) -> Self {
        let this = Self::start(CeleryOptions::default(), config);
        this.worker_is_known().await;
        this
    }

    /// Waits until the gateway knows the worker's pool: while it is unknown, silence proves nothing for an hour.
    async fn worker_is_known(&self) {
        eventually("the worker has said what its pool is", async || {
            let workers = self.env.http.get("/v1/workers").await.expect(200);
            workers["workers"][0]["pool"].is_string().then_some(())
        })
        .await;
    }

    /// How often the task was begun.
    fn runs(&self, id: &str) -> usize {
        let journal = std::fs::read_to_string(&self.journal).unwrap_or_default();
        journal.lines().filter(|line| line.starts_with(&format!("start {id} "))).count()
    }

    async fn has_begun(&self, id: &str) {
        within(SETTLED, &format!("{id} is begun"), async || (self.runs(id) > 0).then_some(())).await;
    }

    async fn ends(&self, id: &str) -> Value {
        within(SETTLED, &format!("{id} ends"), async || {
            let answer = self.env.http.get(&format!("/result/{id}")).await;
            (answer.status == 200).then(|| answer.json())
        })
        .await
    }

    async fn task(&self, id: &str) -> Value {
        self.env.http.get(&format!("/v1/tasks/{id}")).await.expect(200)
    }

    async fn phase(&self, id: &str, phase: &str) -> Value {
        within(SETTLED, &format!("{id} is {phase}"), async || {
            let task = self.task(id).await;
            (task["phase"] == phase).then_some(task)
        })
        .await
    }

    /// Waits for this many further surveys of the sweeper.
    async fn surveys(&self, times: usize) {
        let count = async || {
            let metrics = self.env.http.get("/metrics").await.text();
            let line = metrics.lines().find_map(|line| line.strip_prefix("taskgate_sweeper_looks_total "));
            line.and_then(|count| count.parse::<usize>().ok()).unwrap_or(0)
        };
        let before = count().await;
        within(SETTLED, "the sweeper looks", async || (count().await >= before + times).then_some(())).await;
    }

    async fn incident(&self, kind: &str, subject: &str) -> Option<Value> {
        let all = self.env.http.get("/v1/incidents").await.expect(200);
        let all = all["incidents"].as_array().expect("a list").clone();
        all.into_iter().find(|one| one["kind"] == kind && (subject.is_empty() || one["subject"] == subject))
    }

    async fn incident_opens(&self, kind: &str, subject: &str) -> Value {
        within(SETTLED, &format!("{kind} of {subject} is said"), async || self.incident(kind, subject).await).await
    }

    async fn is_dead_letter(&self, id: &str) -> bool {
        let letters = self.env.http.get("/v1/dead-letters").await.expect(200);
        letters["tasks"].as_array().expect("a list").iter().any(|letter| letter["task_id"] == id)
    }

    async fn explained(&self, id: &str) -> String {
        let answer = self.env.http.get(&format!("/v1/tasks/{id}/explain")).await.expect(200);
        answer["sentence"].as_str().unwrap_or_else(|| panic!("no sentence in {answer}")).to_owned()
    }

    fn second_worker(&self, options: CeleryOptions) -> Celery {
        Celery::start(&self.env.redis, journalled(options, &self.journal))
    }
}

fn journalled(mut options: CeleryOptions, journal: &std::path::Path) -> CeleryOptions {
    options.environment.push(("DEMO_JOURNAL".to_owned(), journal.display().to_string()));
    options
}

/// Without `--without-…` a worker is heard, and can be asked; with all three it only answers.
fn eventless() -> CeleryOptions {
    let flags = ["--without-heartbeat", "--without-gossip", "--without-mingle"];
    CeleryOptions { arguments: flags.map(str::to_owned).to_vec(), ..CeleryOptions::default() }
}

/// With the policy to run tasks of dead workers again.
fn rerun(names: &[&str]) -> String {
    names.iter().map(|name| format!("[[tasks]]\nname = '{name}'\nrecovery = 'rerun'\n")).collect()
}

fn signature(task: &str, args: Value) -> Value {
    json!({"task": task, "args": args})
}
