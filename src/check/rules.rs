//! Judges from the facts what does not fit together. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::facts::Differing;
use super::{Facts, Finding, Weight, WorkerFacts, fleet, reach, stores};
use crate::catalog::Catalog;
use crate::config::Config;
use celery::spelling::nearest;
use celery::task::QueueName;

/// Celery's default: an unacknowledged message is delivered again after an hour.
const CELERY_VISIBILITY_SECS: f64 = 3_600.0;
/// RabbitMQ's default: a message that is unacknowledged for longer closes its channel.
const CONSUMER_TIMEOUT_SECS: f64 = 1_800.0;
/// The sweeper reads results whose events were missed; it needs a few passes before they expire.
const SHORTEST_EXPIRY_SECS: f64 = 300.0;

/// All findings, including what is fine.
pub fn judge(config: &Config, catalog: &Catalog, facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![Finding::new(Weight::Fine, "the configuration is read")];
    findings.extend(reach::judge(config, facts));
    findings.extend(stores::judge(catalog, facts));
    findings.extend(facts.sizes.iter().map(|advice| Finding::new(Weight::Warning, advice.detail.as_str())));
    if facts.broker.is_err() {
        return findings;
    }
    findings.extend(differing(facts));
    findings.extend(present(facts));
    if facts.workers.is_empty() {
        findings.extend(fleet::elsewhere(config, facts));
        return findings;
    }
    findings.extend(fleet::mute(facts));
    findings.extend(registered(catalog, facts));
    findings.extend(consumed(catalog, facts));
    findings.extend(delivered(catalog, facts));
    for (node, worker) in &facts.workers {
        if config.broker.redis.is_rabbitmq() {
            findings.extend(outlasting(config, catalog, node));
        } else {
            findings.extend(visible(config, catalog, node, worker));
        }
        findings.extend(expires(node, worker));
        findings.extend(results(config, node, worker));
        findings.extend(fleet::backend_prefix(config, facts, node, worker));
        findings.extend(fleet::transport(config, node, worker));
        findings.extend(fleet::serializers(node, worker));
    }
    findings
}

/// Queues and exchanges that the broker has otherwise than the configuration says.
fn differing(facts: &Facts) -> Vec<Finding> {
    let tell = |differing: &Differing| {
        let Differing { kind, name, said } = differing;
        let text =
            format!("the {kind} {name} is not as [{kind}s.{name}] says, and is used as it is; the broker says: {said}");
        Finding::new(Weight::Warning, text)
    };
    facts.differing.iter().map(tell).collect()
}

fn present(facts: &Facts) -> Option<Finding> {
    if facts.workers.is_empty() {
        let text = "no worker answers: none runs, or none has remote control, or broker.global_keyprefix or fanout_prefix differs from theirs";
        return Some(Finding::new(Weight::Problem, text));
    }
    let nodes: Vec<&str> = facts.workers.keys().map(String::as_str).collect();
    Some(Finding::new(Weight::Fine, format!("{} workers answer: {}", nodes.len(), nodes.join(", "))))
}

/// Task names that no worker registers.
fn registered(catalog: &Catalog, facts: &Facts) -> Vec<Finding> {
    let known: BTreeSet<&str> =
        facts.workers.values().flat_map(|worker| &worker.registered).map(String::as_str).collect();
    let missing = catalog.names().into_iter().filter(|name| !known.contains(name));
    let tell = |name: &str| {
        let hint = hint(name, &known);
        Finding::new(Weight::Problem, format!("no worker registers {name}, which the catalog declares{hint}"))
    };
    missing.map(tell).collect()
}

/// Queues that no worker consumes.
fn consumed(catalog: &Catalog, facts: &Facts) -> Vec<Finding> {
    let known: BTreeSet<&str> = facts.workers.values().flat_map(|worker| &worker.queues).map(String::as_str).collect();
    let named = catalog.queues();
    let missing = named.iter().filter(|queue| !known.contains(queue.as_str()));
    let tell = |queue: &QueueName| {
        let hint = hint(queue.as_str(), &known);
        Finding::new(Weight::Problem, format!("no worker consumes the queue {queue}{hint}"))
    };
    missing.map(tell).collect()
}

/// Tasks whose queue is consumed, but only by workers that do not know them.
fn delivered(catalog: &Catalog, facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for name in catalog.names() {
        let queue = catalog.queue_for(name);
        let knows = |worker: &&WorkerFacts| worker.registered.contains(name);
        let mut consumers =
            facts.workers.iter().filter(|(_, worker)| worker.queues.contains(queue.as_str())).peekable();
        let is_known = facts.workers.values().any(|worker| knows(&worker));
        if !is_known || consumers.peek().is_none() {
            continue;
        }
        let strangers: Vec<&str> =
            consumers.filter(|(_, worker)| !knows(worker)).map(|(node, _)| node.as_str()).collect();
        if !strangers.is_empty() {
            let text = format!("{name} goes to {queue}, which {} consumes without knowing it", strangers.join(", "));
            findings.push(Finding::new(Weight::Problem, text));
        }
    }
    findings
}

