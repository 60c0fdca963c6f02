//! Reads of the ledger over HTTP: results, details, lists with filters and pages, caching (rows T1, T3, T6, T7).

use serde_json::{Value, json};

use crate::harness::environment::{Harness, Shared};
use crate::harness::{Latch, eventually};

fn ids(page: &Value) -> Vec<String> {
    let tasks = page["tasks"].as_array().unwrap_or_else(|| panic!("no tasks in {page}"));
    tasks.iter().map(|task| task["task_id"].as_str().expect("an id").to_owned()).collect()
}

/// The details of a finished task once they are complete: its events may be heard after its result.
async fn all_is_known(env: &Shared, id: &str) -> Value {
    eventually(&format!("all is known of {id}"), async || {
        let task = env.http.get(&format!("/v1/tasks/{id}")).await.expect(200);
        let facts = ["finished_at", "received_at", "started_at", "worker", "runtime"];
        facts.iter().all(|fact| !task[*fact].is_null()).then_some(task)
    })
    .await
}

#[tokio::test]
async fn a_list_is_filtered_and_paged_newest_first() {
    let env = Harness::shared();
    let mine = runtime::clock::new_id().to_string();
    let mut submitted = Vec::new();
    for n in 0..5 {
        let signature =
            json!({"task": "demo.add", "args": [n, n], "labels": {"run": mine, "odd": (n % 2).to_string()}});
        submitted.push(env.submit_signature(signature).await);
    }
    for id in &submitted {
        env.finished(id).await;
    }
    submitted.reverse();
    let (mut path, mut walked) = (format!("/v1/tasks?label=run:{mine}&limit=2"), Vec::new());
    loop {
        let answer = env.http.get(&path).await;
        let page = answer.expect(200);
        walked.extend(ids(&page));
        let Some(next) = page["next"].as_str() else {
            assert!(answer.header("link").is_none(), "{:?}", answer.header("link"));
            break;
        };
        let link = answer.header("link").expect("a next page has a link");
        assert!(link.contains("rel=\"next\"") || link.contains("rel=next"), "{link}");
        path = format!("/v1/tasks?label=run:{mine}&limit=2&cursor={next}");
    }
    assert_eq!(walked, submitted);
    let odd = env.http.get(&format!("/v1/tasks?label=run:{mine}&label=odd:1")).await.expect(200);
    assert_eq!(ids(&odd).len(), 2, "{odd}");
    for filter in ["status=SUCCESS", "phase=succeeded", "task=demo.add", "queue=celery"] {
        let all = env.http.get(&format!("/v1/tasks?label=run:{mine}&{filter}")).await.expect(200);
        assert_eq!(ids(&all).len(), 5, "{filter}: {all}");
    }
    let none = env.http.get(&format!("/v1/tasks?label=run:{mine}&status=FAILURE")).await.expect(200);
    assert_eq!(ids(&none).len(), 0, "{none}");
    let by_text = env.http.get(&format!("/v1/tasks?q={}", &submitted[0][..])).await.expect(200);
    assert_eq!(ids(&by_text), [submitted[0].clone()], "{by_text}");
}

#[tokio::test]
async fn tasks_are_found_by_a_part_of_an_argument() {
    let env = Harness::shared();
    let needle = runtime::clock::new_id().to_string();
    let id = env.submit("demo.echo", json!([{"customer": format!("Kim {needle}")}, 7])).await;
    env.submit("demo.echo", json!(["another"])).await;
    let path = format!("/v1/tasks?argument=kim+{needle}");
    let found = env.http.get(&path).await.expect(200);
    assert_eq!(ids(&found), std::slice::from_ref(&id), "{found}");
    let counted = env.http.get(&format!("/v1/stats/outcomes?argument={needle}")).await.expect(200);
    assert_eq!(counted["by_phase"].as_object().map(serde_json::Map::len), Some(1), "{counted}");
    let bulk = json!({"filter": {"argument": needle}, "action": "revoke", "dry_run": true});
    let preview = env.http.post("/v1/bulk", &bulk).await.expect(200);
    assert!(preview["by_phase"].is_object(), "{preview}");
    let refused = env.http.get("/v1/tasks?argument=").await.expect(400);
    assert_eq!(refused["errors"][0]["pointer"], "argument", "{refused}");
}

#[tokio::test]
async fn a_bad_cursor_limit_or_filter_is_refused() {
    let env = Harness::shared();
    for query in ["cursor=tampered", "limit=0", "limit=501", "limit=x", "phase=nonsense", "from=yesterday", "no_such=1"]
    {
        let answer = env.http.get(&format!("/v1/tasks?{query}")).await;
        assert!((400..500).contains(&answer.status), "{query}: {} {}", answer.status, answer.text());
        let kind = answer.header("content-type").unwrap_or_default();
        assert!(kind.starts_with("application/problem+json"), "{query}: {kind}");
    }
}

