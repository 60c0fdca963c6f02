//! `taskgate check --security`: one sentence for each thing that this deployment leaves open, judged from the configuration and the
//! ledger's tokens alone. `docs/SECURITY-MODEL.md` says what is promised where nothing is left open.

use super::{Finding, Weight};
use crate::catalog::{Catalog, Entry};
use crate::config::{Auth, Config};
use ledger::{Scope, Token};
use runtime::clock::Time;

/// A token that has not been used for this many days is probably not needed.
const UNUSED_DAYS: i64 = 90;
const DAY: i64 = 86_400_000_000;

/// `tokens` are the ledger's, or `None` if it could not be asked.
pub fn judge_security(config: &Config, catalog: &Catalog, tokens: Option<&[Token]>, now: Time) -> Vec<Finding> {
    let mut findings = listener(config);
    findings.extend(transport(config));
    findings.extend(names(config, catalog));
    findings.extend(catalog.entries().iter().flat_map(|entry| commands(entry)));
    findings.extend(webhooks(config));
    findings.extend(
        tokens.unwrap_or_default().iter().filter(|token| token.is_valid_at(now)).flat_map(|listed| token(listed, now)),
    );
    if findings.iter().all(|finding| finding.weight == Weight::Fine) {
        findings.push(Finding::new(Weight::Fine, "nothing is left open that the configuration shows"));
    }
    findings
}

fn open(text: impl Into<String>) -> Finding {
    Finding::new(Weight::Warning, text)
}

fn listener(config: &Config) -> Vec<Finding> {
    let (http, address) = (&config.http, config.http.listen);
    let mut findings = Vec::new();
    match (config.auth, address.ip().is_loopback()) {
        (Auth::Token | Auth::Basic | Auth::Oidc, _) => findings.push(Finding::new(Weight::Fine, "every call needs a token")),
        (Auth::None, true) => findings.push(open(format!(
            "auth = \"none\": every program and user on this machine may submit, read and control everything at {address}"
        ))),
        (Auth::None, false) => findings.push(Finding::new(
            Weight::Problem,
            format!("auth = \"none\" at {address}: everybody who reaches this address may do everything"),
        )),
    }
    if http.origins.iter().any(|origin| origin == "*") {
        findings.push(open("http.cors_origins has \"*\": every web page may call with a token that it has"));
    }
    if config.auth == Auth::None && http.hosts.iter().any(|host| host == "*") {
        findings.push(open("http.hosts has \"*\": a web page whose name is made to point here may read and submit"));
    }
    if config.auth != Auth::None && config.limits.requests.is_none() {
        findings.push(open("limits.requests is not set: a token without a rate of its own may call as fast as it can"));
    }
    findings
}

fn transport(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    let http = &config.http;
    if !http.listen.ip().is_loopback() && http.tls.is_none() && http.trusted_proxies.is_empty() {
        let text = "plain HTTP beyond this machine, and no trusted proxy: tokens and arguments can be read on the way";
        findings.push(open(text));
    }
    for (what, url) in
        [("broker.url", config.broker.redis.url.to_string()), ("backend.url", config.backend.redis.url.to_string())]
    {
        if url.starts_with("redis://") && !is_local(&url) {
            findings.push(open(format!("{what} is plain text over the network: use rediss://")));
        }
        if url.starts_with("redis://") && !url.contains('@') && !is_local(&url) {
            findings.push(open(format!("{what} has no password: whoever reaches Redis may run any task")));
        }
    }
    findings
}

fn is_local(url: &str) -> bool {
    ["://127.", "://localhost", "://[::1]", "@127.", "@localhost", "@[::1]"].iter().any(|place| url.contains(place))
}

fn names(config: &Config, catalog: &Catalog) -> Vec<Finding> {
    let mut findings = Vec::new();
    if config.submit.allow.iter().any(|pattern| pattern == "*") {
        findings.push(open(
            "submit.allow has \"*\": every task that any worker registers may be submitted with any arguments",
        ));
    }
    for entry in catalog.entries().iter().filter(|entry| entry.open) {
        let text = format!("{} is open: calls by name may break what the entry says of its arguments", entry.name);
        findings.push(open(text));
    }
    findings
}

