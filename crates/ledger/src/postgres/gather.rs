//! Finds tasks in the feed that a replica accepted but did not publish, and puts them into the outbox.
//!
//! A task on the direct path has no row in the outbox. The feed shows that it was accepted, and its row in `flight` that it is still
//! waiting. So a pass over the outbox reads the feed from a mark on. The mark moves past tasks that are too old for the direct path, but
//! never past a transaction that may still commit, so no task is missed; a task that is seen twice gets only one row.

use sqlx::Row;
use std::sync::Mutex;
use std::time::Duration;

use crate::statements::statements;
use crate::{Error, history};
use celery::task::Phase;
use runtime::clock::Time;

use super::pooled::Pool;
use super::{events, outbox_rows, pool};

statements! {
    MARK = "select feed from taskgate.relay_mark";
    MOVE = "update taskgate.relay_mark set feed = $1 \
         where feed < $1 and set_config('synchronous_commit', 'off', true) is not null";
    PAGE = "select pos, events from taskgate.feed where pos > $1 order by pos limit $2";
    /// The tasks among these that are accepted, unchanged and not in the outbox. A transaction that has locked an outbox row may wait for its
    /// task, so waiting for that row could deadlock.
    UNTOUCHED = "select f.task_no from taskgate.flight f where f.task_no = any($1) and f.seq = 1 \
         and f.phase = 'accepted' and not exists (select 1 from taskgate.outbox o where o.task_no = f.task_no)";
    /// Counts such tasks from a number on. Reads along the index, because tens of thousands may be on the direct path.
    OUTSIDE = "select count(*) from taskgate.flight f where f.task_no >= $1 and f.seq = 1 and f.phase = 'accepted' \
         and not exists (select 1 from taskgate.outbox o where o.task_no = f.task_no)";
    /// Locks the tasks, so that they are not published or withdrawn meanwhile.
    TAKE_IN = "insert into taskgate.outbox (task_no, wake_at, accepted_at) \
         select i.task_no, i.at, i.at from unnest($1::bigint[], $2::bigint[]) as i(task_no, at) cross join lateral \
         (select 1 from taskgate.flight f where f.task_no = i.task_no and f.seq = 1 and f.phase = 'accepted' for no key update) f \
         on conflict (task_no) do nothing";
}

/// Replicas' clocks differ by less than this. A task that was accepted further in the future comes from a wrong clock, so the mark does not
/// wait for its time.
const AHEAD: Duration = Duration::from_secs(10);

/// How long a count of the tasks outside the outbox is valid.
const COUNTED_FOR: Duration = Duration::from_millis(250);

/// Rows of the feed in one read.
const ROWS: i64 = 500;

/// The accepted tasks in a section of the feed.
#[derive(Default)]
struct Accepted {
    numbers: Vec<i64>,
    times: Vec<i64>,
    /// The last row that the mark may move past.
    passed: Option<i64>,
    /// The last row that was read.
    last: i64,
    is_end: bool,
}

/// Puts waiting tasks that were accepted before `cut` into the outbox. Runs in its own transaction before the pass, so that a withdrawal
/// finds the row or comes first.
pub(super) async fn gather(pool: &Pool, now: Time, settle: Duration) -> Result<(), Error> {
    let cut = now.minus(settle);
    let horizon = events::horizon(pool).await?;
    let mut after: i64 = sqlx::query(MARK).fetch_one(pool).await?.try_get(0)?;
    let (mut passed, mut is_safe) = (None, true);
    loop {
        let found = page(pool, after, cut, now, horizon).await?;
        if !take_in(pool, &found).await? {
            // Not all of this page is in the outbox, so the mark stays before it.
            break;
        }
        if is_safe {
            passed = found.passed.or(passed);
            is_safe = found.passed == Some(found.last);
        }
        after = found.last;
        if found.is_end {
            break;
        }
    }
    if let Some(passed) = passed {
        sqlx::query(MOVE).bind(passed).execute(pool).await?;
    }
    Ok(())
}