/// Compares visibility timeouts.
fn visible(config: &Config, catalog: &Catalog, node: &str, worker: &WorkerFacts) -> Vec<Finding> {
    let theirs = worker.conf.visibility_timeout.unwrap_or(CELERY_VISIBILITY_SECS);
    let ours = config.broker.visibility_timeout.as_secs_f64();
    let mut findings = Vec::new();
    if (theirs - ours).abs() > 0.5 {
        let text = format!(
            "{node} delivers unacknowledged messages again after {theirs} s, broker.visibility_timeout says {ours} s"
        );
        findings.push(Finding::new(Weight::Warning, text));
    }
    let longest = catalog.entries().iter().filter_map(|entry| Some((entry.defaults.time_limit?, entry.name.as_str())));
    if let Some((limit, name)) = longest.max_by(|left, right| left.0.total_cmp(&right.0))
        && limit > theirs
    {
        let text = format!(
            "{name} may run {limit} s, longer than the visibility timeout of {node} ({theirs} s): without a gateway that \
             renews its lease it would be delivered twice"
        );
        findings.push(Finding::new(Weight::Warning, text));
    }
    findings
}

/// The task that outlasts the timeout of its queue most, if it acknowledges late: RabbitMQ would deliver it a second time while it runs.
fn outlasting(config: &Config, catalog: &Catalog, node: &str) -> Vec<Finding> {
    let mut longest: BTreeMap<String, (f64, &str)> = BTreeMap::new();
    for entry in catalog.entries() {
        let Some(limit) = entry.defaults.time_limit else { continue };
        let timeout = consumer_timeout(config, &catalog.queue_for(entry.name.as_str()));
        let is_longest = longest.get(&timeout.0).is_none_or(|(most, _)| limit > *most);
        if limit > timeout.1 && is_longest {
            longest.insert(timeout.0, (limit, entry.name.as_str()));
        }
    }
    let tell = |(timeout, (limit, name)): (String, (f64, &str))| {
        let text = format!(
            "{name} may run {limit} s, longer than {timeout}: with acks_late {node} would lose its channel, and the task would be \
             delivered twice; raise the timeout"
        );
        Finding::new(Weight::Warning, text)
    };
    longest.into_iter().map(tell).collect()
}

/// How long a message of this queue may be unacknowledged, in words and in seconds.
fn consumer_timeout(config: &Config, queue: &QueueName) -> (String, f64) {
    let declared = config.queues.iter().find(|declared| declared.name == *queue);
    let arguments = declared.and_then(|queue| serde_json::from_str::<Value>(&queue.arguments).ok()).unwrap_or_default();
    match arguments["x-consumer-timeout"].as_f64().map(|milliseconds| milliseconds / 1_000.0) {
        Some(seconds) => (format!("the x-consumer-timeout of {seconds} s of its queue {queue}"), seconds),
        None => {
            let text = format!("RabbitMQ's consumer_timeout of {CONSUMER_TIMEOUT_SECS} s unless it was changed");
            (text, CONSUMER_TIMEOUT_SECS)
        }
    }
}

/// Results that expire too soon.
fn expires(node: &str, worker: &WorkerFacts) -> Option<Finding> {
    let seconds = worker.conf.result_expires?;
    if seconds > 0.0 && seconds < SHORTEST_EXPIRY_SECS {
        let text = format!(
            "results of {node} expire after {seconds} s: an outage of the gateway longer than that loses them; use {SHORTEST_EXPIRY_SECS} s or more"
        );
        return Some(Finding::new(Weight::Problem, text));
    }
    if seconds == 0.0 {
        return Some(Finding::new(
            Weight::Warning,
            format!("results of {node} never expire: Redis grows without bound"),
        ));
    }
    None
}

