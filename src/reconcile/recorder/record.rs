//! Translates a record of the result backend into news of its task. Pure.

use celery::exception::Exception;
use celery::result::{ResultMeta, ResultTuple};
use celery::serial;
use celery::task::{Json, Phase, TaskId};
use ledger::{Failure, News, REJECTED, Source, Task};
use runtime::clock::Time;

/// Larger return values are dropped; only the outcome is kept.
pub const MAX_RESULT_BYTES: usize = 64 << 20;

/// How certain a record is.
#[derive(Debug)]
pub enum Said {
    /// The record is certain.
    Now(Box<News>),
    /// Celery writes this state also when it is not the end: `first` is news now, `end` unless something else arrives soon.
    Unless { first: Option<Box<News>>, end: Box<News> },
}

/// Translates a record. `now` is used if the record has no time.
pub fn read(id: TaskId, record: ResultMeta, now: Time) -> Said {
    let at = record.date_done.map_or(now, |done| Time(done.as_microsecond()));
    let news = |phase: Phase, at: Time| News {
        children: record.children.as_deref().filter(|children| !children.is_empty()).map(children_json),
        worker: record.extended.as_ref().and_then(|extended| extended.worker.clone()),
        ..News::new(id.clone(), Source::Result, phase, at)
    };
    match record.status.as_str() {
        "SUCCESS" => certain(succeeded(news(Phase::Succeeded, at), record.result)),
        "FAILURE" => failed(&record, news(Phase::Failed, at), news(Phase::Running, now)),
        "REVOKED" => revoked(&record, news(Phase::Revoked, at)),
        "RETRY" => certain(News {
            failure: failure(&record),
            traceback: record.traceback.clone(),
            ..news(Phase::Retrying, now)
        }),
        "STARTED" => certain(News { worker: started_by(&record), ..news(Phase::Running, now) }),
        status => certain(News {
            status: Some(status.to_owned()),
            meta: Some(record.result.clone()),
            ..news(Phase::Running, now)
        }),
    }
}

fn certain(news: News) -> Said {
    Said::Now(Box::new(news))
}

/// Whether a record repeats what the ledger knows about an unfinished task.
pub fn is_known(task: &Task, news: &News) -> bool {
    let status = news.status.as_deref().unwrap_or(news.phase.status());
    let same_meta = match (&task.progress, &news.meta) {
        (Some(known), Some(said)) => known.get() == said.get(),
        (_, None) => true,
        (None, Some(_)) => false,
    };
    news.phase == task.phase && status == task.status && same_meta
}

fn succeeded(news: News, result: Json) -> News {
    let bytes = result.get().len();
    if bytes <= MAX_RESULT_BYTES {
        return News { result: Some(result), ..news };
    }
    let reason = format!("the result has {bytes} bytes, more than the {MAX_RESULT_BYTES} that are kept");
    News { reason: Some(reason), ..news }
}

fn failed(record: &ResultMeta, end: News, first: News) -> Said {
    let traceback = record.traceback.clone();
    if let Some(failure) = failure(record) {
        let wrapper = record.exception().and_then(|exception| exception.wrapper);
        let reason = wrapper.map(|wrapper| format!("it could not be pickled: {wrapper} stood in for it"));
        return certain(News { failure: Some(failure), traceback, reason, ..end });
    }
    let meta = Some(record.result.clone());
    let failure = Some(Failure { kind: "FAILURE".to_owned(), message: message_of(&record.result) });
    Said::Unless {
        first: Some(Box::new(News { status: Some("FAILURE".to_owned()), meta: meta.clone(), ..first })),
        end: Box::new(News { failure, traceback, meta, ..end }),
    }
}

/// The step before the failure that Celery writes of a task that raised `Reject`; of one that is to be delivered again it writes
/// nothing, and the event alone tells.
pub fn reject_before(id: &TaskId, record: &ResultMeta, now: Time) -> Option<News> {
    let is_celery_s =
        |exception: Exception| exception.kind == "Reject" && exception.module.as_deref() == Some("celery.exceptions");
    let is_reject = record.status == "FAILURE" && record.exception().is_some_and(is_celery_s);
    let at = record.date_done.map_or(now, |done| Time(done.as_microsecond()));
    is_reject.then(|| rejected(News::new(id.clone(), Source::Result, Phase::Running, at), false))
}

/// Its worker no longer has it.
pub fn rejected(news: News, is_given_back: bool) -> News {
    let reason =
        if is_given_back { "its worker rejected it and gave the message back" } else { "its worker rejected it" };
    News { status: Some(REJECTED.to_owned()), reason: Some(reason.to_owned()), ..news }
}

fn revoked(record: &ResultMeta, news: News) -> Said {
    let why = record.exception().map(|exception| exception.text()).unwrap_or_default();
    if why == "expired" {
        return certain(News { phase: Phase::Expired, reason: Some("expired before it started".to_owned()), ..news });
    }
    let reason = if why.is_empty() { "revoked".to_owned() } else { why };
    Said::Unless { first: None, end: Box::new(News { reason: Some(reason), ..news }) }
}

