//! What RabbitMQ does not have or does not allow: priorities, exchanges of another type, virtual hosts without rights, a login that the
//! management API refuses. Each is told with the field or key, and with what the broker said.

use serde_json::{Value, json};

use crate::harness::environment::{Harness, Lent, Options};
use crate::harness::rabbit::{On, Rabbit};
use crate::harness::{Gateway, eventually, gateway, postgres, process};

fn alone(config: &str) -> Options {
    Options { broker: On::Rabbit, without_worker: true, config: config.into(), ..Options::default() }
}

fn rabbit(env: &Harness) -> &Rabbit {
    env.rabbit.as_ref().expect("it was asked for")
}

/// What `taskgate check` prints with this configuration.
fn check(config: &str, broker: &str, backend: &str) -> String {
    let file = process::folder("check").join("taskgate.toml");
    std::fs::write(&file, config).expect("the folder is ours");
    let said = [
        ("TASKGATE_CONFIG", file.to_str().expect("a path")),
        ("CELERY_BROKER_URL", broker),
        ("CELERY_RESULT_BACKEND", backend),
    ];
    let done = gateway::run(&["check"], &said);
    format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr))
}

/// A user with a password as its name, and these rights (configure, write, read) on the virtual host, if any.
fn user(rabbit: &Rabbit, name: &str, rights: Option<[&str; 3]>) -> String {
    let node = rabbit.node();
    node.must("PUT", &format!("/api/users/{name}"), Some(&json!({"password": name, "tags": ""})));
    if let Some([configure, write, read]) = rights {
        let rights = json!({"configure": configure, "write": write, "read": read});
        node.must("PUT", &format!("/api/permissions/{}/{name}", rabbit.vhost), Some(&rights));
    }
    format!("amqp://{name}:{name}@127.0.0.1:{}/{}", node.port, rabbit.vhost)
}

async fn logs(gateway: &Gateway, text: &str) {
    eventually(&format!("the gateway logs {text:?}"), async || gateway.log().contains(text).then_some(())).await;
}

#[tokio::test]
async fn a_priority_above_the_queue_s_is_refused_with_the_field() {
    let env = Harness::start(&alone("[queues.celery]\nmax_priority = 3\n"));
    let refused = env.http.post_once("/v1/tasks", &json!({"task": "demo.add", "args": [1, 1], "priority": 9})).await;
    let refused = refused.expect(422);
    let why = "9 is above 3, the max_priority of the queue celery";
    assert_eq!((&refused["errors"][0]["pointer"], &refused["errors"][0]["detail"]), (&json!("/priority"), &json!(why)));
    let chain =
        json!({"tasks": [{"task": "demo.add", "args": [1, 1]}, {"task": "demo.mul", "args": [2], "priority": 4}]});
    let refused = env.http.post_once("/chain", &chain).await.expect(422);
    assert!(
        refused["errors"][0]["detail"].as_str().is_some_and(|why| why.contains("priority of demo.mul")),
        "{refused}"
    );
    env.submit_signature(json!({"task": "demo.add", "args": [1, 1], "priority": 3})).await;
}

#[test]
fn a_catalog_entry_with_a_priority_above_its_queue_s_is_refused_with_both_keys() {
    let config = "[queues.mail]\nmax_priority = 3\n[[tasks]]\nname = 'demo.add'\nqueue = 'mail'\npriority = 4\n";
    let told = check(config, "amqp://127.0.0.1:1", "rpc://");
    assert!(told.contains("queues.mail.max_priority") && told.contains("(demo.add).priority"), "{told}");
}

#[tokio::test]
async fn an_exchange_of_another_type_is_told_with_the_broker_s_words_and_left_as_it_is() {
    let config = "[exchanges.regions]\ntype = 'headers'\nbindings = [{ queue = 'eu', headers = { region = 'eu' } }]\n\
                  [queues.eu]\n";
    let rabbit = Rabbit::shared();
    let path = format!("/api/exchanges/{}/regions", rabbit.vhost);
    rabbit.node().must("PUT", &path, Some(&json!({"type": "direct", "durable": true})));
    let told = check(config, &rabbit.url(), "rpc://");
    let said = "the exchange regions is not as [exchanges.regions] says";
    assert!(told.contains(said) && told.contains("PRECONDITION_FAILED - inequivalent arg 'type'"), "{told}");
    assert!(rabbit.queue("eu").is_none(), "check creates nothing");
    let gateway = Gateway::serve(&postgres::cluster().migrated_database(), &rabbit.url(), "rpc://", config);
    logs(&gateway, "inequivalent arg 'type'").await;
    let (_, exchange) = rabbit.node().ask("GET", &path, None);
    assert_eq!(exchange["type"], "direct");
}

