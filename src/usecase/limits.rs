//! Which limits hold for a task, and when one that has to pass them is due.

use std::time::Duration;

use celery::task::submission::KeyLimit;
use runtime::clock::Time;

/// When a task is due that only a pass over the outbox may publish: an instant after its acceptance tells it from one that is on
/// the fast path.
pub(super) fn at_once(now: Time) -> Time {
    now.plus(Duration::from_micros(1))
}

/// The submission's limits and the catalog's; of two for one key the smaller one holds.
pub(super) fn together(wanted: &[KeyLimit], declared: Vec<KeyLimit>) -> Vec<KeyLimit> {
    let mut all: Vec<KeyLimit> = wanted.to_vec();
    for limit in declared {
        match all.iter_mut().find(|one| one.key == limit.key) {
            Some(one) => one.max = one.max.min(limit.max),
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
        let limit = |key: &str, max| KeyLimit { key: key.to_owned(), max };
        let all = together(&[limit("a", 5), limit("b", 1)], vec![limit("a", 2), limit("c", 3)]);
        assert_eq!(all, [limit("a", 2), limit("b", 1), limit("c", 3)]);
    }
}
