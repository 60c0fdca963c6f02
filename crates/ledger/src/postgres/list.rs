//! Lists and search in bounded time, however long the history is.
//!
//! A list walks down `task_no` along the index of its most selective condition and tests the other conditions on each task. If those
//! match rarely, a page ends after [`BUDGET`] with what it has found so far, possibly nothing, and a cursor to continue: only a page
//! without a cursor is the last one.

use std::time::{Duration, Instant};

use sqlx::Row;
use uuid::Uuid;

use crate::rows::{clean, short};
use crate::statements::statements;
use crate::{Cursor, Error, Filter, Page, Task};
use celery::task::Phase;

use super::columns::{between, fact_columns, standing, state_columns};
use super::pooled::Pool;
use super::{conditions, events, numbers, rows};

/// Time limit of a page, not counting its last step.
const BUDGET: Duration = Duration::from_millis(12);

/// Steps grow from a page's size up to this: about five milliseconds of look-ups.
const LONGEST_STEP: i64 = 2_500;

/// Steps of a search in arguments are shorter: each task's message is read.
const LONGEST_READING_STEP: i64 = 250;

/// No index supports a search in arguments, so one page of it reads the partitions of this many days only.
const SEARCHED_DAYS: i64 = 31;
const DAY_BITS: u32 = 32;

/// Clocks of replicas differ by less than this, so numbers are in the order of submission times within this tolerance.
const SKEW: i64 = 600 * 1_000_000;

statements! {
    /// Each of these statements returns at most `$3` numbers below `$1` and not below `$2`, descending. The conditions on days exclude partitions.
    ALL = "select task_no from taskgate.task where task_no < $1 and task_no >> 32 <= $1 >> 32 and task_no >= $2 and task_no >> 32 >= $2 >> 32 order by task_no desc limit $3";
    AT_WORKER = "select task_no from taskgate.flight where at_worker and task_no < $1 and task_no >= $2 \
         order by task_no desc limit $3";
    UNFINISHED =
        "select task_no from taskgate.flight where task_no < $1 and task_no >= $2 order by task_no desc limit $3";
    DEAD = "select task_no from taskgate.ended where dead and task_no < $1 and task_no >> 32 <= $1 >> 32 and task_no >= $2 and task_no >> 32 >= $2 >> 32 \
         order by task_no desc limit $3";
    /// As [`ALL`], for tasks with one of the texts `$4`: here a phase, in the following statements a name, a queue and so on.
    TROUBLE = "select c.task_no from unnest($4::text[]) as v(text) cross join lateral (\
         select task_no from taskgate.ended where phase <> 'succeeded' and phase = v.text and task_no < $1 and task_no >> 32 <= $1 >> 32 and task_no >= $2 and task_no >> 32 >= $2 >> 32 \
         order by phase desc, task_no desc limit $3) c order by c.task_no desc limit $3";
    NAMES = "select c.task_no from taskgate.kind k cross join lateral (\
         select task_no from taskgate.task where kind_no = k.kind_no and task_no < $1 and task_no >> 32 <= $1 >> 32 and task_no >= $2 and task_no >> 32 >= $2 >> 32 \
         order by kind_no desc, task_no desc limit $3) c where k.name = any($4::text[]) order by c.task_no desc limit $3";
    QUEUES = "select c.task_no from taskgate.kind k cross join lateral (\
         select task_no from taskgate.task where kind_no = k.kind_no and task_no < $1 and task_no >> 32 <= $1 >> 32 and task_no >= $2 and task_no >> 32 >= $2 >> 32 \
         order by kind_no desc, task_no desc limit $3) c where k.queue = any($4::text[]) order by c.task_no desc limit $3";
    GROUP = "select task_no from taskgate.task where group_id = ($4::text[])[1] and task_no < $1 and task_no >> 32 <= $1 >> 32 \
         and task_no >= $2 and task_no >> 32 >= $2 >> 32 order by group_id desc, task_no desc limit $3";
    SCHEDULE = "select task_no from taskgate.task where schedule = ($4::text[])[1] and task_no < $1 and task_no >> 32 <= $1 >> 32 \
         and task_no >= $2 and task_no >> 32 >= $2 >> 32 order by schedule desc, task_no desc limit $3";
    /// `$5` the key of the root's id.
    ROOT = "select task_no from (\
         (select task_no from taskgate.task where root_id = ($4::text[])[1] and task_no < $1 and task_no >> 32 <= $1 >> 32 and task_no >= $2 and task_no >> 32 >= $2 >> 32 \
         order by root_id desc, task_no desc limit $3) union all \
         select task_no from taskgate.task where id = $5 and root_id is null and task_no < $1 and task_no >> 32 <= $1 >> 32 and task_no >= $2 and task_no >> 32 >= $2 >> 32) c \
         order by task_no desc limit $3";
    LABEL = "select task_no from taskgate.label where key = ($4::text[])[1] and value = ($4::text[])[2] \
         and task_no < $1 and task_no >> 32 <= $1 >> 32 and task_no >= $2 and task_no >> 32 >= $2 >> 32 order by key desc, value desc, task_no desc limit $3";
    /// Numbers of tasks whose id keys are from `$1` to `$2`.
    IDS =
        "select task_no from taskgate.task where id >= $1 and id <= $2 and given_id is null order by id limit $3";
    /// Numbers of tasks whose ids are not UUIDs, from `$1` on and below `$2`.
    GIVEN_IDS =
        "select task_no from taskgate.task where given_id >= $1 and given_id < $2 order by given_id limit $3";
    SUBMITTED = "select task_no, submitted_at from taskgate.task where task_no >= $1 and task_no >> 32 >= $1 >> 32 order by task_no limit 1";
    /// The highest number that was assigned.
    NEWEST = "select last_value from taskgate.task_no";
    /// The first day of the oldest partition.
    OLDEST_DAY = "select (min(to_date(substr(c.relname, 6), 'YYYYMM')) - date '1970-01-01')::bigint \
         from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = 'taskgate.task'::regclass";
}

