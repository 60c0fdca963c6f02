//! Applies news by the pure rule, in one transaction for the batch.

use crate::applied::Applied;
use crate::rows::light_task_columns;
use crate::statements::statements;
use crate::{Error, Event, Fence, News, Task};
use celery::task::TaskId;

use super::pool::{Pools, Tx, list};
use super::{rows, save};

statements! {
    LOAD = concat!(
        "select ",
        light_task_columns!(),
        " from task t where t.task_id in (select value from json_each($1)) order by t.task_no"
    );
    FENCE = "select 1 from lease where name = $1 and term = $2";
}

/// Applies news. `None` when the fence does not hold any more.
pub(super) async fn learn(pools: &Pools, news: &[News], fence: Option<&Fence>) -> Result<Option<Vec<Event>>, Error> {
    let mut tx = pools.begin().await?;
    if let Some(fence) = fence {
        let holds = sqlx::query(FENCE).bind(fence.lease).bind(fence.term).fetch_optional(&mut *tx).await?;
        if holds.is_none() {
            tx.rollback().await?;
            return Ok(None);
        }
    }
    let ids: Vec<&TaskId> = news.iter().map(|news| &news.task_id).collect();
    let mut applied = Applied::new(lock(&mut tx, &ids).await?);
    for news in news {
        applied.learn(news);
    }
    save::save(&mut tx, &mut applied).await?;
    tx.commit().await?;
    Ok(Some(applied.events))
}

/// The tasks with these ids. They stay as they are until `tx` ends, because there is one writer.
pub(super) async fn lock(tx: &mut Tx, ids: &[&TaskId]) -> Result<Vec<Task>, Error> {
    let ids: Vec<&str> = ids.iter().map(|id| id.as_str()).collect();
    rows::tasks(&sqlx::query(LOAD).bind(list(&ids)).fetch_all(&mut **tx).await?)
}
