use serde_json::Value;

use super::{Bench, CATALOG};
use crate::catalog::Catalog;
use crate::config::{Config, Role};
use crate::edge::{openapi, slugs};

fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let paths = document["paths"].as_object().expect("paths");
    let mut operations = Vec::new();
    for (path, methods) in paths {
        for (method, operation) in methods.as_object().expect("methods") {
            operations.push((path.clone(), method.clone(), operation.clone()));
        }
    }
    operations
}

fn running() -> Value {
    let catalog = Catalog::compile(&Config::parse(Role::Dev, CATALOG).unwrap()).unwrap();
    serde_json::from_str(&openapi::running(&catalog, crate::config::Auth::Token)).unwrap()
}

#[test]
fn the_committed_contract_is_current() {
    let committed = include_str!("../../../openapi/openapi.json");
    assert!(openapi::fixed() == committed, "run `taskgate openapi > openapi/openapi.json`");
}

#[test]
fn every_operation_declares_its_problems_and_has_an_id_of_its_own() {
    let document = running();
    assert_eq!(document["openapi"], "3.1.0");
    let mut ids = Vec::new();
    for (path, method, operation) in operations(&document) {
        let responses = operation["responses"].as_object().expect("responses");
        let declares = responses.values().any(|response| response["content"].get("application/problem+json").is_some());
        assert!(declares, "{method} {path}");
        assert!(operation["summary"].is_string(), "{method} {path}");
        ids.push(operation["operationId"].as_str().expect("an id").to_owned());
    }
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count);
}

#[test]
fn every_reference_leads_somewhere() {
    fn visit(document: &Value, value: &Value) {
        match value {
            Value::Object(members) => {
                if let Some(Value::String(reference)) = members.get("$ref") {
                    let pointer = reference.strip_prefix('#').expect("a reference into this document");
                    assert!(document.pointer(pointer).is_some(), "{reference}");
                }
                members.values().for_each(|value| visit(document, value));
            }
            Value::Array(items) => items.iter().for_each(|value| visit(document, value)),
            _ => {}
        }
    }
    let document = running();
    visit(&document, &document);
}

#[test]
fn the_catalog_s_endpoints_are_documented_with_schema_and_example() {
    let document = running();
    let crawl = &document["paths"]["/run-crawler/{category}"]["post"];
    assert_eq!(crawl["parameters"][0]["schema"]["enum"], serde_json::json!(["job", "scholarship", "volunteer"]));
    let add = &document["paths"]["/add"]["post"]["requestBody"]["content"]["application/json"];
    assert_eq!(add["example"], serde_json::json!({"x": 2, "y": 3}));
    assert_eq!(add["schema"]["additionalProperties"], false);
    let analyze = &document["paths"]["/analyze"]["post"];
    let form = &analyze["requestBody"]["content"]["multipart/form-data"];
    assert_eq!(form["schema"]["properties"]["file"]["format"], "binary");
    assert_eq!(form["schema"]["required"], serde_json::json!(["file"]));
    assert_eq!(form["encoding"]["file"]["contentType"], "image/*");
    assert!(analyze["responses"]["413"].is_object() && analyze["responses"]["415"].is_object(), "{analyze}");
}

#[tokio::test]
async fn every_operation_is_served() {
    let bench = Bench::start("").await;
    for (path, method, _) in operations(&running()) {
        // Streams do not end by themselves; their own tests read them.
        if path == "/v1/events" {
            continue;
        }
        let path = path
            .replace("{id}", "none")
            .replace("{slug}", "internal")
            .replace("{category}", "x")
            .replace("{upload_id}", "x");
        let answer = bench.send(super::request(&method.to_uppercase(), &path, &[], Vec::new())).await;
        let kind = answer.header("content-type").unwrap_or_default();
        let problem: Value = if kind.contains("problem") { answer.json(answer.status.as_u16()) } else { Value::Null };
        assert!(problem["type"] != "/problems/route-not-found" && answer.status != 405, "{method} {path}: {problem}");
    }
}

#[tokio::test]
async fn every_kind_of_problem_has_a_page() {
    let bench = Bench::start("").await;
    let list = String::from_utf8(bench.get("/problems").await.body).unwrap();
    assert_eq!(list.as_bytes(), bench.get("/problems/").await.body, "older links go on working");
    for slug in slugs::ALL {
        assert!(list.contains(&format!("/problems/{}\"", slug.name)), "{}", slug.name);
        let page = bench.get(&format!("/problems/{}", slug.name)).await;
        let text = String::from_utf8(page.body).unwrap();
        assert_eq!(page.status, 200);
        assert!(text.contains("Cause") && text.contains("Cure") && text.contains(slug.name), "{}", slug.name);
    }
    bench.get("/problems/none").await.problem("problem-not-found");
}

#[tokio::test]
async fn swagger_ui_needs_no_other_host() {
    let bench = Bench::start("").await;
    assert_eq!(bench.get("/docs").await.header("location"), Some("/swagger-ui/"));
    assert_eq!(bench.get("/").await.header("location"), Some("/dashboard/"));
    assert_eq!(bench.get("/healthz").await.status, 200);
    let page = String::from_utf8(bench.get("/swagger-ui/").await.body).unwrap();
    assert!(page.contains("swagger-ui-bundle.js") && !page.contains("https://"), "{page}");
    let script = bench.get("/swagger-ui/swagger-initializer.js").await;
    assert!(String::from_utf8(script.body).unwrap().contains("/openapi.json"));
    let document = bench.get("/openapi.json").await.json(200);
    assert!(document["paths"].get("/start/{upload_id}").is_some());
}