/// `$1` numbers, within `$2` and `$3`.
const MATCHING: &str = concat!(
    "select ",
    fact_columns!(),
    ", ",
    state_columns!(),
    " from ",
    standing!(full, "$2", "$3"),
    " where t.task_no = any($1) and ",
    between!("$2", "$3")
);

/// The index that a list walks along.
struct Path {
    statement: &'static str,
    texts: Vec<String>,
    /// The key of the root's id.
    root: Option<Uuid>,
    /// Whether there are no other conditions, so that every task matches.
    exact: bool,
}

pub(super) async fn tasks(pool: &Pool, filter: &Filter, page: &Page) -> Result<(Vec<Task>, Option<Cursor>), Error> {
    let started = Instant::now();
    let path = path(filter);
    let (mut below, not_below) = bounds(pool, filter, page).await?;
    let (not_below, rest) = reach(pool, filter, below, not_below).await?;
    let longest = if filter.argument.is_some() { LONGEST_READING_STEP } else { LONGEST_STEP };
    let by_id = named_by_id(pool, filter, page.limit).await?;
    let mut first = match page.after {
        None => matching(pool, filter, &by_id, &[], page.limit).await?,
        Some(_) => Vec::new(),
    };
    let wanted = usize::try_from(page.limit).unwrap_or(usize::MAX).saturating_sub(first.len());
    let mut found: Vec<Task> = Vec::new();
    let mut step = page.limit.saturating_add(1);
    let next = loop {
        let met = walk(pool, &path, below, not_below, step).await?;
        let is_end = i64::try_from(met.len()).unwrap_or(i64::MAX) < step;
        let missing = wanted.saturating_add(1) - found.len();
        found.extend(matching(pool, filter, &met, &by_id, i64::try_from(missing).unwrap_or(i64::MAX)).await?);
        if found.len() > wanted {
            found.truncate(wanted);
            // If no task matched, the next page continues where this one stopped.
            break Some(Cursor(found.last().map_or(below, |task| task.no)));
        }
        let Some(&last) = met.last().filter(|_| !is_end) else { break rest };
        below = last;
        if started.elapsed() > BUDGET {
            break Some(Cursor(last));
        }
        step = if path.exact { step } else { (step * 4).min(longest) };
    };
    first.append(&mut found);
    first.sort_by_key(|task| std::cmp::Reverse(task.no));
    Ok((first, next))
}

