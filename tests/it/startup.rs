//! How the roles start, wait, refuse and migrate (issue items 2, 7; DESIGN §5 `/readyz`).

use std::time::Duration;

use serde_json::json;

use crate::harness::gateway::{config, probe, run};
use crate::harness::postgres::{Cluster, cluster};
use crate::harness::{Celery, CeleryOptions, Gateway, Redis, RedisOptions, eventually, ports};

/// An address at which nobody listens.
fn nobody() -> String {
    format!("redis://127.0.0.1:{}/0", ports::free())
}

#[tokio::test]
async fn serve_starts_without_redis_and_accepts() {
    let database = cluster().migrated_database();
    let gateway = Gateway::serve(&database, &nobody(), &nobody(), "");
    let http = gateway.http();
    assert_eq!(http.get("/livez").await.status, 200);
    let ready = http.get("/readyz").await.expect(200);
    assert_eq!(ready["ready"], true, "{ready}");
    let accepted = http.post("/v1/tasks", &json!({"task": "demo.add", "args": [1, 1]})).await.expect(202);
    assert_eq!(accepted["phase"], "accepted", "{accepted}");
}

#[test]
fn an_ordinary_start_warns_of_nothing() {
    let redis = Redis::start(RedisOptions::default());
    for database in [cluster().empty_database(), "sqlite://ledger.db".to_owned()] {
        let gateway = Gateway::serve(&database, &redis.url(0), &redis.url(1), "");
        let log = gateway.log();
        assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
    }
}

#[tokio::test]
async fn serve_waits_for_a_database_that_is_still_booting() {
    let mut own = Cluster::start();
    let database = own.empty_database();
    own.stop();
    let mut gateway = Gateway::launch(&database, &nobody(), &nobody(), "");
    gateway.wait_for("/livez", 200);
    assert_eq!(probe(gateway.port, "/readyz"), Some(503));
    own.restart();
    gateway.wait_until_ready();
    gateway.http().post("/v1/tasks", &json!({"task": "demo.add"})).await.expect(202);
}

#[tokio::test]
async fn a_database_that_goes_away_is_503_and_comes_back() {
    let mut own = Cluster::start();
    let gateway = Gateway::serve(&own.empty_database(), &nobody(), &nobody(), "");
    let http = gateway.http();
    let accepted = http.post("/v1/tasks", &json!({"task": "demo.add"})).await.expect(202);
    own.stop();
    let refused = http.post("/v1/tasks", &json!({"task": "demo.add"})).await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    eventually("/readyz is 503", async || (http.get("/readyz").await.status == 503).then_some(())).await;
    own.restart();
    eventually("/readyz is 200", async || (http.get("/readyz").await.status == 200).then_some(())).await;
    http.post("/v1/tasks", &json!({"task": "demo.add"})).await.expect(202);
    let id = accepted["task_id"].as_str().expect("an id");
    assert_eq!(http.get(&format!("/v1/tasks/{id}")).await.expect(200)["phase"], "accepted");
}

#[test]
fn a_contradiction_stops_the_start_and_names_both_places() {
    let database = cluster().empty_database();
    let cases = [
        ("http.sse_heartbeat = '60s'\nhttp.idle_timeout = '30s'", ["sse_heartbeat", "idle_timeout"]),
        ("tasks = [{ name = 'demo.a', endpoint = 'POST /add' }]", ["tasks.add", "demo.a"]),
        ("tasks = [{ name = 'demo.a', endpoint = 'POST /result/{x}' }]", ["demo.a", "/result"]),
        ("tasks = [{ name = 'demo.a', endpoint = 'POST /a/{task_id}' }]", ["demo.a", "task_id"]),
        ("tasks = [{ name = 'demo.a', endpoint = 'POST /a', args = ['{nothing}'] }]", ["demo.a", "nothing"]),
    ];
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("contradiction.toml").display().to_string();
    for (extra, names) in cases {
        let text = config(ports::free(), &database, &nobody(), &nobody(), extra).to_string();
        std::fs::write(&path, text).expect("the folder is ours");
        for role in ["serve", "check"] {
            let refused = run(&[role, "--config", &path], &[]);
            let told = String::from_utf8_lossy(&refused.stderr).into_owned();
            assert!(!refused.status.success(), "{role}, {extra}: {told}");
            for name in names {
                assert!(told.contains(name), "{role}, {extra} should name {name}:\n{told}");
            }
        }
    }
}

#[test]
fn serve_and_check_tell_all_faults_at_once_with_their_lines() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("faults.toml");
    let text = "auth = 'none'\n[http]\nlisen = '127.0.0.1:1'\n[database]\nurl = 'sqlite://x.db'\nmax_connections = 0\n\
        [[tasks]]\nname = 'demo.a'\nendpoint = 'POST /a'\nargs = ['{nothing}']\n\
        [[schedules]]\nname = 's'\ntask = 'demo.a'\ncron = '0 99 * * *'\n\
        [[notify]]\nkind = 'slack'\nurl = 'https://h'\nkinds = 'no_consumers'\n\
        [[inboxes]]\nurl = 'postgres://h:port/d'\n[broker]\ntls_ca = '/nowhere/ca.pem'\n";
    std::fs::write(&file, text).expect("the folder is ours");
    let file = file.display().to_string();
    for role in ["serve", "check"] {
        let refused = run(&[role, "--config", &file], &[]);
        assert!(!refused.status.success());
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        for (key, line) in [
            ("lisen", 3),
            ("max_connections", 6),
            ("nothing", 10),
            ("cron", 11),
            ("no_consumers", 18),
            ("inboxes[0].url", 20),
            ("/nowhere/ca.pem", 22),
        ] {
            let place = format!("line {line}");
            assert!(
                told.lines().any(|one| one.contains(key) && one.contains(&place)),
                "{role}: {key}, {place}:\n{told}"
            );
        }
    }
}

