//! The samples in `taskgate dev`, run by its Rust worker (rows S1, S2; issue item 7).

use serde_json::json;

use crate::dev::Dev;

#[tokio::test]
async fn a_fresh_folder_runs_the_samples_and_an_old_one_remembers_them() {
    let mut dev = Dev::start();
    let sum = dev.post("/add", json!({"x": 2, "y": 3})).await;
    assert_eq!(dev.finished(&sum).await["result"], 5);
    let mut saved = Vec::new();
    for _ in 0..2 {
        let crawl = dev.post("/run-crawler/volunteer", json!({})).await;
        let done = dev.finished(&crawl).await;
        assert_eq!(done["status"], "SUCCESS", "{done}");
        assert!(done["result"]["total_items"].as_u64().is_some_and(|items| items > 0), "{done}");
        saved.push(done["result"]["saved_items"].as_u64().expect("a number"));
    }
    assert!(saved[0] > 0 && saved[1] == 0, "{saved:?}");
    let document = dev.post("/start/upload-1", json!({})).await;
    assert_eq!(dev.finished(&document).await["status"], "SUCCESS");
    // kill -9, and again in the same folder.
    dev.gateway.restart();
    assert_eq!(dev.http.get(&format!("/result/{sum}")).await.expect(200)["result"], 5);
    let again = dev.post("/add", json!({"x": 1, "y": 1})).await;
    assert_eq!(dev.finished(&again).await["result"], 2);
    let crawl = dev.post("/run-crawler/volunteer", json!({})).await;
    assert_eq!(dev.finished(&crawl).await["result"]["saved_items"], 0, "notices are remembered across a restart");
}