fn commands(entry: &Entry) -> Vec<Finding> {
    if entry.command.is_empty() {
        return Vec::new();
    }
    let mut findings = Vec::new();
    if !entry.declares_arguments() {
        let text = format!("{} runs a command and declares no arguments: callers choose them all", entry.name);
        findings.push(open(text));
    }
    let shell = entry.command.first().and_then(|program| program.rsplit('/').next());
    if matches!(shell, Some("sh" | "bash" | "zsh" | "dash")) && entry.command.iter().any(|word| word == "-c") {
        let text = format!(
            "{} gives its arguments to a shell: a value that the script does not quote is a program",
            entry.name
        );
        findings.push(open(text));
    }
    findings
}

fn webhooks(config: &Config) -> Vec<Finding> {
    let webhooks = &config.webhooks;
    let mut findings = Vec::new();
    if webhooks.allow_private {
        findings.push(open("webhooks.allow_private: webhooks may go to every address of this network"));
    } else if !webhooks.allow.is_empty() {
        findings.push(open(format!("webhooks.allow: webhooks may go to {} private places", webhooks.allow.len())));
    }
    findings
}

fn token(token: &Token, now: Time) -> Vec<Finding> {
    let name = &token.name;
    let mut findings = Vec::new();
    if token.expires_at.is_none() {
        findings.push(open(format!("the token {name} never expires")));
    }
    if token.scopes.contains(&Scope::Admin) && token.tasks.is_empty() {
        findings.push(open(format!("the token {name} may do everything")));
    }
    let last = token.last_used_at.unwrap_or(token.created_at);
    if now.0.saturating_sub(last.0) > UNUSED_DAYS * DAY {
        findings
            .push(open(format!("the token {name} was not used for {UNUSED_DAYS} days: revoke it if nobody needs it")));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Role;

    fn told(toml: &str) -> Vec<String> {
        let config = Config::parse(Role::Check, toml).unwrap();
        let catalog = Catalog::compile(&config).unwrap();
        let findings = judge_security(&config, &catalog, None, Time(0));
        findings.iter().map(ToString::to_string).collect()
    }

    #[track_caller]
    fn assert_told(toml: &str, part: &str) {
        assert!(told(toml).iter().any(|line| line.contains(part)), "{part} in {:#?}", told(toml));
    }

    #[test]
    fn what_is_left_open_is_said_in_a_sentence() {
        assert_told("auth = 'none'", "warning  auth = \"none\": every program and user");
        assert_told("auth = 'none'\n[http]\nlisten = '0.0.0.0:1'", "problem  auth = \"none\" at 0.0.0.0:1");
        assert_told("[http]\ncors_origins = ['*']", "every web page");
        assert_told("[submit]\nallow = ['*']", "submit.allow");
        assert_told("[broker]\nurl = 'redis://redis.internal/0'", "broker.url has no password");
        assert_told("[webhooks]\nallow_private = true", "every address of this network");
        assert_told("tasks = [{name = 'x', open = true}]", "x is open");
        assert_told("tasks = [{name = 'x', command = ['sh', '-c']}]", "x gives its arguments to a shell");
        assert_told("tasks = [{name = 'x', command = ['find']}]", "callers choose them all");
    }

    #[test]
    fn a_closed_deployment_hears_that_it_is_one() {
        let closed = "[limits]\nrequests = '100/s'\n[broker]\nurl = 'redis://127.0.0.1/0'";
        assert!(told(closed).iter().all(|line| line.starts_with("ok")), "{:#?}", told(closed));
    }

    #[test]
    fn tokens_that_live_for_ever_and_do_everything_are_named() {
        let config = Config::parse(Role::Check, "").unwrap();
        let catalog = Catalog::compile(&config).unwrap();
        let admin = Token {
            id: "1".into(),
            name: "root".into(),
            hash: [0; 32],
            scopes: vec![Scope::Admin],
            tasks: Vec::new(),
            namespace: None,
            person: None,
            rate: None,
            created_at: Time(0),
            expires_at: None,
            revoked_at: None,
            last_used_at: None,
        };
        let findings = judge_security(&config, &catalog, Some(&[admin]), Time(100 * DAY));
        let text: String = findings.iter().map(|finding| format!("{finding}\n")).collect();
        for part in ["root never expires", "root may do everything", "root was not used for 90 days"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