#[test]
fn check_refuses_a_gateway_that_nobody_could_call() {
    let redis = Redis::start(RedisOptions::default());
    let database = cluster().migrated_database();
    let urls = [("DATABASE_URL", database.as_str()), ("CELERY_BROKER_URL", &redis.url(0))];
    let checked = run(&["check"], &urls);
    let told = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(told.contains("problem  auth") && told.contains("taskgate token create"), "{told}");
}

#[test]
fn check_refuses_an_open_gateway_that_other_machines_reach_as_serve_does() {
    let file = config(ports::free(), "sqlite://x.db", &nobody(), &nobody(), "http.listen = '0.0.0.0:0'").to_string();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("open.toml");
    std::fs::write(&path, file).expect("the folder is ours");
    let path = path.display().to_string();
    let served = run(&["serve", "--config", &path], &[]);
    let checked = run(&["check", "--config", &path], &[]);
    assert!(!served.status.success() && !checked.status.success());
    let words = "can be reached from other machines";
    assert!(String::from_utf8_lossy(&served.stderr).contains(words), "{served:?}");
    assert!(String::from_utf8_lossy(&checked.stdout).contains(words), "{checked:?}");
}

#[test]
fn serve_without_tokens_is_refused_unless_said() {
    let database = cluster().migrated_database();
    let config = config(ports::free(), &database, &nobody(), &nobody(), "auth = 'token'");
    let mut gateway = Gateway::start(&["serve"], 0, Some(&config), &[]);
    let code = gateway.wait(Duration::from_secs(15));
    assert!(code.is_some_and(|code| code != 0), "ended with {code:?}");
    assert!(gateway.log().contains("auth"), "{}", gateway.log());
}

#[tokio::test]
async fn several_may_migrate_at_once_and_tables_stay_in_their_schema() {
    use sqlx::{Connection, Row};
    let database = cluster().empty_database();
    let runs: Vec<_> = (0..3)
        .map(|_| {
            let database = database.clone();
            std::thread::spawn(move || run(&["migrate"], &[("DATABASE_URL", &database)]))
        })
        .collect();
    for migrated in runs {
        let migrated = migrated.join().expect("no panic");
        assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
    }
    let mut connection = sqlx::PgConnection::connect(&database).await.expect("the cluster is up");
    let sql = "select table_name::text from information_schema.tables where table_schema = 'public'";
    let public: Vec<String> =
        sqlx::query(sql).fetch_all(&mut connection).await.expect("rows").iter().map(|row| row.get(0)).collect();
    assert_eq!(public, ["celery_taskmeta"]);
}

#[tokio::test]
async fn one_process_may_serve_on_sqlite() {
    let redis = Redis::start(RedisOptions::default());
    let _celery = Celery::start(&redis, CeleryOptions::default());
    let mut gateway = Gateway::serve("sqlite://ledger.db", &redis.url(0), &redis.url(1), "");
    let http = gateway.http();
    let body = json!({"task": "demo.add", "args": [1, 2]});
    let done = http.post_with("/v1/tasks", &[("prefer", "wait=60")], &body).await.expect(200);
    assert_eq!(done["result"], 3, "{done}");
    gateway.restart();
    let id = done["task_id"].as_str().expect("an id");
    assert_eq!(http.get(&format!("/result/{id}")).await.expect(200)["result"], 3);
}

#[tokio::test]
async fn a_second_gateway_on_a_sqlite_file_is_refused_and_told_who_has_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = format!("sqlite://{}", folder.path().join("ledger.db").display());
    let mut first = Gateway::serve(&database, &nobody(), &nobody(), "");
    let mut second = Gateway::launch(&database, &nobody(), &nobody(), "");
    assert!(second.wait(Duration::from_secs(10)).is_some_and(|code| code != 0));
    let log = second.log();
    for word in ["ledger.db", &format!("process {}", first.id()), &format!("127.0.0.1:{}", first.port), "PostgreSQL"] {
        assert!(log.contains(word), "the refusal should name {word}:\n{log}");
    }
    let beside = run(&["token", "create", "--name", "t", "--scope", "read"], &[("DATABASE_URL", &database)]);
    assert!(beside.status.success(), "{}", String::from_utf8_lossy(&beside.stderr));
    first.kill();
    second.restart();
    second.http().post("/v1/tasks", &json!({"task": "demo.add"})).await.expect(202);
}

#[test]
fn healthcheck_tells_by_its_exit_code() {
    let redis = Redis::start(RedisOptions::default());
    let gateway = Gateway::serve(&cluster().migrated_database(), &redis.url(0), &redis.url(1), "");
    let listen = format!("127.0.0.1:{}", gateway.port);
    assert!(run(&["healthcheck"], &[("TASKGATE_HTTP__LISTEN", &listen)]).status.success());
    drop(gateway);
    assert!(!run(&["healthcheck"], &[("TASKGATE_HTTP__LISTEN", &listen)]).status.success());
}
