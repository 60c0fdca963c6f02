//! Every replica reports the findings of reconcilers, until they are no longer found, and the rows that it cannot read.

use ledger::Finding;
use sqlx::{AssertSqlSafe, Connection};

use super::fixture::{Fixture, after, id};

super::on_both!(
    a_finding_is_told_until_its_source_does_not_find_it_any_more,
    a_row_that_cannot_be_read_is_told_and_hides_no_other
);

fn finding(kind: &str, subject: &str, seconds: i64, detail: &str) -> Finding {
    Finding { kind: kind.into(), subject: subject.into(), since: after(seconds), detail: detail.into() }
}

async fn a_finding_is_told_until_its_source_does_not_find_it_any_more(fixture: &Fixture) {
    let (first, second) = (finding("undecided", "a", 1, "24 tasks"), finding("undecided", "b", 1, "one"));
    fixture.note_findings("sweeper", &[second, first]).await.unwrap();
    fixture.note_findings("canvas", &[finding("canvas_stuck", "c", 2, "two")]).await.unwrap();
    assert_eq!(fixture.findings(10).await.unwrap().len(), 3);
    let later = finding("undecided", "a", 9, "25 tasks");
    fixture.note_findings("sweeper", std::slice::from_ref(&later)).await.unwrap();
    let kept = Finding { since: after(1), ..later };
    assert_eq!(fixture.findings(10).await.unwrap(), [finding("canvas_stuck", "c", 2, "two"), kept]);
    fixture.note_findings("sweeper", &[]).await.unwrap();
    assert_eq!(fixture.findings(1).await.unwrap(), [finding("canvas_stuck", "c", 2, "two")]);
}

/// Half of the rows, so that a page of them is empty unless the next rows are read.
async fn a_row_that_cannot_be_read_is_told_and_hides_no_other(fixture: &Fixture) {
    let names: Vec<String> = (0..6).map(|n| format!("t{n}")).collect();
    let mut numbers = Vec::new();
    for name in &names {
        numbers.push(fixture.queue(&id(name)).await);
    }
    damage(fixture, &numbers[..3]).await;
    let found = fixture.unfinished(&[], 0, 2).await.unwrap();
    assert_eq!(found.iter().map(|task| task.id.as_str()).collect::<Vec<_>>(), ["t3", "t4"]);
    let found = fixture.unfinished(&[], numbers[4], 2).await.unwrap();
    assert_eq!(found.iter().map(|task| task.id.as_str()).collect::<Vec<_>>(), ["t5"]);
    let told = fixture.unreadable();
    assert_eq!(told.iter().map(|row| row.task_no).collect::<Vec<_>>(), numbers[..3]);
    assert!(told[0].detail.contains("task.labels"), "{told:?}");
}

async fn damage(fixture: &Fixture, numbers: &[i64]) {
    let list = numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let sql = |table| AssertSqlSafe(format!("update {table} set labels = '{{' where task_no in ({list})"));
    if fixture.is_postgres() {
        let mut connection = sqlx::PgConnection::connect(&fixture.url).await.unwrap();
        sqlx::query(sql("taskgate.task")).execute(&mut connection).await.unwrap();
    } else {
        let mut connection = sqlx::SqliteConnection::connect(&fixture.url).await.unwrap();
        sqlx::query(sql("task")).execute(&mut connection).await.unwrap();
    }
}
