//! Learns the signatures of tasks from workers, by `inspect registered`. Celery 5.4 tells every task's `__annotations__`; a worker whose
//! application calls `taskgate.tell_types()` tells its types in every version, and its required arguments. Every replica asks for itself;
//! asking changes nothing in the fleet.
//!
//! Where workers disagree (for example during a deployment), calls are not checked and an incident names the task; likewise where the call
//! that a catalog entry makes does not fit the worker's signature.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::catalog::{Annotations, Catalog};
use crate::live::learned::Learned;
use broker::{Broker, Replies, Request};

/// Pause between two questions, so that a change of a worker is known within a minute.
const PERIOD: Duration = Duration::from_secs(15);
/// How long workers may take to answer; a busy one answers the next time.
const PATIENCE: Duration = Duration::from_secs(2);
/// The [`ATTRIBUTES`](crate::catalog::ATTRIBUTES) of a task that have its signature.
const ASKED: &str = r#"{"taskinfoitems": ["taskgate_signature", "taskgate_hints", "__annotations__"]}"#;

/// The service that asks the fleet.
pub struct Learner {
    broker: Broker,
    catalog: Arc<Catalog>,
    learned: Learned,
}

impl Learner {
    pub fn new(broker: Broker, catalog: Arc<Catalog>, learned: Learned) -> Self {
        Self { broker, catalog, learned }
    }

    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            match self.broker.ask(&Request::to_all("registered", ASKED), PATIENCE).await {
                Ok(replies) => self.note(&replies),
                Err(error) => debug!(error = %error, "workers could not be asked for their signatures"),
            }
            tokio::select! { () = stop.cancelled() => {} () = tokio::time::sleep(PERIOD) => {} }
        }
    }

    fn note(&self, replies: &Replies) {
        let mut told: BTreeMap<String, Vec<(String, Annotations)>> = BTreeMap::new();
        for (node, reply) in replies {
            let lines: Vec<String> = serde_json::from_str(reply.get()).unwrap_or_default();
            for (name, hints) in lines.iter().filter_map(|line| Annotations::told(line)) {
                let is_wanted = self.learned.wants(&name) || self.catalog.entry(&name).is_some();
                if is_wanted && !hints.is_empty() {
                    told.entry(name).or_default().push((node.clone(), hints));
                }
            }
        }
        let (mut hints, mut misfits) = (HashMap::new(), BTreeMap::new());
        for (name, mut said) in told {
            most_telling_first(&mut said);
            match self.misfit(&name, &said) {
                Some(misfit) => {
                    misfits.insert(name.clone(), misfit);
                    // It is unknown which of them will get the task.
                    if self.learned.wants(&name) {
                        hints.insert(name, Annotations::default());
                    }
                }
                None if self.learned.wants(&name) => drop(hints.insert(name, said[0].1.clone())),
                None => {}
            }
        }
        self.learned.replace(hints, misfits);
    }

    fn misfit(&self, name: &str, said: &[(String, Annotations)]) -> Option<String> {
        let (first, hints) = &said[0];
        if let Some((other, _)) = said.iter().find(|(_, others)| !others.agrees_with(hints)) {
            return Some(format!(
                "{first} and {other} have different signatures of {name}: a call may fit one of them only"
            ));
        }
        let differs: BTreeSet<String> = self.catalog.entries_of(name).flat_map(|entry| entry.misfits(hints)).collect();
        let differs: Vec<String> = differs.into_iter().collect();
        let detail = || format!("the signature of {name} does not fit its catalog entry: {}", differs.join("; "));
        (!differs.is_empty()).then(detail)
    }
}

/// The others are compared with the first, and a worker that tells types only agrees with workers that disagree with each other.
fn most_telling_first(said: &mut [(String, Annotations)]) {
    said.sort_by_key(|(_, hints)| hints.by_name().is_none());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_compared_with_one_that_tells_its_parameters() {
        let lines =
            ["app.f [__annotations__={'x': 'int'}]", "app.f [__annotations__={'x': 'int'} taskgate_signature=(x)]"];
        let told = |line: &str| (line.to_owned(), Annotations::told(line).unwrap().1);
        let mut said = vec![told(lines[0]), told(lines[1])];
        most_telling_first(&mut said);
        assert_eq!((said[0].0.as_str(), said[1].0.as_str()), (lines[1], lines[0]));
    }

    #[test]
    fn workers_are_asked_for_every_attribute_that_is_read() {
        let asked: serde_json::Value = serde_json::from_str(ASKED).unwrap();
        assert_eq!(asked["taskinfoitems"], serde_json::json!(crate::catalog::ATTRIBUTES));
    }
}
