//! Every replica reports the findings of reconcilers, until they are no longer found.

use ledger::Finding;

use super::fixture::{Fixture, after};

super::on_both!(a_finding_is_told_until_its_source_does_not_find_it_any_more);

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
