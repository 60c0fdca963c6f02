//! The commands that `taskgate dev` prints to try out. Each is true for the configuration and can be pasted into another terminal: it has the
//! configuration's addresses, certificate, tokens and endpoints, and names a task that the gateway accepts.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::value::RawValue;

use crate::catalog::{Catalog, NamedCall};
use crate::config::{Auth, Config, RawTask};

/// What dev knows besides the configuration.
#[derive(Debug, Clone, Copy, Default)]
pub struct Around<'a> {
    /// The configuration file that was named.
    pub file: Option<&'a Path>,
    /// The ledger's file, unless the configuration names a ledger.
    pub ledger: Option<&'a Path>,
    /// The server that dev started, unless the configuration names a broker.
    pub redis: Option<&'a str>,
}

/// The address of the gateway as this machine's programs reach it.
pub fn base(config: &Config, listen: SocketAddr) -> String {
    let scheme = if config.http.tls.is_some() { "https" } else { "http" };
    let path = config.http.base_path.trim_end_matches('/');
    if listen.ip().is_unspecified() {
        return format!("{scheme}://127.0.0.1:{}{path}", listen.port());
    }
    format!("{scheme}://{listen}{path}")
}

/// What to do first, one per line.
pub fn lines(config: &Config, catalog: &Catalog, base: &str, around: Around<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    if config.auth != Auth::None {
        lines.extend(people(config, base));
        lines.extend(token(config, around));
    }
    let curl = curl(config);
    lines.push("Try:".to_owned());
    // On a broker that others use, their workers would get the samples.
    let may_submit = around.redis.is_some() || config.said.has("tasks");
    let endpoint = config.tasks.iter().filter(|_| may_submit).find_map(plain_call);
    lines.extend(endpoint.map(|path| format!("  {curl} -X POST {}", quoted(&format!("{base}{path}")))));
    lines.push(format!("  {curl} -N {}", quoted(&format!("{base}/v1/events"))));
    lines.push(match may_submit.then(|| call(catalog, around)).flatten() {
        Some(call) => {
            let headers = "-H 'Prefer: wait=10' -H 'Content-Type: application/json'";
            format!("  {curl} -X POST {} {headers} -d '{call}'", quoted(&format!("{base}/v1/tasks")))
        }
        None => format!("  {curl} {}", quoted(&format!("{base}/v1/workers"))),
    });
    lines.extend(joining(config, around));
    lines
}

/// How people come in who have a password or an account.
fn people(config: &Config, base: &str) -> Option<String> {
    let has_login = config.auth == Auth::Oidc || !config.users.is_empty();
    has_login.then(|| format!("People log in at {base}/dashboard/. Programs send a token."))
}

/// How the first token is made, while dev runs.
fn token(config: &Config, around: Around<'_>) -> Vec<String> {
    let file = around.file.map_or_else(String::new, |path| format!(" --config {}", quoted(&absolute(path))));
    let ledger = around.ledger.map_or_else(String::new, |path| {
        format!("TASKGATE_DATABASE__URL={} ", quoted(&format!("sqlite://{}", absolute(path))))
    });
    let variable = match config.said.source("database.url") {
        Some(crate::config::Source::Variable(name)) => format!(" and the same {name}"),
        _ => String::new(),
    };
    vec![
        format!("Every request needs a token. In another terminal, with this program in the PATH{variable}:"),
        format!(
            "  export TASKGATE_TOKEN=$({ledger}taskgate token create{file} --name try-$(date +%s) --scope submit,read)"
        ),
    ]
}

fn curl(config: &Config) -> String {
    let mut curl = "curl".to_owned();
    if let Some(tls) = &config.http.tls {
        curl.push_str(&format!(" --cacert {}", quoted(&absolute(&tls.cert))));
    }
    if config.auth != Auth::None {
        curl.push_str(" -H \"Authorization: Bearer $TASKGATE_TOKEN\"");
    }
    curl
}

