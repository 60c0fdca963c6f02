//! Combines the limits and the share of a submission with those of its catalog entry, and says when such a task is due.

use std::time::Duration;

use celery::task::limit::{Fair, KeyLimit};
use runtime::clock::Time;

/// Due time of a task that only a pass over the outbox may publish: one microsecond after its acceptance, to distinguish it from a
/// task on the direct path.
pub(super) fn at_once(now: Time) -> Time {
    now.plus(Duration::from_micros(1))
}

/// The keys under which a task is counted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Keys {
    pub limits: Vec<KeyLimit>,
    /// The tenant, for fair sharing of a queue.
    pub fair: Option<Fair>,
}

impl Keys {
    /// Adds the `declared` limits of the catalog entry. The entry's fair share takes precedence, because the owner divides the queue.
    pub fn and(&self, declared: Self) -> Self {
        let fair = declared.fair.or_else(|| self.fair.clone());
        Self { limits: together(&self.limits, declared.limits), fair }
    }
}

/// Merges both lists. For a key in both, the stricter limit of each kind applies.
fn together(wanted: &[KeyLimit], declared: Vec<KeyLimit>) -> Vec<KeyLimit> {
    let mut all: Vec<KeyLimit> = wanted.to_vec();
    for limit in declared {
        match all.iter_mut().find(|known| known.key == limit.key) {
            Some(known) => *known = known.clone().and(&limit),
            None => all.push(limit),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smaller_of_two_limits_holds() {
        let limit = KeyLimit::at_most;
        let all = together(&[limit("a", 5), limit("b", 1)], vec![limit("a", 2), limit("c", 3)]);
        assert_eq!(all, [limit("a", 2), limit("b", 1), limit("c", 3)]);
    }
}
