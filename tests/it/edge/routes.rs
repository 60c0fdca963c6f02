//! Checks all routes: each needs an operation, a declared access and its problems, and enforces the access that it declares.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use regex::Regex;
use reqwest::Method;
use serde_json::Value;

use super::Guarded;
use crate::harness::celery;

/// Routes without an operation in the contract: files and redirects.
const WITHOUT_OPERATION: [&str; 10] = [
    "/",
    // Its messages are those of the Model Context Protocol.
    "/mcp",
    "/docs",
    "/dashboard",
    "/dashboard/",
    "/dashboard/{*path}",
    "/problems/",
    "/swagger-ui",
    "/swagger-ui/",
    "/swagger-ui/{*rest}",
];

struct Operation {
    method: Method,
    path: String,
    document: Value,
}

impl Operation {
    /// The scope that it requires; `None` when it is open.
    fn scope(&self) -> Option<String> {
        let security = self.document["security"].as_array();
        let security = security.unwrap_or_else(|| panic!("{} {} says nothing of its access", self.method, self.path));
        let scope = security.first()?["bearer"][0].as_str();
        Some(scope.unwrap_or_else(|| panic!("{} {} names no scope", self.method, self.path)).to_owned())
    }

    /// The path with a value for each parameter.
    fn address(&self) -> String {
        Regex::new(r"\{\*?\w+\}").expect("a pattern").replace_all(&self.path, "none").into_owned()
    }
}

fn operations(contract: &Value) -> Vec<Operation> {
    let paths = contract["paths"].as_object().expect("paths");
    let all = paths.iter().flat_map(|(path, methods)| {
        methods.as_object().expect("methods").iter().map(move |(method, document)| Operation {
            method: method.to_uppercase().parse().expect("a method"),
            path: path.clone(),
            document: document.clone(),
        })
    });
    all.collect()
}

#[tokio::test]
async fn every_operation_lets_in_whom_it_says_and_nobody_else() {
    let guarded = Guarded::shared();
    let http = guarded.gateways[0].http();
    let contract = http.get("/openapi.json").await.expect(200);
    assert_eq!(contract["components"]["securitySchemes"]["bearer"]["scheme"], "bearer");
    let all = operations(&contract);
    assert!(all.len() > 45 && all.iter().any(|one| one.path == "/run-crawler/{category}"), "{} operations", all.len());
    let scopes = ["submit", "read", "control"];
    // All scopes except one.
    let lacking = scopes.map(|missing| {
        let others: Vec<&str> = scopes.into_iter().filter(|scope| *scope != missing).collect();
        let token = guarded.token(&["--name", &format!("no-{missing}"), "--scope", &others.join(",")]);
        (missing, guarded.caller(0, &token))
    });
    let none = guarded.caller(0, &guarded.token(&["--name", "all-three", "--scope", "submit,read,control"]));
    for operation in &all {
        let (method, address) = (operation.method.clone(), operation.address());
        let responses = operation.document["responses"].as_object().expect("responses");
        let documents = |status: &str| {
            responses.get(status).is_some_and(|answer| answer["content"].get("application/problem+json").is_some())
        };
        assert!(documents("default"), "{method} {} declares no problems", operation.path);
        let stranger = http.send(method.clone(), &address, &[], None);
        let Some(scope) = operation.scope() else {
            assert!(!matches!(stranger.await.status, 401 | 403), "{method} {address} is open");
            continue;
        };
        assert!(documents("401") && documents("403"), "{method} {} declares no refusal", operation.path);
        stranger.await.problem(401, "unauthorized");
        let Some((_, without)) = lacking.iter().find(|(missing, _)| *missing == scope) else {
            // Only administrators may: a token with all other scopes is refused too.
            none.send(method, &address, None).await.problem(403, "insufficient-scope");
            continue;
        };
        let refused = without.send(method.clone(), &address, None).await.problem(403, "insufficient-scope");
        assert!(refused["detail"].as_str().is_some_and(|text| text.contains(&scope)), "{refused}");
        // A caller with the scope is let in, whatever the operation then answers.
        if !operation.path.ends_with("/events") {
            let status = none.send(method.clone(), &address, None).await.status;
            assert!(!matches!(status, 401 | 405), "{method} {address}: {status}");
        }
    }
}

/// Read from the source, because a route that no contract lists cannot be found through the API.
#[tokio::test]
async fn every_route_in_the_source_has_an_operation_or_says_why_not() {
    let contract = Guarded::shared().gateways[0].http().get("/openapi.json").await.expect(200);
    let known: BTreeSet<String> = operations(&contract).into_iter().map(|operation| operation.path).collect();
    let routed = Regex::new(r#"\.(?:route|nest|route_service|nest_service)\(\s*"([^"]+)""#).expect("a pattern");
    let written =
        Regex::new(r#"#\[utoipa::path\(\s*(?:get|post|put|patch|delete),\s*path = "([^"]+)""#).expect("a pattern");
    let mut found = 0;
    for file in sources() {
        let text = fs::read_to_string(&file).expect("source is UTF-8");
        for path in written.captures_iter(&text).map(|found| found[1].to_owned()) {
            assert!(known.contains(&path), "{}: {path} is written and not routed", file.display());
            found += 1;
        }
        for path in routed.captures_iter(&text).map(|found| found[1].to_owned()) {
            let is_known = known.contains(&path) || WITHOUT_OPERATION.contains(&path.as_str());
            assert!(is_known, "{}: {path} has no operation", file.display());
            found += 1;
        }
    }
    assert!(found > 45, "only {found} routes were found: has their way of writing changed?");
}

fn sources() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![celery::root().join("src/edge")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("src is readable") {
            let path = entry.expect("readable").path();
            if path.is_dir() && !path.ends_with("tests") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files
}