/// A call by name that the gateway accepts: the sample on dev's own server, else a task of the catalog.
fn call(catalog: &Catalog, around: Around<'_>) -> Option<String> {
    let sample = around.redis.map(|_| ("tasks.add", "[2, 3]"));
    let own = catalog.names().into_iter().map(|name| (name, "[]"));
    let (task, args) = sample.into_iter().chain(own).find(|(task, args)| is_accepted(catalog, task, args))?;
    Some(format!(r#"{{"task": "{task}", "args": {args}}}"#))
}

fn is_accepted(catalog: &Catalog, task: &str, args: &str) -> bool {
    let raw = |text: &str| serde_json::from_str::<Box<RawValue>>(text).expect("written here");
    let (args, kwargs) = (raw(args), raw("{}"));
    let whole = NamedCall {
        name: task,
        args: &args,
        kwargs: &kwargs,
        queue: None,
        soft_time_limit: None,
        time_limit: None,
        fed: false,
    };
    let is_single = catalog.entry(task).is_none_or(|entry| entry.canvas.is_none() && entry.upload.is_none());
    !task.contains(['"', '\'', '\\']) && is_single && catalog.permits(task) && catalog.admit(whole).is_ok()
}

/// How Celery's workers join dev's own server, or whom dev has joined.
fn joining(config: &Config, around: Around<'_>) -> Vec<String> {
    let Some(redis) = around.redis else {
        return vec![
            String::new(),
            "The worker in this process takes tasks from the queues of that broker, too. If a fleet works there, name another database."
                .to_owned(),
        ];
    };
    let queue = config.broker.default_queue.as_str();
    let queues = if queue == "celery" { String::new() } else { format!(" -Q {}", quoted(queue)) };
    vec![
        String::new(),
        "A Celery worker may join:".to_owned(),
        format!("  CELERY_BROKER_URL={redis}/0 CELERY_RESULT_BACKEND={redis}/1 celery -A yourapp worker{queues}"),
    ]
}

/// The path of an entry that is called without a body, with values for its parameters.
fn plain_call(task: &RawTask) -> Option<String> {
    let path = task.endpoint.as_ref()?.0.strip_prefix("POST ")?.trim();
    if task.body.is_some() || task.upload.is_some() {
        return None;
    }
    let segments =
        path.split('/').map(|segment| match segment.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
            None => Some(segment.to_owned()),
            Some(name) => task.values.get(name)?.keys().last().cloned(),
        });
    segments.collect::<Option<Vec<String>>>().map(|segments| segments.join("/"))
}

/// Another terminal may be in another folder.
fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}

/// A word of a shell's command line.
fn quoted(word: &str) -> String {
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "_-./:@%+=,".contains(char);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Role;

    const OWN_REDIS: Around<'_> = Around { file: None, ledger: None, redis: Some("redis://:dev_1@127.0.0.1:7000") };

    fn told_around(settings: &str, listen: &str, around: Around<'_>) -> String {
        let config = Config::parse(Role::Dev, settings).unwrap();
        let catalog = Catalog::compile(&config).unwrap();
        lines(&config, &catalog, &base(&config, listen.parse().unwrap()), around).join("\n")
    }

    fn told(settings: &str) -> String {
        told_around(settings, "0.0.0.0:8000", OWN_REDIS)
    }

    #[test]
    fn endpoints_are_those_of_the_catalog() {
        let sample = told(super::super::SAMPLE);
        assert!(sample.contains("POST http://127.0.0.1:8000/run-crawler/volunteer"), "{sample}");
        let own = told("[[tasks]]\nname = 'app.send'\nendpoint = 'POST /send/{to}'\nargs = ['{to}']\n");
        assert!(!own.contains("run-crawler") && !own.contains("/send/"), "{own}");
    }

    #[test]
    fn the_named_task_is_one_that_the_gateway_accepts() {
        assert!(told("").contains(r#"-d '{"task": "tasks.add", "args": [2, 3]}'"#));
        let own = told("submit.allow = []\n[[tasks]]\nname = 'app.send'\n");
        assert!(own.contains(r#"{"task": "app.send", "args": []}"#), "{own}");
        let typed = "submit.allow = []\n[[tasks]]\nname = 'app.send'\nendpoint = 'POST /send'\nargs = ['{to}']\n[tasks.body]\ntype = 'object'\nrequired = ['to']\nproperties.to.type = 'string'\n";
        let text = told(typed);
        assert!(!text.contains("app.send") && text.contains("curl http://127.0.0.1:8000/v1/workers"), "{text}");
    }

    #[test]
    fn where_tokens_are_asked_for_the_commands_make_and_send_one() {
        let around = Around {
            file: Some(Path::new("/etc/task gate.toml")),
            ledger: Some(Path::new("/data/ledger.db")),
            ..OWN_REDIS
        };
        let text = told_around("auth = 'token'", "127.0.0.1:8000", around);
        let made = "export TASKGATE_TOKEN=$(TASKGATE_DATABASE__URL=sqlite:///data/ledger.db taskgate token create --config '/etc/task gate.toml' ";
        assert!(text.contains(made) && text.contains("Bearer $TASKGATE_TOKEN"), "{text}");
        assert!(!text.contains("log in"), "nobody has a password: {text}");
    }

    #[test]
    fn a_broker_that_others_use_gets_no_sample_and_no_worker_is_asked_to_join() {
        let text = told_around("broker.url = 'redis://10.0.0.5:6380/3'", "127.0.0.1:8000", Around::default());
        assert!(!text.contains("tasks.add") && !text.contains("may join"), "{text}");
        assert!(text.contains("takes tasks from the queues of that broker"), "{text}");
    }

    #[test]
    fn a_worker_that_joins_takes_the_queue_that_the_gateway_sends_to() {
        assert!(told("").ends_with("celery -A yourapp worker"));
        assert!(told("broker.default_queue = 'mail'").ends_with("celery -A yourapp worker -Q mail"));
    }

    #[test]
    fn an_address_that_a_shell_would_read_otherwise_is_quoted() {
        let text = told_around("", "[::1]:8000", OWN_REDIS);
        assert!(text.contains("-N 'http://[::1]:8000/v1/events'"), "{text}");
    }

    #[test]
    fn a_base_path_is_a_part_of_every_address() {
        assert!(told("http.base_path = '/gate'").contains("http://127.0.0.1:8000/gate/v1/events"));
    }
}