#[tokio::test]
async fn a_virtual_host_without_rights_is_told_with_the_broker_s_words_and_tasks_wait() {
    let rabbit = Rabbit::shared();
    let url = user(&rabbit, &format!("stranger-{}", rabbit.vhost), None);
    let told = check("", &url, "rpc://");
    assert!(told.contains("problem  the broker at amqp://") && told.contains("NOT_ALLOWED"), "{told}");
    assert!(told.contains(&format!("access to vhost '{}' refused", rabbit.vhost)), "{told}");
    let gateway = Gateway::serve(&postgres::cluster().migrated_database(), &url, "rpc://", "");
    let http = gateway.http();
    let accepted = http.post_once("/v1/tasks", &json!({"task": "demo.add", "args": [1, 1]})).await.expect(202);
    logs(&gateway, "NOT_ALLOWED").await;
    let id = accepted["task_id"].as_str().expect("an id");
    assert_eq!(http.get(&format!("/v1/tasks/{id}")).await.expect(200)["phase"], "accepted");
    rabbit.declare("celery", &json!({}));
    let rights = json!({"configure": ".*", "write": ".*", "read": ".*"});
    let path = format!("/api/permissions/{0}/stranger-{0}", rabbit.vhost);
    rabbit.node().must("PUT", &path, Some(&rights));
    eventually("it is published once the user has rights", async || {
        (rabbit.messages("celery").len() == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_user_that_may_not_write_is_told_and_tasks_wait() {
    let rabbit = Rabbit::shared();
    rabbit.declare("celery", &json!({}));
    let url = user(&rabbit, &format!("reader-{}", rabbit.vhost), Some([".*", "^celery\\.pidbox$", ".*"]));
    let gateway = Gateway::serve(&postgres::cluster().migrated_database(), &url, "rpc://", "");
    let http = gateway.http();
    let accepted = http.post_once("/v1/tasks", &json!({"task": "demo.add", "args": [1, 1]})).await.expect(202);
    logs(&gateway, "ACCESS_REFUSED").await;
    let id = accepted["task_id"].as_str().expect("an id");
    assert_eq!(http.get(&format!("/v1/tasks/{id}")).await.expect(200)["phase"], "accepted");
    assert!(rabbit.messages("celery").is_empty());
    let rights = json!({"configure": ".*", "write": ".*", "read": ".*"});
    let path = format!("/api/permissions/{0}/reader-{0}", rabbit.vhost);
    rabbit.node().must("PUT", &path, Some(&rights));
    eventually("it is published once the user may write", async || {
        (rabbit.messages("celery").len() == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_login_that_the_management_api_refuses_is_told() {
    let rabbit = Rabbit::shared();
    rabbit.declare("celery", &json!({}));
    let address = rabbit.management_url().replace("guest:guest@", "guest:wrong@");
    let config = format!("[broker]\nmanagement_url = '{address}'\n");
    let gateway = Gateway::serve(&postgres::cluster().migrated_database(), &rabbit.url(), "rpc://", &config);
    let refused = gateway.http().get("/v1/queues/celery/messages").await.expect(503);
    let told = refused["detail"].as_str().unwrap_or_default();
    assert!(told.contains("management API answered 401") && !refused.to_string().contains("wrong"), "{refused}");
}

/// As [`Harness::in_phase`], over `GET /v1/queues`.
async fn side(env: &Lent<Box<Harness>>, queue: &str) -> Value {
    let queues = env.http.get("/v1/queues").await.expect(200);
    let all = queues["queues"].as_array().cloned().unwrap_or_default();
    all.into_iter().find(|found| found["name"] == queue).unwrap_or_default()
}

#[tokio::test]
async fn a_pause_cancels_the_consumers_of_what_is_in_rabbitmq_and_a_resume_brings_them_back() {
    let env = Harness::start(&Options { broker: On::Rabbit, ..Options::default() });
    eventually("the worker is known", async || (side(&env, "celery").await["consumers"] == 1).then_some(())).await;
    let paused = env.http.post("/v1/queues/celery/pause", &json!({})).await.expect(200);
    assert!(paused.to_string().contains("w1@test"), "{paused}");
    let consumers = |count: u64| {
        let env = &env;
        async move {
            eventually(&format!("RabbitMQ has {count} consumers"), async || {
                (rabbit(env).queue("celery")?["consumers"] == count).then_some(())
            })
            .await;
        }
    };
    consumers(0).await;
    let held = env.submit("demo.add", json!([1, 2])).await;
    env.in_phase(&held, "held").await;
    assert!(rabbit(&env).messages("celery").is_empty(), "nothing is released");
    env.http.post("/v1/queues/celery/resume", &json!({})).await.expect(200);
    consumers(1).await;
    assert_eq!(env.finished(&held).await["result"], 3);
}

#[test]
fn databases_that_are_not_read_are_refused_by_check_and_serve_with_the_key_and_what_to_write() {
    let cases = [
        ("url = 'db+mysql+pymysql://u:geheim@h/d'", "backend.url", "mysql+pymysql"),
        ("url = 'db+sqlite:///results.db'", "backend.url", "sqlite"),
        ("url = 'django-db'\ndatabase_url = 'mysql://u:geheim@h/d'", "backend.database_url", "mysql"),
    ];
    for (backend, key, scheme) in cases {
        let file = process::folder("results").join("taskgate.toml");
        let text = format!("[database]\nurl = 'sqlite://x.db'\n[broker]\nurl = 'amqp://h'\n[backend]\n{backend}\n");
        std::fs::write(&file, text).expect("the folder is ours");
        for role in ["serve", "check"] {
            let refused = gateway::run(&[role, "--config", file.to_str().expect("a path")], &[]);
            let told = String::from_utf8_lossy(&refused.stderr).into_owned();
            assert!(!refused.status.success(), "{role} with {backend}");
            for part in [key, scheme, "line ", "db+postgresql://", "rpc://"] {
                assert!(told.contains(part), "{role} with {backend} should name {part}:\n{told}");
            }
            assert!(!told.contains("geheim"), "{told}");
        }
    }
    let told = check("", "amqp://h", "db+mysql://u:geheim@h/d");
    assert!(told.contains("CELERY_RESULT_BACKEND") && !told.contains("geheim"), "by the environment: {told}");
}