/// Tasks accepted before `cut`, from `after` on.
async fn page(pool: &Pool, after: i64, cut: Time, now: Time, horizon: i64) -> Result<Accepted, Error> {
    let rows = sqlx::query(PAGE).bind(after).bind(ROWS).fetch_all(pool).await?;
    let mut found = Accepted { last: after, is_end: (rows.len() as i64) < ROWS, ..Accepted::default() };
    let mut is_safe = true;
    for row in &rows {
        let (pos, mut bytes): (i64, &[u8]) = (row.try_get(0)?, row.try_get(1)?);
        let mut worker = None;
        is_safe &= pos < horizon;
        while !bytes.is_empty() {
            let (task_no, told) =
                history::read_told(&mut bytes, &mut worker).map_err(|_| events::corrupt("feed", pos))?;
            if told.seq != 1 || told.phase != Phase::Accepted {
                continue;
            }
            if told.at > cut && told.at <= now.plus(AHEAD) {
                is_safe = false;
            } else {
                found.numbers.push(task_no);
                found.times.push(told.at.min(now).0);
            }
        }
        found.last = pos;
        if is_safe {
            found.passed = Some(pos);
        }
    }
    Ok(found)
}

/// `false` when another process is making a pass, so that nothing was put into the outbox.
async fn take_in(pool: &Pool, found: &Accepted) -> Result<bool, Error> {
    if found.numbers.is_empty() {
        return Ok(true);
    }
    // Usually this finds none, because the tasks were published long ago.
    let waiting = sqlx::query(UNTOUCHED).bind(&found.numbers).fetch_all(pool).await?;
    let mut waiting = waiting.iter().map(|row| row.try_get(0)).collect::<Result<Vec<i64>, _>>()?;
    if waiting.is_empty() {
        return Ok(true);
    }
    waiting.sort_unstable();
    let both = found.numbers.iter().zip(&found.times).filter(|(no, _)| waiting.binary_search(no).is_ok());
    let mut pairs: Vec<(i64, i64)> = both.map(|(no, at)| (*no, *at)).collect();
    pairs.sort_unstable();
    let (numbers, times): (Vec<i64>, Vec<i64>) = pairs.into_iter().unzip();
    let mut tx = pool::begin(pool).await?;
    let is_alone: bool = sqlx::query(outbox_rows::ALONE).fetch_one(&mut *tx).await?.try_get(0)?;
    if is_alone {
        sqlx::query(TAKE_IN).bind(numbers).bind(times).execute(&mut *tx).await?;
    }
    tx.commit().await?;
    Ok(is_alone)
}

/// How many accepted tasks are neither published nor in the outbox. Counted again when the last count is [`COUNTED_FOR`] old, because it is
/// needed after each pass and reads the feed.
#[derive(Default)]
pub(super) struct Outside(Mutex<Option<(Time, i64)>>);

impl Outside {
    pub async fn count(&self, pool: &Pool, now: Time) -> Result<i64, Error> {
        let last = *self.0.lock().expect("nothing panics under this lock");
        if let Some((_, count)) = last.filter(|(at, _)| *at <= now && now.since(*at) < COUNTED_FOR) {
            return Ok(count);
        }
        let count = outside(pool, now).await?;
        *self.0.lock().expect("nothing panics under this lock") = Some((now, count));
        Ok(count)
    }
}

async fn outside(pool: &Pool, now: Time) -> Result<i64, Error> {
    let mut after: i64 = sqlx::query(MARK).fetch_one(pool).await?.try_get(0)?;
    let mut lowest: Option<i64> = None;
    loop {
        let found = page(pool, after, now, now, i64::MAX).await?;
        lowest = lowest.into_iter().chain(found.numbers).min();
        after = found.last;
        if found.is_end {
            break;
        }
    }
    let Some(lowest) = lowest else { return Ok(0) };
    Ok(sqlx::query(OUTSIDE).bind(lowest).fetch_one(pool).await?.try_get(0)?)
}
