//! Numbers for pairs of name and queue: a small index finds tasks by either, and rows need not repeat two texts.
//!
//! A number never changes, so each replica caches the pairs that it has seen. The cache is bounded, for fleets that make up many
//! queues or names; it is cleared at the bound.

use std::collections::HashMap;
use std::sync::RwLock;

use sqlx::Row;

use crate::Error;
use crate::statements::statements;

use super::pooled::Pool;

/// Maximum number of cached pairs: some megabytes of names.
const MOST: usize = 20_000;

statements! {
    ADD = "insert into taskgate.kind (name, queue) select * from unnest($1::text[], $2::text[]) as n(name, queue) \
         order by 1, 2 on conflict (name, queue) do nothing";
    FIND = "select k.name, k.queue, k.kind_no from unnest($1::text[], $2::text[]) as n(name, queue) \
         join taskgate.kind k on k.name = n.name and k.queue = n.queue";
}

type Pair = (String, String);

#[derive(Default)]
pub(super) struct Kinds(RwLock<HashMap<Pair, i32>>);

impl Kinds {
    /// The numbers of these pairs, in order; new pairs get a number, in a separate transaction, so a number may stay unused.
    pub async fn numbers(&self, pool: &Pool, pairs: &[(&str, &str)]) -> Result<Vec<i32>, Error> {
        if let Some(known) = self.known(pairs) {
            return Ok(known);
        }
        let mut distinct: Vec<(&str, &str)> = pairs.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        let (names, queues): (Vec<&str>, Vec<&str>) = distinct.into_iter().unzip();
        sqlx::query(ADD).bind(&names).bind(&queues).execute(pool).await?;
        let mut found = HashMap::with_capacity(names.len());
        for row in sqlx::query(FIND).bind(&names).bind(&queues).fetch_all(pool).await? {
            found.insert((row.try_get(0)?, row.try_get(1)?), row.try_get::<i32, _>(2)?);
        }
        let number = |&(name, queue): &(&str, &str)| found.get(&(name.to_owned(), queue.to_owned())).copied();
        let numbers = pairs.iter().map(number).collect::<Option<Vec<i32>>>();
        self.remember(found);
        numbers.ok_or(Error::Corrupt { table: "kind", column: "name", row: String::new() })
    }

    fn known(&self, pairs: &[(&str, &str)]) -> Option<Vec<i32>> {
        let known = self.0.read().expect("nothing panics under this lock");
        let mut numbers: Vec<i32> = Vec::with_capacity(pairs.len());
        for (index, &(name, queue)) in pairs.iter().enumerate() {
            // Most batches have a single kind, which is looked up once.
            let same =
                index.checked_sub(1).filter(|&before| pairs[before] == (name, queue)).map(|before| numbers[before]);
            let number = same.or_else(|| known.get(&(name.to_owned(), queue.to_owned())).copied())?;
            numbers.push(number);
        }
        Some(numbers)
    }

    fn remember(&self, found: HashMap<Pair, i32>) {
        let mut known = self.0.write().expect("nothing panics under this lock");
        if known.len() + found.len() > MOST {
            known.clear();
        }
        known.extend(found);
    }
}