/// Compares where results are stored. Hosts may have several names, so only scheme and database are compared.
fn results(config: &Config, node: &str, worker: &WorkerFacts) -> Option<Finding> {
    let Some(theirs) = worker.conf.result_backend.as_deref().filter(|url| !url.starts_with("disabled")) else {
        let text = format!("{node} stores no results: taskgate will know ends from events only");
        return Some(Finding::new(Weight::Problem, text));
    };
    if config.backend.reply_queue().is_some() {
        let text = format!("{node} has another result backend than rpc://, which backend.url says: {theirs}");
        return (!theirs.starts_with("rpc")).then(|| Finding::new(Weight::Problem, text));
    }
    if config.backend.results.is_some() {
        let text =
            format!("{node} does not store its results in a database, where backend.url looks for them: {theirs}");
        let is_database = theirs.starts_with("db+") || theirs.starts_with("django");
        return (!is_database).then(|| Finding::new(Weight::Problem, text));
    }
    let ours = &config.backend.redis;
    if !["redis", "rediss", "sentinel", "unix", "socket"].iter().any(|scheme| theirs.starts_with(scheme)) {
        let scheme = theirs.split(':').next().unwrap_or_default();
        return Some(Finding::new(
            Weight::Problem,
            format!("{node} stores results in {scheme}, which taskgate cannot read"),
        ));
    }
    let (theirs, mine) = (database(theirs), database(ours.url.reveal()));
    if theirs != mine {
        let text = format!("{node} stores results in database {theirs}, backend.url reads database {mine}");
        return Some(Finding::new(Weight::Problem, text));
    }
    None
}

/// The database number of a Redis URL.
fn database(url: &str) -> &str {
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let asked =
        query.split('&').find_map(|pair| pair.strip_prefix("db=").or_else(|| pair.strip_prefix("virtual_host=")));
    let last = path.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map_or("", |(_, database)| database);
    asked.unwrap_or(if !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()) { last } else { "0" })
}

