//! Translates the filter of a list or the feed into conditions on `t`, `k` and `s` of the statements that read tasks.

use sqlx::{Postgres, QueryBuilder};

use super::{numbers, on_facts};
use crate::Filter;
use crate::query::{BEHIND_ARGUMENTS, SEARCHED_TEXT, spellings};
use crate::rows::{clean, short};

/// Conditions on a task's state.
pub(super) fn on_state(query: &mut QueryBuilder<Postgres>, filter: &Filter) {
    if !filter.status.is_empty() {
        query
            .push(" and coalesce(s.status, taskgate.word(s.phase)) = any(")
            .push_bind(cleaned(&filter.status))
            .push(")");
    }
    if !filter.phase.is_empty() {
        let phases: Vec<&str> = filter.phase.iter().map(|phase| phase.as_str()).collect();
        query.push(" and s.phase = any(").push_bind(phases).push(")");
    }
    if !filter.worker.is_empty() {
        query.push(" and s.worker = any(").push_bind(cleaned(&filter.worker)).push(")");
    }
    if filter.dead_letters {
        query.push(" and s.dead");
    }
}

/// Conditions on what was submitted. `span` are the days of the numbers that are tested.
pub(super) fn on_task(query: &mut QueryBuilder<Postgres>, filter: &Filter, span: (i64, i64)) {
    one_of(query, "k.name", &filter.task);
    one_of(query, "k.queue", &filter.queue);
    if !filter.task_patterns.is_empty() {
        let patterns: Vec<String> = filter.task_patterns.iter().map(|pattern| like(pattern)).collect();
        query.push(" and k.name like any(").push_bind(patterns).push(")");
    }
    for (key, value) in &filter.labels {
        query.push(" and exists (select 1 from taskgate.label l where l.task_no = t.task_no and l.key = ");
        query.push_bind(short(key)).push(" and l.value = ").push_bind(short(value));
        query
            .push(" and l.task_no >> 32 >= ")
            .push_bind(span.0)
            .push(" and l.task_no >> 32 < ")
            .push_bind(span.1)
            .push(")");
    }
    if let Some(root) = &filter.root_id {
        query.push(" and (t.root_id = ").push_bind(clean(root).into_owned());
        query.push(" or (t.id = ").push_bind(numbers::key(&clean(root))).push(" and t.root_id is null))");
    }
    on_facts::narrow(query, filter);
    if let Some(text) = &filter.q {
        search(query, &clean(text));
    }
    if let Some(text) = &filter.argument {
        argument(query, &clean(text));
    }
}

/// Searches the arguments: in the beginning of the message, and for adopted tasks in the texts that workers' events contain.
fn argument(query: &mut QueryBuilder<Postgres>, text: &str) {
    let patterns: Vec<String> = spellings(text).iter().map(|text| format!("%{}%", escape(text))).collect();
    query.push(" and coalesce(t.options, '') not like '%\"redact\":%' and (lower(split_part(left(t.body, ");
    query.push_bind(SEARCHED_TEXT).push("), ").push_bind(BEHIND_ARGUMENTS).push(", 1)) like any(");
    query.push_bind(patterns.clone()).push(") or lower(concat(left(t.argsrepr, ").push_bind(SEARCHED_TEXT);
    query
        .push("), ' ', left(t.kwargsrepr, ")
        .push_bind(SEARCHED_TEXT)
        .push("))) like any(")
        .push_bind(patterns)
        .push("))");
}

fn one_of(query: &mut QueryBuilder<Postgres>, column: &'static str, values: &[String]) {
    if !values.is_empty() {
        query.push(" and ").push(column).push(" = any(").push_bind(cleaned(values)).push(")");
    }
}

fn cleaned(texts: &[String]) -> Vec<String> {
    texts.iter().map(|text| clean(text).into_owned()).collect()
}

fn search(query: &mut QueryBuilder<Postgres>, text: &str) {
    let prefix = format!("{}%", escape(text));
    let anywhere = format!("%{}%", escape(&text.to_lowercase()));
    query.push(" and (coalesce(t.given_id, t.id::text) like ").push_bind(prefix.to_lowercase());
    query.push(" or coalesce(t.given_id, t.id::text) like ").push_bind(prefix);
    for column in ["k.name", "t.labels", "s.failure_type", "s.failure_message"] {
        query.push(" or lower(").push(column).push(") like ").push_bind(anywhere.clone());
    }
    query.push(")");
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_")
}

/// `tasks.*` as a LIKE pattern.
fn like(pattern: &str) -> String {
    escape(&clean(pattern)).replace('*', "%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_star_of_a_pattern_is_special() {
        assert_eq!(like("tasks.*"), "tasks.%");
        assert_eq!(like("a_b%*"), "a\\_b\\%%");
    }
}
