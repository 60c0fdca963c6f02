//! The connections of a pool, in an order: a caller gets the first one that is free.
//!
//! The driver's own pool hands out the connection that has been idle for longest, so all of them take turns. Each server process then works
//! with caches that went cold since its last statement, and each reads the catalogs and plans all statements once: with sixteen
//! connections that was a quarter of the database's processor time. Here a few connections do nearly all work, and the others serve
//! bursts only. Each slot is a pool of one connection, which opens, checks and closes it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub(super) struct Slots {
    pools: Vec<PgPool>,
    /// The numbers of the free slots; a permit stands for each.
    free: Mutex<BTreeSet<usize>>,
    permits: Arc<Semaphore>,
    /// How long a caller waits for a slot.
    patience: Duration,
}

/// A connection's place, for one caller.
pub(super) struct Slot {
    slots: Arc<Slots>,
    number: usize,
    _permit: OwnedSemaphorePermit,
}

impl Slots {
    /// `each` are the options of a pool; its largest number of connections becomes the number of slots. Opens no connection yet.
    pub fn new(each: &PgPoolOptions, connect: &PgConnectOptions) -> Arc<Self> {
        let count = each.get_max_connections().max(1) as usize;
        let pool = |_| each.clone().max_connections(1).connect_lazy_with(connect.clone());
        Arc::new(Self {
            pools: (0..count).map(pool).collect(),
            free: Mutex::new((0..count).collect()),
            permits: Arc::new(Semaphore::new(count)),
            patience: each.get_acquire_timeout(),
        })
    }

    /// Waits until a slot is free.
    ///
    /// # Errors
    /// [`sqlx::Error::PoolTimedOut`] when none became free in time, and [`sqlx::Error::PoolClosed`].
    pub async fn take(self: &Arc<Self>) -> Result<Slot, sqlx::Error> {
        let permit = tokio::time::timeout(self.patience, Arc::clone(&self.permits).acquire_owned()).await;
        let permit = permit.map_err(|_| sqlx::Error::PoolTimedOut)?.map_err(|_| sqlx::Error::PoolClosed)?;
        let number = self.take_first();
        Ok(Slot { slots: Arc::clone(self), number, _permit: permit })
    }

    /// The first free slot with an idle connection; else the first that has not opened its connection; else the first. A connection that was
    /// just given back is checked before it is idle, and that lasts as long as the statement of a caller who did not wait for its end.
    fn take_first(&self) -> usize {
        let mut free = self.free.lock().expect("nothing panics under this lock");
        let first = |fits: &dyn Fn(&PgPool) -> bool| free.iter().copied().find(|number| fits(&self.pools[*number]));
        let ready = first(&|pool| pool.num_idle() > 0).or_else(|| first(&|pool| pool.size() == 0));
        let number = ready.or_else(|| free.first().copied()).expect("a permit stands for each free slot");
        free.remove(&number);
        number
    }

    pub fn set_connect_options(&self, options: &PgConnectOptions) {
        self.pools.iter().for_each(|pool| pool.set_connect_options(options.clone()));
    }

    /// How many connections are open, and how many of them are idle.
    pub fn usage(&self) -> (u32, u32) {
        let idle: usize = self.pools.iter().map(PgPool::num_idle).sum();
        (self.pools.iter().map(PgPool::size).sum(), u32::try_from(idle).unwrap_or(u32::MAX))
    }

    /// The first slot's pool, for callers that need no slot of their own.
    pub fn first(&self) -> &PgPool {
        &self.pools[0]
    }

    pub async fn close(&self) {
        self.permits.close();
        for pool in &self.pools {
            pool.close().await;
        }
    }
}

impl Slot {
    pub fn pool(&self) -> &PgPool {
        &self.slots.pools[self.number]
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.free.lock().expect("nothing panics under this lock").insert(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(count: u32) -> Arc<Slots> {
        let each = PgPoolOptions::new().max_connections(count).acquire_timeout(Duration::from_millis(50));
        Slots::new(&each, &PgConnectOptions::new())
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_gets_the_first_free_slot_and_waits_when_there_is_none() {
        let slots = slots(2);
        let first = slots.take().await.unwrap();
        let second = slots.take().await.unwrap();
        assert_eq!((first.number, second.number), (0, 1));
        assert!(matches!(slots.take().await, Err(sqlx::Error::PoolTimedOut)));
        drop(first);
        assert_eq!(slots.take().await.unwrap().number, 0, "the first slot is preferred again");
        assert_eq!(slots.take().await.unwrap().number, 0);
    }

    #[tokio::test]
    async fn a_closed_pool_says_so() {
        let slots = slots(1);
        slots.close().await;
        assert!(matches!(slots.take().await, Err(sqlx::Error::PoolClosed)));
    }
}
