//! Judges from facts whether the ledger and Redis answer, take writes and keep them.

use super::{Facts, Finding, Weight, Writes};
use crate::config::{Config, Secret};

pub(super) fn judge(config: &Config, facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    match (&config.database.url, &facts.ledger) {
        (Some(url), Some(answer)) => {
            findings.push(answers("the ledger", url, &answer.as_ref().map(|_| ()).map_err(Clone::clone)));
            if answer.is_ok() {
                findings.extend(refused("the ledger", url, &facts.ledger_writes));
                findings.extend(pooled(config, facts.ledger_hears));
            }
        }
        _ => findings.push(Finding::new(Weight::Problem, "database.url is not set: serve would not start")),
    }
    let (broker, backend) = (&config.broker.redis.url, &config.backend.redis.url);
    findings.extend(redis("the broker", broker, &facts.broker, &facts.broker_writes));
    findings.extend(redis("the result backend", backend, &facts.backend, &facts.backend_writes));
    findings
}

fn pooled(config: &Config, hears: bool) -> Option<Finding> {
    let text = match &config.database.direct_url {
        _ if hears => return None,
        None => {
            "database.url leads to a connection pooler, such as PgBouncer: everything works, but each replica polls every second for \
             the commits of other replicas; set database.direct_url to the server's own address to be notified of them at once"
        }
        Some(_) => {
            "database.direct_url leads to a connection pooler too: write the address of the PostgreSQL server itself"
        }
    };
    Some(Finding::new(Weight::Warning, text))
}

fn redis(what: &str, url: &Secret, answer: &Result<(), String>, writes: &Writes) -> Vec<Finding> {
    let mut findings = vec![answers(what, url, answer)];
    if answer.is_err() {
        return findings;
    }
    findings.extend(refused(what, url, &writes.taken));
    if let Some(memory) = writes.memory.as_ref().filter(|memory| memory.evicts()) {
        findings.push(Finding::new(Weight::Problem, format!("{what} at {url}: {}", memory.told())));
    }
    findings
}

fn answers(what: &str, url: &Secret, answer: &Result<(), String>) -> Finding {
    match answer {
        Ok(()) => Finding::new(Weight::Fine, format!("{what} answers at {url}")),
        Err(error) => Finding::new(Weight::Problem, format!("{what} at {url} cannot be reached: {error}")),
    }
}

fn refused(what: &str, url: &Secret, taken: &Result<(), String>) -> Option<Finding> {
    let reason = taken.as_ref().err()?;
    Some(Finding::new(Weight::Problem, format!("{what} at {url} answers and takes no writes: {reason}")))
}
