//! The commands that `taskgate dev` prints to try out: they work with its configuration, addresses, tokens and endpoints.

use std::net::SocketAddr;

use crate::config::{Auth, Config, RawTask};

/// The address of the gateway as this machine's programs reach it.
pub fn base(config: &Config, listen: SocketAddr) -> String {
    let scheme = if config.http.tls.is_some() { "https" } else { "http" };
    let path = config.http.base_path.trim_end_matches('/');
    if listen.ip().is_unspecified() {
        return format!("{scheme}://127.0.0.1:{}{path}", listen.port());
    }
    format!("{scheme}://{listen}{path}")
}

/// Commands to try, one per line.
pub fn lines(config: &Config, base: &str) -> Vec<String> {
    let mut curl = "curl".to_owned();
    if let Some(tls) = &config.http.tls {
        curl.push_str(&format!(" --cacert {}", tls.cert.display()));
    }
    let mut lines = Vec::new();
    if config.auth != Auth::None {
        curl.push_str(" -H \"Authorization: Bearer $TASKGATE_TOKEN\"");
        lines.push(
            "Every request needs a token; `taskgate token create --name NAME --scope submit,read` makes one."
                .to_owned(),
        );
    }
    lines.push("Try:".to_owned());
    lines.extend(config.tasks.iter().find_map(plain_call).map(|path| format!("  {curl} -X POST {base}{path}")));
    lines.push(format!("  {curl} -N {base}/v1/events"));
    let (task, args) = if is_sample(config) { ("tasks.add", "[2, 3]") } else { (first_name(config), "[]") };
    let call = format!(r#"{{"task": "{task}", "args": {args}}}"#);
    lines.push(format!(
        "  {curl} -X POST {base}/v1/tasks -H 'Prefer: wait=10' -H 'Content-Type: application/json' -d '{call}'"
    ));
    lines
}

/// Whether the catalog is the sample one: a catalog of the user's own has tasks that the worker in this process does not know.
fn is_sample(config: &Config) -> bool {
    config.tasks.is_empty() || config.tasks.iter().any(|task| task.name.0 == "tasks.add")
}

fn first_name(config: &Config) -> &str {
    config.tasks.first().map_or("tasks.add", |task| task.name.0.as_str())
}

/// The path of an entry that is called without a body, with values for its parameters.
fn plain_call(task: &RawTask) -> Option<String> {
    let path = task.endpoint.as_ref()?.0.strip_prefix("POST ")?.trim();
    if task.body.is_some() {
        return None;
    }
    let segments =
        path.split('/').map(|segment| match segment.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
            None => Some(segment.to_owned()),
            Some(name) => task.values.get(name)?.keys().last().cloned(),
        });
    segments.collect::<Option<Vec<String>>>().map(|segments| segments.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Role;

    fn told(settings: &str) -> String {
        let config = Config::parse(Role::Dev, settings).unwrap();
        lines(&config, &base(&config, "0.0.0.0:8000".parse().unwrap())).join("\n")
    }

    #[test]
    fn endpoints_are_those_of_the_catalog() {
        let sample = told(super::super::SAMPLE);
        assert!(sample.contains("POST http://127.0.0.1:8000/run-crawler/volunteer"), "{sample}");
        let own = told("[[tasks]]\nname = 'app.send'\nendpoint = 'POST /send/{to}'\nargs = ['{to}']\n");
        assert!(!own.contains("run-crawler") && !own.contains("/send/"), "{own}");
        assert!(own.contains(r#"{"task": "app.send", "args": []}"#), "{own}");
    }

    #[test]
    fn where_tokens_are_asked_for_the_commands_send_one() {
        let text = told("auth = 'token'");
        assert!(text.contains("taskgate token create") && text.contains("Bearer $TASKGATE_TOKEN"), "{text}");
    }

    #[test]
    fn a_base_path_is_a_part_of_every_address() {
        assert!(told("http.base_path = '/gate'").contains("http://127.0.0.1:8000/gate/v1/events"));
    }
}