fn hint(name: &str, known: &BTreeSet<&str>) -> String {
    nearest(name, known.iter().copied()).map_or_else(String::new, |near| format!("; did you mean {near}?"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::check::Writes;
    use crate::config::Role;
    use broker::Heard;
    use celery::conf::{Conf, Hidden};

    const CONFIG: &str = "database.url = \"sqlite://x\"\nbackend.url = \"redis://h/1\"\nbroker.url = \"redis://h/0\"\n\
        [[tasks]]\nname = \"tasks.add\"\nqueue = \"math\"\ntime_limit = 30\n";

    fn worker() -> WorkerFacts {
        WorkerFacts {
            registered: ["tasks.add".to_owned()].into(),
            queues: ["math".to_owned(), "celery".to_owned()].into(),
            conf: Conf { result_backend: Some("redis://:********@other-name/1".to_owned()), ..Conf::default() },
        }
    }

    /// All of them send events.
    fn facts(workers: BTreeMap<String, WorkerFacts>) -> Facts {
        let hosts = workers.keys().cloned().collect();
        let writes = || Writes { taken: Ok(()), memory: None };
        Facts {
            ledger: Some(Ok("sqlite")),
            ledger_writes: Ok(()),
            ledger_hears: true,
            broker: Ok(()),
            backend: Ok(()),
            broker_writes: writes(),
            backend_writes: writes(),
            workers,
            heard: Some(Heard { hosts, ..Heard::default() }),
            prefixes: BTreeSet::new(),
            result_prefixes: BTreeSet::new(),
            differing: Vec::new(),
            stores: Vec::new(),
            sizes: Vec::new(),
        }
    }

    #[test]
    fn what_answers_and_takes_no_writes_is_a_problem_with_what_helps() {
        let config = Config::parse(Role::Check, CONFIG).unwrap();
        let catalog = Catalog::compile(&config).unwrap();
        let evicting = broker::Memory { limit: 1, policy: "allkeys-lru".to_owned() };
        let facts = Facts {
            ledger_writes: Err("read-only".to_owned()),
            broker_writes: Writes { taken: Err("READONLY".to_owned()), memory: None },
            backend_writes: Writes { taken: Ok(()), memory: Some(evicting) },
            ..facts(BTreeMap::new())
        };
        let found: Vec<String> = judge(&config, &catalog, &facts).iter().map(ToString::to_string).collect();
        for expected in [
            "problem  the ledger at sqlite://x answers and takes no writes: read-only",
            "problem  the broker at redis://h/0 answers and takes no writes: READONLY",
            "CONFIG SET maxmemory-policy noeviction",
        ] {
            assert!(found.iter().any(|text| text.contains(expected)), "{expected}: {found:?}");
        }
    }

    fn complaints(worker: Option<WorkerFacts>) -> Vec<String> {
        let config = Config::parse(Role::Check, CONFIG).unwrap();
        let catalog = Catalog::compile(&config).unwrap();
        let workers: BTreeMap<_, _> = worker.into_iter().map(|worker| ("w@h".to_owned(), worker)).collect();
        let facts = facts(workers);
        let findings = judge(&config, &catalog, &facts).into_iter();
        findings.filter(|finding| finding.weight != Weight::Fine).map(|finding| finding.text).collect()
    }

    #[test]
    fn what_fits_together_is_not_complained_of() {
        assert_eq!(complaints(Some(worker())), Vec::<String>::new());
    }

    #[test]
    fn each_misfit_has_its_own_sentence() {
        type Change = fn(&mut WorkerFacts);
        let cases: [(Change, &str); 15] = [
            (
                |w| w.registered = ["tasks.ad".to_owned()].into(),
                "no worker registers tasks.add, which the catalog declares; did you mean tasks.ad?",
            ),
            (
                |w| w.queues = ["maths".to_owned(), "celery".to_owned()].into(),
                "no worker consumes the queue math; did you mean maths?",
            ),
            (|w| w.conf.visibility_timeout = Some(60.0), "broker.visibility_timeout says 3600 s"),
            (|w| w.conf.visibility_timeout = Some(10.0), "tasks.add may run 30 s"),
            (|w| w.conf.result_expires = Some(10.0), "expire after 10 s"),
            (|w| w.conf.result_expires = Some(0.0), "never expire"),
            (|w| w.conf.result_backend = None, "stores no results"),
            (|w| w.conf.result_backend = Some("db+postgresql://h/d".to_owned()), "stores results in db+postgresql"),
            (|w| w.conf.result_backend = Some("redis://h".to_owned()), "database 0, backend.url reads database 1"),
            (|w| w.conf.backend_prefix = Hidden::Masked, "which Celery masks with asterisks"),
            (|w| w.conf.sep = Some(":".to_owned()), "write under [broker]: sep = \":\""),
            (|w| w.conf.masked = vec!["unacked_key"], "has its own unacked_key"),
            (|w| w.conf.accept_content = Some(vec!["yaml".to_owned()]), "accepts yaml and no JSON"),
            (|w| w.conf.result_serializer = Some("pickle".to_owned()), "stores results in pickle"),
            (|w| w.conf.backend_prefix = Hidden::Shown("x".to_owned()), "under the prefix \"x\""),
        ];
        for (change, expected) in cases {
            let mut worker = worker();
            change(&mut worker);
            let found = complaints(Some(worker));
            assert!(found.iter().any(|text| text.contains(expected)), "{expected}: {found:?}");
        }
        assert!(complaints(None)[0].starts_with("no worker answers"));
    }

    #[test]
    fn a_worker_that_takes_what_it_does_not_know_is_found() {
        let config = Config::parse(Role::Check, CONFIG).unwrap();
        let catalog = Catalog::compile(&config).unwrap();
        let stranger = WorkerFacts { registered: BTreeSet::new(), ..worker() };
        let workers = [("a@h".to_owned(), worker()), ("b@h".to_owned(), stranger)].into();
        let facts = Facts { ledger: None, backend: Err("refused".to_owned()), ..facts(workers) };
        let texts: Vec<String> =
            judge(&config, &catalog, &facts).into_iter().map(|finding| finding.to_string()).collect();
        assert!(texts.iter().any(|text| text.contains("which b@h consumes without knowing it")), "{texts:?}");
        assert!(texts.iter().any(|text| text.starts_with("problem") && text.contains("result backend")), "{texts:?}");
    }

    #[test]
    fn a_worker_without_events_is_named_with_the_flag_to_change() {
        let config = Config::parse(Role::Check, CONFIG).unwrap();
        let catalog = Catalog::compile(&config).unwrap();
        let facts = Facts { heard: Some(Heard::default()), ..facts([("w@h".to_owned(), worker())].into()) };
        let texts: Vec<String> =
            judge(&config, &catalog, &facts).into_iter().map(|finding| finding.to_string()).collect();
        assert!(texts.iter().any(|text| text.contains("w@h sends no events") && text.contains("-E")), "{texts:?}");
    }

    #[test]
    fn a_fleet_that_calls_things_otherwise_is_seen_from_its_keys_and_channels() {
        let config = Config::parse(Role::Check, CONFIG).unwrap();
        let catalog = Catalog::compile(&config).unwrap();
        let heard = Heard { elsewhere: ["app:/0.celeryev/worker.heartbeat".to_owned()].into(), ..Heard::default() };
        let facts = Facts { heard: Some(heard), prefixes: ["app:".to_owned()].into(), ..facts(BTreeMap::new()) };
        let texts: Vec<String> =
            judge(&config, &catalog, &facts).into_iter().map(|finding| finding.to_string()).collect();
        assert!(texts.iter().any(|text| text.contains("global_keyprefix = \"app:\"")), "{texts:?}");
        assert!(texts.iter().any(|text| text.contains("app:/0.celeryev/worker.heartbeat")), "{texts:?}");
    }
}
