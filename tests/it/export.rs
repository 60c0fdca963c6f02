//! `taskgate export`: events and ended tasks in a Parquet file, and the position for the next export.

use std::fs::File;
use std::path::Path;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Row, RowAccessor};
use serde_json::json;

use crate::harness::environment::{Harness, Options};
use crate::harness::eventually;
use crate::harness::gateway::run;
use crate::harness::process::folder;

/// What the command printed, and the position that it named.
fn export(env: &Harness, since: &str, to: &Path) -> (String, String) {
    let to = to.to_str().expect("the folder has a plain name");
    let done = run(&["export", "--since", since, "--to", to], &[("DATABASE_URL", &env.database)]);
    let told = String::from_utf8_lossy(&done.stdout).trim().to_owned();
    assert!(done.status.success(), "{told} {}", String::from_utf8_lossy(&done.stderr));
    let position = told.rsplit(' ').next().unwrap_or_default().to_owned();
    (told, position)
}

/// The rows, and the position in the file's metadata.
fn read(path: &Path) -> (Vec<Row>, Option<String>) {
    let reader = SerializedFileReader::new(File::open(path).expect("it was written")).expect("it is a Parquet file");
    let metadata = reader.metadata().file_metadata().key_value_metadata().cloned().unwrap_or_default();
    let position = metadata.into_iter().find(|pair| pair.key == "taskgate.position").and_then(|pair| pair.value);
    let rows = reader.get_row_iter(None).expect("it has rows").map(|row| row.expect("a row"));
    (rows.collect(), position)
}

fn text(row: &Row, column: &str) -> Option<String> {
    let index = row.get_column_iter().position(|(name, _)| name == column).expect("a column of this name");
    row.get_string(index).ok().cloned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_goes_on_where_the_last_one_ended() {
    let env = Harness::start(&Options::default());
    let first = env.submit("demo.add", json!([1, 2])).await;
    assert_eq!(env.finished(&first).await["result"], 3);
    let (one, two) = (folder("export").join("one.parquet"), folder("export").join("two.parquet"));
    // A position is visible only when all lower ones are written, so the newest event may be missing for a moment.
    let (_, position) = eventually("the end is among what is exported", async || {
        let (told, position) = export(&env, "0", &one);
        told.contains("1 of them ends of tasks").then_some((told, position))
    })
    .await;
    let (rows, stored) = read(&one);
    assert_eq!(stored.as_deref(), Some(position.as_str()));
    let ends: Vec<&Row> = rows.iter().filter(|row| text(row, "phase").as_deref() == Some("succeeded")).collect();
    let [end] = ends[..] else { panic!("{rows:?}") };
    assert_eq!((text(end, "task_id"), text(end, "name")), (Some(first.clone()), Some("demo.add".to_owned())));
    assert_eq!(text(end, "result").as_deref(), Some("3"));
    assert_eq!(text(&rows[0], "phase").as_deref(), Some("accepted"), "{:?}", rows[0]);

    let second = env.submit("demo.add", json!([3, 4])).await;
    assert_eq!(env.finished(&second).await["result"], 7);
    let rows = eventually("the second task is exported", async || {
        export(&env, &position, &two);
        let (rows, _) = read(&two);
        rows.iter().any(|row| text(row, "task_id").as_ref() == Some(&second)).then_some(rows)
    })
    .await;
    assert!(
        !rows.iter().any(|row| text(row, "result").as_deref() == Some("3")),
        "what was exported does not come again"
    );
    let (told, _) = export(&env, "2999-01-01T00:00:00Z", &two);
    assert!(told.starts_with("0 events"), "{told}");
}

#[test]
fn an_export_that_cannot_begin_says_why() {
    let refused =
        run(&["export", "--since", "yesterday", "--to", "x.parquet"], &[("DATABASE_URL", "postgres://127.0.0.1:1/x")]);
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && told.contains("neither a position of the feed nor a time"), "{told}");
}
