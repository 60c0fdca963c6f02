//! RabbitMQ's special cases: the management API, nodes that are down, TLS, headers exchanges, and messages that AMQP cannot
//! carry.

use serde_json::{Value, json};

use crate::control::sentinel::certificates;
use crate::harness::environment::{Harness, Options};
use crate::harness::rabbit::{On, Rabbit};
use crate::harness::{eventually, ports};

fn alone(config: &str) -> Options {
    Options { broker: On::Rabbit, without_worker: true, config: config.into(), ..Options::default() }
}

fn rabbit(env: &Harness) -> &Rabbit {
    env.rabbit.as_ref().expect("it was asked for")
}

async fn messages(env: &Harness, queue: &str, count: usize) -> Vec<Value> {
    eventually(&format!("{count} messages in {queue}"), async || {
        let messages = rabbit(env).messages(queue);
        (messages.len() == count).then_some(messages)
    })
    .await
}

#[tokio::test]
async fn the_contents_of_a_queue_are_shown_where_the_management_api_is_named() {
    let env = Harness::start(&alone("[broker]\nmanagement_url = '{management}'\n"));
    rabbit(&env).declare("celery", &json!({}));
    let ids = [env.submit("demo.add", json!([1, 1])).await, env.submit("demo.add", json!([1, 2])).await];
    messages(&env, "celery", 2).await;
    let page = env.http.get("/v1/queues/celery/messages?limit=1").await.expect(200);
    assert_eq!(page["messages"].as_array().map(Vec::len), Some(1), "{page}");
    assert!(page["messages"][0].to_string().contains(&ids[0]), "{page}");
    let all = env.http.get("/v1/queues/celery/messages").await.expect(200);
    assert!(all.to_string().contains(&ids[1]) && all.to_string().contains("demo.add"), "{all}");
    messages(&env, "celery", 2).await;
    let can = env.http.get("/v1/capabilities").await.expect(200);
    assert_eq!(can["queue_contents"], true);
}

#[tokio::test]
async fn a_quorum_queue_is_not_looked_into_because_it_counts_looks_as_failures() {
    let env = Harness::start(&alone("[broker]\nmanagement_url = '{management}'\n"));
    rabbit(&env).declare("steady", &json!({"x-queue-type": "quorum"}));
    let refused = env.http.get("/v1/queues/steady/messages").await.expect(501);
    assert!(refused["detail"].as_str().is_some_and(|why| why.contains("failed delivery")), "{refused}");
}

#[tokio::test]
async fn the_next_node_is_tried_when_one_is_away() {
    let before = "amqp://guest:guest@127.0.0.1:1//;";
    let env = Harness::start(&Options { before, ..alone("") });
    rabbit(&env).declare("celery", &json!({}));
    env.submit("demo.add", json!([1, 1])).await;
    messages(&env, "celery", 1).await;
}

#[tokio::test]
async fn tls_is_spoken_with_an_authority_of_one_s_own() {
    let (directory, port) = (certificates(), ports::free());
    let path = |name: &str| directory.join(name).display().to_string();
    let node = format!(
        "listeners.ssl.1 = 127.0.0.1:{port}\nssl_options.cacertfile = {}\nssl_options.certfile = {}\n\
         ssl_options.keyfile = {}\nssl_options.verify = verify_none\nssl_options.fail_if_no_peer_cert = false\n",
        path("ca.pem"),
        path("redis.pem"),
        path("redis.key")
    );
    let options = Options {
        broker: On::OwnRabbit(node.leak()),
        before: format!("amqps://guest:guest@127.0.0.1:{port}/test;").leak(),
        without_worker: true,
        config: format!("[broker]\ntls_ca = '{}'\n", path("ca.pem")),
        ..Options::default()
    };
    let env = Harness::start(&options);
    rabbit(&env).declare("celery", &json!({}));
    env.submit("demo.add", json!([1, 1])).await;
    messages(&env, "celery", 1).await;
    eventually("its connections are encrypted", async || {
        let (_, connections) = rabbit(&env).node().ask("GET", "/api/connections", None);
        let all = connections.as_array().filter(|all| !all.is_empty())?;
        all.iter().all(|one| one["ssl"] == true).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_exchange_chooses_queues_by_headers() {
    let config = "[exchanges.regions]\ntype = 'headers'\n\
        bindings = [{ queue = 'eu', headers = { region = 'eu', x-match = 'all' } }, { queue = 'us', headers = { region = 'us' } }]\n\
        [queues.eu]\n[queues.us]\n[routes]\n'demo.add' = { exchange = 'regions' }\n";
    let env = Harness::start(&alone(config));
    eventually("both queues are bound", async || {
        let (status, bindings) = rabbit(&env).node().ask(
            "GET",
            &format!("/api/exchanges/{}/regions/bindings/source", rabbit(&env).vhost),
            None,
        );
        (status == 200 && bindings.as_array().is_some_and(|all| all.len() == 2)).then_some(())
    })
    .await;
    env.submit_signature(json!({"task": "demo.add", "args": [1, 1], "headers": {"region": "us"}})).await;
    let came = messages(&env, "us", 1).await;
    assert_eq!((&came[0]["exchange"], &came[0]["properties"]["headers"]["region"]), (&json!("regions"), &json!("us")));
    assert!(rabbit(&env).messages("eu").is_empty());
    let id = env.submit_signature(json!({"task": "demo.add", "args": [1, 1], "headers": {"region": "mars"}})).await;
    let held = env.in_phase(&id, "held").await;
    assert!(held["reason"].as_str().is_some_and(|why| why.contains("no exchange regions with a queue")), "{held}");
}

#[tokio::test]
async fn a_message_whose_headers_are_too_large_is_held_alone() {
    let env = Harness::start(&alone("[queues.celery]\n"));
    let large = "x".repeat(140_000);
    let id = env.submit_signature(json!({"task": "demo.add", "args": [1, 1], "headers": {"note": large}})).await;
    let other = env.submit("demo.add", json!([2, 2])).await;
    let came = messages(&env, "celery", 1).await;
    assert_eq!(came[0]["properties"]["correlation_id"], json!(other));
    let held = env.in_phase(&id, "held").await;
    assert!(held["reason"].as_str().is_some_and(|why| why.contains("frame_max")), "{held}");
}
