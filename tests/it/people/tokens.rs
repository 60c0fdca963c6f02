//! Tokens, inboxes, and previews of schedules over the API.

use serde_json::{Value, json};

use crate::edge::Guarded;
use crate::harness::environment::Harness;

#[tokio::test]
async fn an_administrator_lists_tokens_without_secrets_and_revokes_one() {
    let guarded = Guarded::shared();
    let (admin, secret) =
        (guarded.caller(0, &guarded.admin), guarded.token(&["--name", "to-be-revoked", "--scope", "read"]));
    let reader = guarded.caller(1, &secret);
    reader.get("/v1/tokens").await.problem(403, "insufficient-scope");
    let listed = admin.get("/v1/tokens").await.expect(200);
    assert!(!listed.to_string().contains(&secret), "the token itself is in the list");
    let tokens = listed["tokens"].as_array().expect("a list");
    let one = tokens.iter().find(|one| one["name"] == "to-be-revoked").unwrap_or_else(|| panic!("{listed}"));
    assert_eq!((&one["state"], &one["scopes"]), (&json!("valid"), &json!(["read"])), "{one}");
    let path = format!("/v1/tokens/{}", one["id"].as_str().expect("an id"));
    let revoked = admin.send(reqwest::Method::DELETE, &path, None).await.expect(200);
    assert_eq!((&revoked["state"], &revoked["name"]), (&json!("revoked"), &json!("to-be-revoked")));
    admin.send(reqwest::Method::DELETE, &path, None).await.problem(404, "token-not-found");
    let audit = admin.get("/v1/audit").await.expect(200);
    let rows = audit["audit"].as_array().expect("a list");
    assert!(rows.iter().any(|row| row["what"] == "revoke_token" && row["detail"] == "to-be-revoked"), "{audit}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledgers_own_inbox_is_listed_with_what_waits_in_it() {
    let env = Harness::shared();
    let listed = env.http.get("/v1/inboxes").await.expect(200);
    let one = &listed["inboxes"][0];
    assert!(
        one["trouble"] == Value::Null && one["waiting"].is_i64() && !one["name"].to_string().contains("geheim"),
        "{listed}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timetable_is_previewed_before_it_is_written() {
    let env = Harness::shared();
    let document = json!({"name": "not-yet", "task": "demo.add", "cron": "0 9 * * *", "timezone": "Asia/Seoul"});
    let told = env.http.post("/v1/schedule-preview?n=3", &document).await.expect(200);
    let ticks = told["ticks"].as_array().expect("a list");
    assert!(
        ticks.len() == 3 && ticks.iter().all(|tick| tick.as_str().is_some_and(|text| text.contains("T09:00:00+09:00"))),
        "{told}"
    );
    env.http.get("/v1/schedules/not-yet").await.problem(404, "schedule-not-found");
    let wrong = json!({"task": "demo.add", "cron": "0 99 * * *"});
    let problem = env.http.post("/v1/schedule-preview", &wrong).await.problem(422, "invalid-request");
    assert_eq!(problem["errors"][0]["pointer"], "/cron", "{problem}");
}