#[tokio::test]
async fn details_tell_the_whole_story() {
    let env = Harness::shared();
    let signature =
        json!({"task": "demo.echo", "args": ["a"], "kwargs": {"k": 1}, "priority": 6, "labels": {"team": "x"}});
    let id = env.submit_signature(signature).await;
    let task = all_is_known(&env, &id).await;
    assert_eq!((&task["phase"], &task["queue"], &task["priority"]), (&json!("succeeded"), &json!("celery"), &json!(6)));
    assert_eq!((&task["args"], &task["kwargs"]), (&json!(["a"]), &json!({"k": 1})), "{task}");
    assert_eq!(task["labels"]["team"], "x", "{task}");
    assert!(task["seq"].as_u64().is_some_and(|seq| seq > 0), "{task}");
    assert!(task["worker"].as_str().is_some_and(|name| name.contains('@')), "{task}");
    let time = |field: &str| task[field].as_str().unwrap_or_else(|| panic!("no {field} in {task}")).to_owned();
    // The worker's main process tells the start, its pool process the end: those two may be a hair apart either way.
    assert!(time("submitted_at") <= time("started_at"), "{task}");
    assert!(time("submitted_at") <= time("finished_at"), "{task}");
}

#[tokio::test]
async fn a_finished_result_is_cached_by_its_etag() {
    let env = Harness::shared();
    let id = env.submit("demo.add", json!([1, 2])).await;
    all_is_known(&env, &id).await;
    for path in [format!("/result/{id}"), format!("/v1/tasks/{id}")] {
        let answer = env.http.get(&path).await;
        let etag = answer.header("etag").unwrap_or_else(|| panic!("{path} has no ETag")).to_owned();
        let again = env.http.get_with(&path, &[("if-none-match", &etag)]).await;
        assert_eq!((again.status, again.text()), (304, String::new()), "{path}");
        let other = env.http.get_with(&path, &[("if-none-match", "\"other\"")]).await;
        assert_eq!(other.status, 200, "{path}");
    }
}

#[tokio::test]
async fn not_yet_is_202_and_waiting_is_answered_at_once() {
    let env = Harness::shared();
    let latch = Latch::closed();
    let id = env.submit("demo.until", latch.args("waited for")).await;
    let path = format!("/result/{id}");
    let early = async {
        let early = env.http.get(&path).await;
        assert_eq!(early.expect(202)["ready"], false, "{}", early.text());
        assert!(early.header("retry-after").is_some());
        latch.open();
    };
    let (waited, ()) = tokio::join!(env.http.get_with(&path, &[("prefer", "wait=60")]), early);
    assert_eq!(waited.expect(200)["result"], "waited for", "{}", waited.text());
}

#[tokio::test]
async fn what_never_existed_is_404_and_what_is_no_id_says_so() {
    let env = Harness::shared();
    for path in ["/result", "/v1/tasks"] {
        let unknown = env.http.get(&format!("{path}/01890000-0000-7000-8000-000000000000")).await;
        assert_eq!(unknown.expect(404)["status"], 404, "{path}");
        let long = "x".repeat(300);
        let answer = env.http.get(&format!("{path}/{long}")).await;
        assert!((400..500).contains(&answer.status), "{path}: {} {}", answer.status, answer.text());
    }
}

#[tokio::test]
async fn results_outlive_their_record_in_redis() {
    let env = Harness::shared();
    let id = env.submit("demo.add", json!([20, 22])).await;
    env.finished(&id).await;
    let key = format!("celery-task-meta-{id}");
    assert_eq!(env.redis.command::<u32>(1, &["DEL", &key]), 1);
    assert_eq!(env.http.get(&format!("/result/{id}")).await.expect(200)["result"], 42);
}

#[tokio::test]
async fn the_view_has_the_shape_of_celerys_table() {
    use sqlx::{Connection, Row};
    let env = Harness::shared();
    let id = env.submit("demo.add", json!([1, 2])).await;
    env.finished(&id).await;
    let mut connection = sqlx::PgConnection::connect(&env.database).await.expect("the cluster is up");
    let sql = "select task_id, status, result::text as result, date_done, traceback, name, args::text as args, \
               kwargs::text as kwargs, worker, retries, queue from celery_taskmeta where task_id::text = $1";
    let row = sqlx::query(sql).bind(&id).fetch_one(&mut connection).await.expect("one row");
    assert_eq!(row.get::<String, _>("status"), "SUCCESS");
    assert_eq!(row.get::<String, _>("name"), "demo.add");
    assert_eq!(row.get::<String, _>("queue"), "celery");
}
