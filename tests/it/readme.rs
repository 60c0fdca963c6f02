//! The README's tour, every command of it, as a stranger types it.

use std::process::Command;

use crate::dev::Dev;

/// The `sh` blocks below the heading of the tour.
fn tour() -> Vec<String> {
    let readme = include_str!("../../README.md");
    let begin = readme.find("### A tour of five minutes").expect("the tour");
    let rest = &readme[begin..];
    let end = rest.find("\n## ").expect("a heading behind the tour");
    rest[..end].split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap_or_default().to_owned()).collect()
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
