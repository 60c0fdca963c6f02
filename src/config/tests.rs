use std::io::Write;
use std::time::Duration;

use super::*;

fn refused(toml: &str) -> String {
    Config::parse(Role::Dev, toml).expect_err("must be refused").to_string()
}

fn given(environment: &[(&str, &str)]) -> Given {
    let environment = environment.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    Given { environment, ..Given::default() }
}

#[test]
fn nothing_said_gives_the_documented_defaults() {
    let config = Config::parse(Role::Dev, "").unwrap();
    assert_eq!(config.http.listen.to_string(), "127.0.0.1:8000");
    assert_eq!(config.broker.default_queue.as_str(), "celery");
    assert_eq!(config.broker.visibility_timeout, Duration::from_secs(3_600));
    assert_eq!(config.backend.redis.url.reveal(), "redis://127.0.0.1:6379/1");
    assert_eq!(config.limits.body, 8 << 20);
    assert_eq!(config.ledger.keep, Duration::from_secs(180 * 86_400));
    assert_eq!(config.auth, Auth::None);
    assert_eq!(config.submit.allow, ["*"]);
}

#[test]
fn the_variables_of_other_programs_are_understood_and_celery_s_own_win() {
    let usual = [("REDIS_URL", "redis://a:1/0"), ("RESULT_BACKEND", "redis://c:1/1")];
    let read = |variables: &[(&'static str, &'static str)]| {
        let config = Config::load(Role::Check, &given(variables)).unwrap();
        (config.broker.redis.url.reveal().to_owned(), config.backend.redis.url.reveal().to_owned())
    };
    assert_eq!(read(&usual), ("redis://a:1/0".to_owned(), "redis://c:1/1".to_owned()));
    let more = [&usual[..], &[("BROKER_URL", "redis://b:1/0")]].concat();
    assert_eq!(read(&more).0, "redis://b:1/0", "it says what it is for");
    let all =
        [&more[..], &[("CELERY_BROKER_URL", "redis://d:1/0"), ("CELERY_RESULT_BACKEND", "redis://e:1/1")]].concat();
    assert_eq!(read(&all), ("redis://d:1/0".to_owned(), "redis://e:1/1".to_owned()));
}

#[test]
fn a_flag_wins_over_a_variable_over_the_file_over_foreign_variables() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    write!(file, "[database]\nurl = \"postgres://file/db\"\n[http]\nlisten = \"127.0.0.1:1\"\nsse_heartbeat = 1")
        .unwrap();
    let mut given = given(&[
        ("DATABASE_URL", "postgres://foreign/db"),
        ("CELERY_BROKER_URL", "redis://foreign:1/0"),
        ("CELERY_RESULT_BACKEND", "redis://foreign:1/1"),
        ("TASKGATE_HTTP__LISTEN", "127.0.0.1:2"),
        ("TASKGATE_HTTP__SSE_HEARTBEAT", "2s"),
    ]);
    given.file = Some(file.path().to_owned());
    given.flags.push(("http.listen".to_owned(), "listen".to_owned(), "127.0.0.1:3".to_owned()));
    let config = Config::load(Role::Serve, &given).unwrap();
    assert_eq!(config.database.url.unwrap().reveal(), "postgres://file/db");
    assert_eq!(config.broker.redis.url.reveal(), "redis://foreign:1/0");
    assert_eq!(config.http.sse_heartbeat, Duration::from_secs(2));
    assert_eq!(config.http.listen.port(), 3);
    assert_eq!(config.said.place("http.listen"), "http.listen (from --listen)");
}

