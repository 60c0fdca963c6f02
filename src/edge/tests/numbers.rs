//! Every number and every time that the contract knows, with every extreme: query parameters as the contract lists them, members of
//! bodies as `hostile` writes them. A member that the contract has and no body of `hostile` tries fails the test.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use serde_json::Value;

use super::Bench;
use super::hostile::{NUMBERS, NUMERIC, TIMED, TIMES, built, escaped, operations, status};

/// The schema behind a reference.
fn resolved<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    let name = schema["$ref"].as_str().and_then(|path| path.strip_prefix("#/components/schemas/"));
    name.map_or(schema, |name| &document["components"]["schemas"][name])
}

fn is_number_or_time(schema: &Value) -> bool {
    let is_number = |kind: &Value| kind == "integer" || kind == "number";
    let kind = &schema["type"];
    let choices = ["oneOf", "anyOf"].iter().filter_map(|key| schema[*key].as_array()).flatten();
    is_number(kind)
        || kind.as_array().is_some_and(|kinds| kinds.iter().any(is_number))
        || schema["format"] == "date-time"
        || choices.into_iter().any(is_number_or_time)
}

/// Names of such members, at any depth of a body.
fn members(document: &Value, schema: &Value, seen: &mut BTreeSet<String>, names: &mut BTreeSet<String>) {
    if let Some(path) = schema["$ref"].as_str()
        && !seen.insert(path.to_owned())
    {
        return;
    }
    let schema = resolved(document, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        if is_number_or_time(property) {
            names.insert(name.clone());
        }
        members(document, property, seen, names);
    }
    let choices = ["oneOf", "anyOf", "allOf"].iter().filter_map(|key| schema[*key].as_array()).flatten();
    let inner = ["items", "additionalProperties"].iter().map(|key| &schema[*key]).filter(|inner| inner.is_object());
    for part in choices.chain(inner) {
        members(document, part, seen, names);
    }
}

#[tokio::test]
async fn every_number_and_time_of_a_body_is_tried() {
    let bench = Bench::start("").await;
    let document = bench.get("/openapi.json").await.json(200);
    let (mut seen, mut names) = (BTreeSet::new(), BTreeSet::new());
    for methods in document["paths"].as_object().unwrap().values() {
        for operation in methods.as_object().unwrap().values() {
            for content in operation["requestBody"]["content"].as_object().into_iter().flatten() {
                members(&document, &content.1["schema"], &mut seen, &mut names);
            }
        }
    }
    assert!(names.contains("countdown") && names.contains("eta") && names.contains("weight"), "{names:?}");
    let bodies = || NUMERIC.iter().map(|(_, _, body)| *body).chain(TIMED.iter().map(|(_, body)| *body));
    let is_tried = |name: &String| {
        let places = [format!("\"{name}\": §"), format!("\"{name}\": \"§\""), format!("\"{name}\": [§")];
        bodies().any(|body| places.iter().any(|place| body.contains(place)))
    };
    let missing: Vec<&String> = names.iter().filter(|name| !is_tried(name)).collect();
    assert!(missing.is_empty(), "write a body for each of {missing:?} in hostile.rs");
}

#[tokio::test]
async fn every_number_and_time_of_a_query_takes_every_extreme() {
    let bench = Bench::start("").await;
    let document = bench.get("/openapi.json").await.json(200);
    let mut tried = 0;
    for (method, path) in operations(&bench).await {
        let parameters = &document["paths"][&path][method.to_lowercase()]["parameters"];
        let asked = parameters.as_array().into_iter().flatten();
        let asked = asked.filter(|parameter| parameter["in"] == "query" && is_number_or_time(&parameter["schema"]));
        for parameter in asked {
            let (name, place) = (parameter["name"].as_str().unwrap(), path.replace(['{', '}'], ""));
            for text in NUMBERS.iter().chain(&TIMES) {
                let uri = format!("{place}?{name}={}", escaped(text));
                let Some(request) = built(&method, &uri, Vec::new()) else { continue };
                assert_ne!(status(&bench, request).await, StatusCode::INTERNAL_SERVER_ERROR, "{method} {uri}");
                tried += 1;
            }
        }
    }
    assert!(tried > 500, "the contract lists its parameters: {tried}");
}
