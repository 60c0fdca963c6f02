//! Log lines of tasks: numbered within the task, each stored once, and deleted after their time.

use celery::task::TaskId;
use celery::task_log::{LogLine, TaskLog};

use super::fixture::{Fixture, after, new_id};

super::on_both!(lines_are_numbered_through_the_task_and_written_once, old_lines_go_and_newer_ones_stay);

const MOST: i64 = 1_000;

fn log(id: &TaskId, retries: i32, seq: i64, texts: &[&str]) -> TaskLog {
    let line = |text: &&str| LogLine { at: 1.5, level: "INFO".to_owned(), text: (*text).to_owned() };
    TaskLog { uuid: id.clone(), retries, seq, lines: texts.iter().map(line).collect(), dropped: 0 }
}

async fn texts(fixture: &Fixture, no: i64, from: i64) -> Vec<(i64, i32, String)> {
    let pieces = fixture.log_pieces(no, from, 100).await.unwrap();
    let lines = pieces.into_iter().flat_map(|piece| {
        let attempt = piece.attempt;
        (piece.first_no..).zip(piece.lines).map(move |(no, line)| (no, attempt, line.text))
    });
    lines.collect()
}

async fn lines_are_numbered_through_the_task_and_written_once(fixture: &Fixture) {
    let (id, stranger) = (new_id(), new_id());
    let no = fixture.accept(&id).await;
    let first = [log(&id, 0, 0, &["a", "b\0"]), log(&stranger, 0, 0, &["nobody has it"])];
    assert_eq!(fixture.append_logs(&first, MOST, after(1)).await.unwrap(), std::slice::from_ref(&id));
    assert!(fixture.append_logs(&first, MOST, after(2)).await.unwrap().is_empty(), "sent again");
    let more = [log(&id, 0, 1, &["b", "c"]), log(&id, 1, 0, &["again"]), log(&id, 0, 3, &["late"])];
    fixture.append_logs(&more, MOST, after(3)).await.unwrap();
    let expected = [(1, 0, "a"), (2, 0, "b\u{fffd}"), (3, 0, "c"), (4, 1, "again"), (5, 0, "late")];
    let expected = expected.map(|(no, attempt, text)| (no, attempt, text.to_owned()));
    assert_eq!(texts(fixture, no, 0).await, expected);
    assert_eq!(texts(fixture, no, 3).await, expected[3..], "a page begins where one ended");
    fixture.append_logs(&[log(&id, 1, 1, &[&"x".repeat(2_000)])], MOST, after(4)).await.unwrap();
    let last = texts(fixture, no, 5).await.pop().unwrap();
    assert!(last.2.starts_with("the log ends here"), "{last:?}");
    assert!(fixture.append_logs(&[log(&id, 1, 2, &["y"])], MOST, after(5)).await.unwrap().is_empty());
}

async fn old_lines_go_and_newer_ones_stay(fixture: &Fixture) {
    let id = new_id();
    let no = fixture.accept(&id).await;
    for second in 0..3 {
        fixture.append_logs(&[log(&id, 0, second, &["line"])], MOST, after(second)).await.unwrap();
    }
    assert_eq!(fixture.prune_logs(after(2), 1).await.unwrap(), 1);
    assert_eq!(fixture.prune_logs(after(2), 10).await.unwrap(), 1);
    assert_eq!(fixture.prune_logs(after(2), 10).await.unwrap(), 0);
    assert_eq!(texts(fixture, no, 0).await.len(), 1);
}