fn failure(record: &ResultMeta) -> Option<Failure> {
    // A pickled exception cannot be read, but its traceback names it.
    let unread = || {
        let traceback = record.traceback.as_deref().filter(|_| serial::is_opaque(record.result.get()))?;
        Exception::of_traceback(traceback)
    };
    let exception = record.exception().or_else(unread)?;
    Some(Failure { message: exception.message_in(record.traceback.as_deref()), kind: exception.kind })
}

/// The message of a task that set FAILURE itself: a string member of its `meta` if there is one, else the whole.
fn message_of(meta: &Json) -> String {
    let members: Option<serde_json::Map<String, serde_json::Value>> = serde_json::from_str(meta.get()).ok();
    let text = |name: &str| members.as_ref()?.get(name)?.as_str().map(str::to_owned);
    ["message", "error", "detail", "reason"].into_iter().find_map(text).unwrap_or_else(|| {
        let all = serde_json::from_str::<String>(meta.get()).unwrap_or_else(|_| meta.get().to_owned());
        all.chars().take(1_000).collect()
    })
}

fn started_by(record: &ResultMeta) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Started {
        hostname: Option<String>,
    }
    serde_json::from_str::<Started>(record.result.get()).ok().and_then(|started| started.hostname)
}

fn children_json(children: &[ResultTuple]) -> Json {
    let mut text = String::from("[");
    for (n, child) in children.iter().enumerate() {
        if n > 0 {
            text.push_str(", ");
        }
        child.encode(&mut text);
    }
    text.push(']');
    Json::from(serde_json::value::RawValue::from_string(text).expect("result tuples are written as JSON"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Said {
        let record = ResultMeta::decode(text.as_bytes()).unwrap();
        read(TaskId::parse("t").unwrap(), record, Time(7))
    }

    #[test]
    fn a_reject_is_told_before_the_failure_that_celery_makes_of_it() {
        let record = r#"{"status": "FAILURE", "result": {"exc_type": "Reject", "exc_message": ["no", false],
            "exc_module": "celery.exceptions"}, "task_id": "t", "traceback": null, "children": []}"#;
        let before = |text: &str| {
            reject_before(&TaskId::parse("t").unwrap(), &ResultMeta::decode(text.as_bytes()).unwrap(), Time(7))
        };
        let first = before(record).unwrap();
        assert_eq!((first.phase, first.status.as_deref(), first.at), (Phase::Running, Some("REJECTED"), Time(7)));
        let Said::Now(end) = said(record) else { panic!("a failure is certain") };
        assert_eq!((end.phase, end.failure.unwrap().kind.as_str()), (Phase::Failed, "Reject"));
        assert!(before(&record.replace("celery.exceptions", "app")).is_none());
    }

    #[test]
    fn a_return_value_is_kept_digit_for_digit() {
        let Said::Now(news) = said(
            r#"{"status": "SUCCESS", "result": 123456789012345678901234567890, "task_id": "t", "traceback": null, "children": []}"#,
        ) else {
            panic!("a success is certain")
        };
        assert_eq!((news.phase, news.result.unwrap().get()), (Phase::Succeeded, "123456789012345678901234567890"));
    }

    #[test]
    fn a_custom_state_is_progress_with_its_meta() {
        let Said::Now(news) = said(r#"{"status": "PROGRESS", "result": {"progress": 3}, "task_id": "t"}"#) else {
            panic!("progress is certain")
        };
        assert_eq!((news.phase, news.status.as_deref(), news.at), (Phase::Running, Some("PROGRESS"), Time(7)));
        assert_eq!(news.meta.unwrap().get(), r#"{"progress": 3}"#);
    }

    #[test]
    fn a_failure_that_the_task_set_itself_is_the_end_only_if_nothing_else_is_heard() {
        let Said::Unless { first: Some(first), end } =
            said(r#"{"status": "FAILURE", "result": {"message": "no such page"}, "task_id": "t"}"#)
        else {
            panic!("update_state may write FAILURE at any time")
        };
        assert_eq!((first.phase, first.status.as_deref()), (Phase::Running, Some("FAILURE")));
        assert_eq!(end.failure.unwrap().message, "no such page");
    }

    #[test]
    fn an_exception_is_certain() {
        let text = r#"{"status": "FAILURE", "result": {"exc_type": "ValueError", "exc_message": ["boom"], "exc_module": "builtins"}, "traceback": "Traceback", "task_id": "t"}"#;
        let Said::Now(news) = said(text) else { panic!("an exception is certain") };
        assert_eq!(news.failure, Some(Failure { kind: "ValueError".into(), message: "boom".into() }));
        assert_eq!(news.traceback.as_deref(), Some("Traceback"));
    }

    #[test]
    fn expired_is_certain_but_revoked_is_what_any_worker_writes() {
        let revoked = |why: &str| {
            format!(
                r#"{{"status": "REVOKED", "result": {{"exc_type": "TaskRevokedError", "exc_message": ["{why}"]}}, "task_id": "t"}}"#
            )
        };
        assert!(matches!(said(&revoked("expired")), Said::Now(news) if news.phase == Phase::Expired));
        assert!(matches!(said(&revoked("revoked")), Said::Unless { first: None, .. }));
    }
}