async fn walk(pool: &Pool, path: &Path, below: i64, not_below: i64, step: i64) -> Result<Vec<i64>, Error> {
    let query = sqlx::query(path.statement).bind(below).bind(not_below).bind(step);
    let query = if path.texts.is_empty() { query } else { query.bind(&path.texts) };
    let query = if path.root.is_none() { query } else { query.bind(path.root) };
    query.fetch_all(pool).await?.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// The tasks among `numbers` that match all conditions, except those in `given`.
async fn matching(
    pool: &Pool,
    filter: &Filter,
    numbers: &[i64],
    given: &[i64],
    limit: i64,
) -> Result<Vec<Task>, Error> {
    let numbers: Vec<i64> = numbers.iter().copied().filter(|number| !given.contains(number)).collect();
    if numbers.is_empty() {
        return Ok(Vec::new());
    }
    let mut query = events::bounded(MATCHING, &numbers)?;
    conditions::on_task(&mut query, filter, numbers::span(&numbers));
    conditions::on_state(&mut query, filter);
    query.push(" order by t.task_no desc limit ").push_bind(limit);
    rows::tasks(&query.build().fetch_all(pool).await?)
}

/// Chooses the index that probably needs the fewest steps.
fn path(filter: &Filter) -> Path {
    let others = Filter { from: None, to: None, ..filter.clone() };
    let along = |statement, texts: Vec<String>, rest: Filter| Path {
        statement,
        texts,
        root: None,
        exact: rest == Filter::default(),
    };
    let phases = phases(filter);
    let all = |test: fn(&Phase) -> bool| phases.as_ref().is_some_and(|phases| phases.iter().all(test));
    if let Some(group) = &filter.group_id {
        along(GROUP, vec![clean(group).into_owned()], Filter { group_id: None, ..others })
    } else if let Some(root) = &filter.root_id {
        let root = clean(root).into_owned();
        let key = Some(numbers::key(&root));
        Path { root: key, ..along(ROOT, vec![root], Filter { root_id: None, ..others }) }
    } else if let Some(schedule) = &filter.schedule {
        along(SCHEDULE, vec![short(schedule)], Filter { schedule: None, ..others })
    } else if all(|phase| phase.is_at_worker()) {
        along(AT_WORKER, Vec::new(), others)
    } else if let Some((key, value)) = filter.labels.first() {
        along(LABEL, vec![short(key), short(value)], others)
    } else if filter.dead_letters {
        along(DEAD, Vec::new(), Filter { dead_letters: false, ..others })
    } else if all(|phase| phase.is_final() && *phase != Phase::Succeeded) {
        let names = phases.unwrap_or_default().into_iter().map(|phase| phase.as_str().to_owned()).collect();
        along(TROUBLE, names, Filter { phase: Vec::new(), ..others })
    } else if !filter.task.is_empty() {
        along(NAMES, distinct(&filter.task), Filter { task: Vec::new(), ..others })
    } else if all(|phase| !phase.is_final()) {
        along(UNFINISHED, Vec::new(), others)
    } else if !filter.queue.is_empty() {
        along(QUEUES, distinct(&filter.queue), Filter { queue: Vec::new(), ..others })
    } else {
        along(ALL, Vec::new(), others)
    }
}

/// Removes repeated values, which would be found twice.
fn distinct(texts: &[String]) -> Vec<String> {
    let mut texts: Vec<String> = texts.iter().map(|text| clean(text).into_owned()).collect();
    texts.sort_unstable();
    texts.dedup();
    texts
}

/// The phases that a filter allows, from its phases or its statuses. `None` when it has neither.
fn phases(filter: &Filter) -> Option<Vec<Phase>> {
    if !filter.phase.is_empty() {
        return Some(
            filter
                .phase
                .iter()
                .enumerate()
                .filter(|(n, phase)| !filter.phase[..*n].contains(phase))
                .map(|(_, p)| *p)
                .collect(),
        );
    }
    if filter.status.is_empty() {
        return None;
    }
    // A status that is not one of Celery's is a custom state of a running task.
    let means = |word: &String| {
        let known: Vec<Phase> = Phase::ALL.into_iter().filter(|phase| phase.status() == word).collect();
        if known.is_empty() { vec![Phase::Running] } else { known }
    };
    let mut all: Vec<Phase> = filter.status.iter().flat_map(means).collect();
    all.sort_by_key(|phase| phase.as_str());
    all.dedup();
    Some(all)
}

/// Where the walk begins (exclusive) and ends (inclusive).
async fn bounds(pool: &Pool, filter: &Filter, page: &Page) -> Result<(i64, i64), Error> {
    let after = page.after.map_or(i64::MAX, |Cursor(no)| no);
    let below = match filter.to {
        Some(to) => after.min(first_at(pool, to.0.saturating_add(SKEW)).await?),
        None => after,
    };
    let not_below = match filter.from {
        Some(from) => first_at(pool, from.0.saturating_sub(SKEW)).await?,
        None => i64::MIN,
    };
    Ok((below, not_below))
}

/// The number at which this page ends, and the cursor for older tasks.
async fn reach(pool: &Pool, filter: &Filter, below: i64, not_below: i64) -> Result<(i64, Option<Cursor>), Error> {
    if filter.argument.is_none() {
        return Ok((not_below, None));
    }
    let newest: i64 = sqlx::query(NEWEST).fetch_one(pool).await?.try_get(0)?;
    // No task submitted before `to` has a number of a later day: clocks differ by less than a day.
    let last_day = filter.to.map_or(i64::MAX, |to| numbers::first_day(to) + 2);
    let begin_day = (below.min(newest) >> DAY_BITS).min(last_day);
    let end = (begin_day - SEARCHED_DAYS) << DAY_BITS;
    if end <= not_below {
        return Ok((not_below, None));
    }
    let oldest: Option<i64> = sqlx::query(OLDEST_DAY).fetch_one(pool).await?.try_get(0)?;
    let is_older = oldest.is_some_and(|day| day << DAY_BITS < end);
    Ok((end, is_older.then_some(Cursor(end))))
}

/// About the lowest number of tasks submitted at this time or later; the end of all numbers when there are none.
async fn first_at(pool: &Pool, at: i64) -> Result<i64, Error> {
    let newest: i64 = sqlx::query(NEWEST).fetch_one(pool).await?.try_get(0)?;
    // The sequence may be ahead of the newest task; then there is no task from `middle` on.
    let (mut low, mut high, mut is_end) = (0, newest, true);
    while low <= high {
        let middle = low + (high - low) / 2;
        let row = sqlx::query(SUBMITTED).bind(middle).fetch_optional(pool).await?;
        let found = row.map(|row| Ok::<(i64, i64), sqlx::Error>((row.try_get(0)?, row.try_get(1)?))).transpose()?;
        match found {
            Some((no, submitted_at)) if submitted_at < at => low = no + 1,
            found => {
                is_end &= found.is_none();
                high = middle - 1;
            }
        }
    }
    Ok(if is_end { i64::MAX } else { low })
}

/// Tasks whose ids begin with the search text, if they fit on one page: they are listed first.
async fn named_by_id(pool: &Pool, filter: &Filter, limit: i64) -> Result<Vec<i64>, Error> {
    let Some(prefix) = filter.q.as_deref().map(clean) else { return Ok(Vec::new()) };
    let end = format!("{prefix}\u{10ffff}");
    let room = limit.saturating_add(1);
    let mut found = sqlx::query(GIVEN_IDS).bind(prefix.as_ref()).bind(end).bind(room).fetch_all(pool).await?;
    if let Some((low, high)) = numbers::beginning_with(&prefix) {
        found.extend(sqlx::query(IDS).bind(low).bind(high).bind(room).fetch_all(pool).await?);
    }
    if i64::try_from(found.len()).unwrap_or(i64::MAX) > limit {
        return Ok(Vec::new());
    }
    found.iter().map(|row| Ok(row.try_get(0)?)).collect()
}
