//! Commands of documents that no test can run, because they need somebody's database or cluster: the program understands each of them,
//! and each request goes to an operation that exists.
//!
//! A block that begins with "```sh" is read by a shell in which `taskgate` only asks for the help of what it is called with, `curl` only
//! notes its request, and there is no other program.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use regex::Regex;
use serde_json::Value;

use super::{Document, documents};
use crate::harness::celery::root;

const SHELL: &str = r#"
command_not_found_handle() { :; }
taskgate() { command taskgate "$@" --help > help.txt 2>&1 || { echo "taskgate $*"; echo "$(<help.txt)"; } >> refused.txt; }
curl() {
    local method=GET address= word
    while [ $# -gt 0 ]; do
        case $1 in
            -X) method=$2; shift ;;
            -d|-F|--data*) [ "$method" != GET ] || method=POST; shift ;;
            -H) shift ;;
            *:8000*) address=${1#*:8000} ;;
        esac
        shift
    done
    echo "$method ${address%%\?*}" >> requests.txt
}
"#;

fn blocks(document: &Document) -> Vec<String> {
    let parts = document.text.split("\n```sh\n").skip(1);
    let blocks = parts.map(|rest| rest.split("\n```").next().unwrap_or_default().to_owned());
    blocks.filter(|block| block.contains("taskgate ") || block.contains("curl ")).collect()
}

/// What the program refused, and the requests.
fn read(document: &Document) -> (String, BTreeSet<String>) {
    let program = Path::new(env!("CARGO_BIN_EXE_taskgate"));
    let folder = tempfile::tempdir().expect("a folder");
    // Nothing is written anywhere, and a word like `{id}` or `msg_…` is any word.
    let written = Regex::new(r" > \S+").expect("an expression");
    let placeholder = Regex::new(r"\{\w+\}|…").expect("an expression");
    let text = blocks(document).join("\n");
    let block = placeholder.replace_all(&written.replace_all(&text, ""), "x").into_owned();
    let done = Command::new("/bin/bash")
        .args(["-c", &format!("{SHELL}{block}\n")])
        .current_dir(folder.path())
        .env("PATH", program.parent().expect("a folder"))
        .output()
        .expect("bash starts");
    let name = document.path.display();
    assert!(done.stderr.is_empty(), "{name}: {}", String::from_utf8_lossy(&done.stderr));
    let file = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap_or_default();
    (file("refused.txt"), file("requests.txt").lines().map(str::to_owned).collect())
}

/// `GET /v1/tasks/7/logs` is `GET /v1/tasks/{id}/logs`.
fn is_operation(contract: &Value, request: &str) -> bool {
    let (method, path) = request.split_once(' ').expect("a method and a path");
    let parts: Vec<&str> = path.split('/').collect();
    let fits = |pattern: &str| {
        let pattern: Vec<&str> = pattern.split('/').collect();
        pattern.len() == parts.len()
            && pattern.iter().zip(&parts).all(|(one, part)| one.starts_with('{') || one == part)
    };
    let paths = contract["paths"].as_object().expect("paths");
    paths.iter().any(|(pattern, operations)| fits(pattern) && operations.get(method.to_lowercase()).is_some())
}

#[test]
fn commands_that_no_test_runs_are_understood_and_their_requests_exist() {
    let contract = std::fs::read_to_string(root().join("openapi/openapi.json")).expect("the contract");
    let contract: Value = serde_json::from_str(&contract).expect("JSON");
    // The sample catalog's endpoint that the page about files calls.
    let of_catalogs = BTreeSet::from(["POST /analyze".to_owned()]);
    let is_page = |document: &Document| document.path.starts_with("docs") && !blocks(document).is_empty();
    let pages: Vec<Document> = documents().into_iter().filter(is_page).collect();
    assert!(pages.len() >= 8, "pages with commands");
    let mut wrong = Vec::new();
    for page in &pages {
        let (refused, requests) = read(page);
        let unknown = requests.iter().filter(|one| !of_catalogs.contains(*one) && !is_operation(&contract, one));
        wrong.extend(unknown.map(|request| format!("{}: {request} is no operation", page.path.display())));
        if !refused.is_empty() {
            wrong.push(format!("{}: {refused}", page.path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
