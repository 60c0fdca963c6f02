//! Scales with the load: more slots while tasks wait, fewer once slots have been unused for a while.

use std::time::Duration;

use tokio::time::Instant;
use tracing::info;

use super::service::Node;
use super::settings::Autoscale;

/// How often the load is checked.
const PERIOD: Duration = Duration::from_secs(1);
/// Celery's `AUTOSCALE_KEEPALIVE`: how long an unused slot is kept.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// The load at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub slots: usize,
    pub running: usize,
    pub waiting: usize,
    /// How long there have been more slots than needed.
    pub spare_for: Duration,
}

impl Autoscale {
    /// How many slots there should be.
    pub(crate) fn slots_for(self, load: Load) -> usize {
        let needed = load.running.saturating_add(load.waiting);
        let wanted = if needed > load.slots {
            needed
        } else if load.spare_for >= KEEPALIVE {
            needed.max(self.min)
        } else {
            load.slots
        };
        wanted.clamp(self.min, self.max)
    }
}

impl Node {
    /// Adjusts the slots for as long as it is polled; does nothing while autoscaling is off.
    pub async fn autoscale(self) {
        let mut ticks = tokio::time::interval(PERIOD);
        let mut needed_at = Instant::now();
        loop {
            ticks.tick().await;
            let spare_since = needed_at;
            let looked = self.ask(move |dispatcher| {
                let bounds = dispatcher.autoscale?;
                let (slots, running, waiting) = (dispatcher.slots, dispatcher.running, dispatcher.backlog());
                let load = Load { slots, running, waiting, spare_for: spare_since.elapsed() };
                let wanted = bounds.slots_for(load);
                if wanted != slots {
                    info!(
                        slots = wanted,
                        running, waiting, "{wanted} slots instead of {slots}: {running} run, {waiting} wait"
                    );
                    dispatcher.set_slots(wanted);
                }
                Some(running.saturating_add(waiting) >= wanted)
            });
            match looked.await {
                Some(Some(true)) => needed_at = Instant::now(),
                Some(_) => {}
                None => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Autoscale = Autoscale { max: 10, min: 2 };

    fn slots(slots: usize, running: usize, waiting: usize, spare_secs: u64) -> usize {
        BOUNDS.slots_for(Load { slots, running, waiting, spare_for: Duration::from_secs(spare_secs) })
    }

    #[test]
    fn slots_follow_the_need_within_the_bounds() {
        assert_eq!(slots(2, 2, 3, 0), 5);
        assert_eq!(slots(2, 2, 100, 0), 10);
        assert_eq!(slots(5, 1, 0, 29), 5);
        assert_eq!(slots(5, 1, 0, 30), 2);
        assert_eq!(slots(5, 4, 0, 60), 4);
    }
}
