//! Finds differences between taskgate and the workers on the wire: transport options, serializers, missing events. Pure.

use celery::conf::Hidden;

use super::{Facts, Finding, Weight, WorkerFacts};
use crate::config::Config;

/// Transport options that differ, each with the line to paste.
pub(super) fn transport(config: &Config, node: &str, worker: &WorkerFacts) -> Vec<Finding> {
    let ours = &config.broker.transport;
    let differences = ours.differences(&worker.conf.transport(ours)).into_iter().map(|(key, line)| {
        let text = format!("{node} has another {key} than broker.{key}: tasks and bindings would be missed; write under [broker]: {line}");
        Finding::new(Weight::Problem, text)
    });
    let default = celery::Transport::default();
    let said = |name: &str| match name {
        "unacked_key" => ours.unacked_key != default.unacked_key,
        "unacked_index_key" => ours.unacked_index_key != default.unacked_index_key,
        "unacked_mutex_key" => ours.unacked_mutex_key != default.unacked_mutex_key,
        // A worker that answers has the same prefix, because it received the question on our channel.
        _ => true,
    };
    let masked = worker.conf.masked.iter().filter(|name| !said(name)).map(|name| {
        let text = format!(
            "{node} has its own {name}, which Celery masks with asterisks; write it under [broker]: {name} = \"…\", else \
             reserved messages are not seen"
        );
        Finding::new(Weight::Problem, text)
    });
    differences.chain(masked).collect()
}

/// Whether the worker accepts JSON.
pub(super) fn serializers(node: &str, worker: &WorkerFacts) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !worker.conf.accepts_json() {
        let names = worker.conf.accept_content.as_ref().map(|names| names.join(", ")).unwrap_or_default();
        let text = format!(
            "{node} accepts {names} and no JSON: it drops every task from here; add \"json\" to its accept_content"
        );
        findings.push(Finding::new(Weight::Problem, text));
    }
    if worker.conf.result_serializer.as_deref() == Some("pickle") {
        let text = format!(
            "{node} stores results in pickle, which is never run here: states are read, values are given as bytes; \
             json, yaml and msgpack are read"
        );
        findings.push(Finding::new(Weight::Warning, text));
    }
    findings
}

/// Workers that answered but sent no event meanwhile.
pub(super) fn mute(facts: &Facts) -> Vec<Finding> {
    let Some(heard) = &facts.heard else { return Vec::new() };
    let silent = facts.workers.keys().filter(|node| !heard.hosts.contains(*node)).map(|node| {
        let text = format!(
            "{node} sends no events: which of its tasks run, started or were acknowledged is not known, nor what becomes of tasks \
             that store no result; start it without --without-heartbeat, or without --without-gossip, or with -E"
        );
        Finding::new(Weight::Warning, text)
    });
    silent.collect()
}

/// When no worker answers: signs in Redis and on the event channels of a fleet that uses other names.
pub(super) fn elsewhere(config: &Config, facts: &Facts) -> Vec<Finding> {
    let ours = &config.broker.transport;
    let mut findings = Vec::new();
    for prefix in facts.prefixes.iter().filter(|prefix| **prefix != ours.global_keyprefix) {
        let line = format!("global_keyprefix = {}", serde_json::Value::from(prefix.as_str()));
        let text = format!(
            "keys of kombu stand under the prefix {prefix:?}; if they are your fleet's, write under [broker]: {line}"
        );
        findings.push(Finding::new(Weight::Warning, text));
    }
    for channel in facts.heard.iter().flat_map(|heard| &heard.elsewhere) {
        let text = format!(
            "worker events are published on {channel:?}, where broker.global_keyprefix, fanout_prefix and fanout_patterns \
             do not look; take them over from the workers' broker_transport_options"
        );
        findings.push(Finding::new(Weight::Warning, text));
    }
    findings
}

/// Compares the prefix of results. `None` when it fits or cannot be found out.
pub(super) fn backend_prefix(config: &Config, facts: &Facts, node: &str, worker: &WorkerFacts) -> Option<Finding> {
    let ours = broker::backend::prefix(&config.backend.redis.key_prefix);
    let (weight, text) = match &worker.conf.backend_prefix {
        Hidden::Shown(theirs) if broker::backend::prefix(theirs) != ours => (
            Weight::Problem,
            format!("{node} stores results under the prefix {theirs:?}, backend.global_keyprefix is {ours:?}"),
        ),
        Hidden::Unset if !ours.is_empty() => {
            (Weight::Problem, format!("{node} stores results without a prefix, backend.global_keyprefix is {ours:?}"))
        }
        Hidden::Masked => {
            let found = facts.result_prefixes.iter().find(|found| **found != ours);
            if facts.result_prefixes.contains(&ours) {
                return None;
            }
            let hint = found.map_or_else(String::new, |found| format!("; results stand there under {found:?}"));
            (
                if found.is_some() { Weight::Problem } else { Weight::Warning },
                format!(
                    "{node} stores results under a prefix, which Celery masks with asterisks: whether it is {ours:?}, as \
                     backend.global_keyprefix says, cannot be seen{hint}"
                ),
            )
        }
        Hidden::Shown(_) | Hidden::Unset => return None,
    };
    Some(Finding::new(weight, text))
}