#[test]
fn lists_and_tables_come_from_variables_too() {
    let given = given(&[
        ("TASKGATE_SUBMIT__ALLOW", "tasks.*, reports.daily"),
        ("TASKGATE_ROUTES", r#"{"heavy_tasks.*": "heavy"}"#),
        ("TASKGATE_TASKS", r#"[{"name": "tasks.add", "endpoint": "POST /add", "priority": 3}]"#),
        ("TASKGATE_DATABASE__MIGRATE", "off"),
        ("TASKGATE_BROKER__KEY_PREFIX", "123"),
    ]);
    let config = Config::load(Role::Worker, &given).unwrap();
    assert_eq!(config.submit.allow, ["tasks.*", "reports.daily"]);
    assert_eq!(config.routes.0[0].0, "heavy_tasks.*");
    assert_eq!(config.tasks[0].name.0, "tasks.add");
    assert!(!config.database.migrate);
    assert_eq!(config.broker.redis.key_prefix, "123");
}

#[test]
fn an_unknown_key_is_named_with_the_nearest_known_one() {
    assert_eq!(
        refused("[http]\nlisen = \"x\""),
        "unknown key http.lisen (in taskgate.toml, line 2); did you mean listen?"
    );
    assert_eq!(refused("htp = 1"), "unknown key htp (in taskgate.toml, line 1); did you mean http?");
    assert_eq!(
        refused("[[tasks]]\nname = \"tasks.add\"\nendpont = \"POST /add\""),
        "unknown key tasks[0] (tasks.add).endpont (in taskgate.toml, line 3); did you mean endpoint?"
    );
}

#[test]
fn an_unknown_variable_is_refused_but_kubernetes_own_ones_are_not_ours() {
    let error = Config::load(Role::Dev, &given(&[("TASKGATE_HTP__LISTEN", "x")])).unwrap_err().to_string();
    assert!(error.contains("TASKGATE_HTP__LISTEN") && error.contains("http"), "{error}");
    let error = Config::load(Role::Dev, &given(&[("TASKGATE_HTTP__LISEN", "x")])).unwrap_err().to_string();
    assert!(error.contains("listen"), "{error}");
    let theirs = [("TASKGATE_PORT", "tcp://10.0.0.1:8000"), ("TASKGATE_PORT_8000_TCP_ADDR", "10.0.0.1")];
    assert!(Config::load(Role::Dev, &given(&theirs)).is_ok());
}

#[test]
fn a_value_of_the_wrong_kind_names_its_key() {
    let error = refused("[http]\nsse_heartbeat = \"soon\"");
    assert!(error.starts_with("http.sse_heartbeat") && error.contains("not a duration"), "{error}");
    let error = refused("[database]\nurl = \"mysql://root:geheim@h/db\"");
    assert!(error.contains("database.url") && !error.contains("geheim"), "{error}");
    let error = refused("[broker]\nurl = \"sqs://guest:geheim@h\"\n[backend]\nurl=\"redis://h\"");
    assert!(error.contains("broker.url") && !error.contains("geheim"), "{error}");
}

#[test]
fn a_file_that_is_no_toml_is_refused_with_its_line_but_not_its_text() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    write!(file, "[http]\nlisten = \"127.0.0.1:1\"\nurl = geheim:geheim\n").unwrap();
    let given = Given { file: Some(file.path().to_owned()), ..Given::default() };
    let error = Config::load(Role::Dev, &given).unwrap_err().to_string();
    assert!(error.contains("line 3") && !error.contains("geheim"), "{error}");
}

#[test]
fn contradictions_name_both_places() {
    let error = refused("[http]\nsse_heartbeat = 90");
    assert!(error.contains("http.sse_heartbeat") && error.contains("http.idle_timeout (default)"), "{error}");
    let error = refused("[ledger]\nkeep = \"1d\"\nkeep_payload = \"2d\"");
    assert!(error.contains("ledger.keep_payload") && error.contains("ledger.keep "), "{error}");
}

#[test]
fn results_are_in_the_broker_s_redis_where_nothing_else_is_said() {
    let config = Config::parse(Role::Dev, "[broker]\nurl = \"redis://elsewhere/0\"").unwrap();
    assert_eq!(config.backend.redis.url.reveal(), "redis://elsewhere/0");
}

#[test]
fn serve_needs_a_ledger() {
    let error = Config::parse(Role::Serve, "auth = \"none\"").unwrap_err().to_string();
    assert!(error.starts_with("database.url"), "{error}");
}
