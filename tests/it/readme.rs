//! Runs every command of the README's tour as a new user would type it.

use std::process::Command;

use crate::dev::Dev;

/// What stands below the heading of the tour.
fn tour_text() -> &'static str {
    let readme = include_str!("../../README.md");
    let begin = readme.find("### A tour of five minutes").expect("the tour");
    let rest = &readme[begin..];
    &rest[..rest.find("\n## ").expect("a heading behind the tour")]
}

/// Its `sh` blocks.
fn tour() -> Vec<String> {
    let blocks = tour_text().split("```sh\n").skip(1);
    blocks.map(|block| block.split("```").next().unwrap_or_default().to_owned()).collect()
}

/// The answer that it shows.
fn shown() -> String {
    tour_text().split("```json\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an answer").to_owned()
}

/// With one text for every id.
fn without_ids(answer: &str) -> serde_json::Value {
    let ids = regex::Regex::new("[0-9a-f]{5}…|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}").expect("an expression");
    serde_json::from_str(&ids.replace_all(answer.trim(), "id")).expect("an answer in JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_the_tour_does_what_the_tour_says() {
    let dev = Dev::start();
    let blocks = tour();
    assert!(blocks.len() >= 5, "{blocks:?}");
    // One shell, as for a reader: later commands use the variable that an earlier one set.
    let script =
        format!("set -eu\n{}", blocks.join("\necho\necho ====\n")).replace("http://127.0.0.1:8000", &dev.http.base);
    let run = tokio::task::spawn_blocking(move || Command::new("bash").arg("-c").arg(script).output());
    let done = run.await.expect("bash runs").expect("bash starts");
    let output = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{output}\n{}", String::from_utf8_lossy(&done.stderr));
    let answers: Vec<&str> = output.split("====").collect();
    assert_eq!(answers.len(), blocks.len(), "{output}");
    assert_eq!(without_ids(answers[0]), without_ids(&shown()), "the answer that the tour shows");
    for (answer, expected) in answers.iter().zip([
        &["\"task_id\"", "Crawling volunteer in the background"][..],
        &["event: snapshot", "event: progress", "event: end"],
        &["\"status\":\"SUCCESS\"", "saved_items"],
        &["\"events\":[", "\"seq\":1,"],
        &["\"result\":42"],
        &["\"tasks\":[", "tasks.multiply"],
    ]) {
        for text in expected {
            assert!(answer.contains(text), "{text} is missing in\n{answer}");
        }
    }
}
