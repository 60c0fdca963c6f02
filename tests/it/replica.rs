//! `taskgate serve --role read` on a streaming replica: answered and refused calls, the address for writes, and the reported lag.

use serde_json::json;

use crate::harness::environment::{Harness, Options};
use crate::harness::gateway::{config, migrate};
use crate::harness::postgres::{Cluster, query};
use crate::harness::{Gateway, eventually, ports};

const WRITER: &str = "http://writer.example:8000";

/// The name of a database in another cluster.
fn same_database(cluster: &Cluster, url: &str) -> String {
    cluster.url(url.rsplit('/').next().expect("a URL has a path"))
}

/// A new database with all migrations, in a cluster of its own.
fn migrated(cluster: &Cluster) -> String {
    let database = cluster.empty_database();
    migrate(&database);
    database
}

/// Reads `database`. It has no Redis: nobody listens at the address that it is given.
fn reader(database: &str) -> Gateway {
    let port = ports::free();
    let nobody = format!("redis://127.0.0.1:{}/0", ports::free());
    let config = config(port, database, &nobody, &nobody, &format!("[http]\nwriter = '{WRITER}'\n"));
    let mut reader = Gateway::start(&["serve", "--role", "read"], port, Some(&config), &[]);
    reader.wait_until_ready();
    reader
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_on_a_streaming_replica_reads_and_sends_writers_away() {
    let primary = Cluster::start();
    let database = migrated(&primary);
    let env = Harness::start(&Options { database: Some(database.clone()), ..Options::default() });
    let before = env.submit("demo.add", json!([1, 2])).await;
    assert_eq!(env.finished(&before).await["result"], 3);
    let replica = primary.follow();
    let gateway = reader(&same_database(&replica, &database));
    let http = gateway.http();

    let after = env.submit("demo.add", json!([3, 4])).await;
    assert_eq!(env.finished(&after).await["result"], 7);
    let read = eventually("the replica has its end", async || {
        let answer = http.get(&format!("/result/{after}")).await;
        (answer.status == 200).then_some(answer)
    })
    .await;
    assert_eq!(read.json()["result"], 7);
    assert!(read.header("taskgate-lag").is_some_and(|lag| lag.parse::<f64>().is_ok_and(|lag| lag >= 0.0)));
    let listed = http.get("/v1/tasks?status=SUCCESS").await.expect(200);
    assert_eq!(listed["tasks"].as_array().map(Vec::len), Some(2), "{listed}");
    let path = format!("/v1/tasks/{before}/events");
    let history = http.get_with(&path, &[("accept", "application/json")]).await.expect(200);
    let last = history["events"].as_array().and_then(|events| events.last());
    assert_eq!(last.map(|event| &event["phase"]), Some(&json!("succeeded")), "{history}");
    assert_eq!(http.get("/dashboard/").await.status, 200);

    let refused = http.post("/v1/tasks", &json!({"task": "demo.add", "args": [1, 2]})).await;
    let problem = refused.problem(405, "read-only");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(WRITER)), "{problem}");
    assert_eq!((refused.header("taskgate-writer"), refused.header("allow")), (Some(WRITER), Some("GET, HEAD")));
    for path in ["/v1/queues", "/v1/workers", "/v1/incidents", "/v1/events"] {
        http.get(path).await.problem(405, "read-only");
    }
    http.get("/v1/nothing").await.problem(404, "route-not-found");
    let ready = http.get("/readyz").await.expect(200);
    assert_eq!((&ready["role"], &ready["redis"], &ready["ready"]), (&json!("read"), &json!("unused"), &json!(true)));
    assert!(ready["lag_seconds"].as_f64().is_some_and(|lag| (0.0..60.0).contains(&lag)), "{ready}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_lost_its_writer_says_how_old_its_answers_are() {
    let mut primary = Cluster::start();
    let database = migrated(&primary);
    let replica = primary.follow();
    let read = same_database(&replica, &database);
    let gateway = reader(&read);
    primary.stop();
    eventually("its lag grows", async || {
        let ready = gateway.http().get("/readyz").await.expect(200);
        ready["lag_seconds"].as_f64().filter(|lag| *lag > 0.5)
    })
    .await;
    assert_eq!(query(&read, "select pg_is_in_recovery()"), "t");
}
