//! Conditions of lists on facts of `t` that both adapters store in the same columns.

use sqlx::QueryBuilder;

use super::dialect::Database;
use crate::Filter;
use crate::rows::{clean, short};

pub(super) fn narrow(query: &mut QueryBuilder<Database>, filter: &Filter) {
    if let Some(group) = &filter.group_id {
        query.push(" and t.group_id = ").push_bind(clean(group).into_owned());
    }
    if let Some(schedule) = &filter.schedule {
        query.push(" and t.schedule = ").push_bind(short(schedule));
    }
    if let Some(from) = filter.from {
        query.push(" and t.submitted_at >= ").push_bind(from.0);
    }
    if let Some(to) = filter.to {
        query.push(" and t.submitted_at < ").push_bind(to.0);
    }
}
