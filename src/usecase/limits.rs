//! Combines the limits of a submission with those of its catalog entry, and says when such a task is due.

use std::time::Duration;

use celery::task::submission::KeyLimit;
use runtime::clock::Time;

/// Due time of a task that only a pass over the outbox may publish: one microsecond after its acceptance, which tells it from a
/// task on the direct way.
pub(super) fn at_once(now: Time) -> Time {
    now.plus(Duration::from_micros(1))
}

/// Merges both lists. If both name a key, the smaller limit wins.
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
