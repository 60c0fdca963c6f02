//! Guesses the partitions of a task from its id, so that a look-up reads two partitions instead of all.
//!
//! A number is (day << 32) + count. Ids made by gateways begin with the time, so the number of such an id is from the same or an adjacent
//! day: clocks differ, and the sequence moves to a new day some time after midnight. An id without a time may be anywhere. The place is
//! only a guess: if nothing is found there, the look-up is repeated [`ANYWHERE`].

use celery::task::TaskId;
use runtime::clock::Time;
use uuid::Uuid;

/// All days.
pub(super) const ANYWHERE: (i64, i64) = (i64::MIN, i64::MAX);

const DAY_MICROS: i64 = 86_400_000_000;
const DAY_BITS: u32 = 32;

/// The UUID namespace for ids that are not UUIDs.
const GIVEN: Uuid = Uuid::from_u128(0x7461_736b_6761_7465_6769_7665_6e5f_6964);

/// The key of an id in the ledger.
pub(super) fn key(id: &str) -> Uuid {
    written_as_uuid(id).unwrap_or_else(|| Uuid::new_v5(&GIVEN, id.as_bytes()))
}

/// The id's text, if it cannot be derived from its key.
pub(super) fn given(id: &TaskId) -> Option<&str> {
    written_as_uuid(id.as_str()).is_none().then_some(id.as_str())
}

/// Parses a UUID only in its usual form, because it must be written back as the same text.
fn written_as_uuid(id: &str) -> Option<Uuid> {
    let is_usual = id.len() == 36 && !id.bytes().any(|byte| byte.is_ascii_uppercase());
    is_usual.then(|| Uuid::try_parse(id).ok()).flatten()
}

pub(super) fn keys<'a>(ids: impl IntoIterator<Item = &'a TaskId>) -> Vec<Uuid> {
    ids.into_iter().map(|id| key(id.as_str())).collect()
}

/// The expected range of numbers for these ids: from the first on, before the second.
pub(super) fn place(keys: &[Uuid]) -> (i64, i64) {
    let mut days = (i64::MAX, i64::MIN);
    for key in keys {
        let Some(at) = time_of(*key) else { return ANYWHERE };
        let day = at.0 / DAY_MICROS;
        days = (days.0.min(day), days.1.max(day));
    }
    if days.0 > days.1 { ANYWHERE } else { (days.0 - 1, days.1 + 2) }
}

/// The lowest and the highest key of ids that begin with this text. `None` when it is not the beginning of a UUID.
pub(super) fn beginning_with(prefix: &str) -> Option<(Uuid, Uuid)> {
    const SHAPE: &str = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
    let prefix = prefix.to_ascii_lowercase();
    let fits = |(given, shape): (char, char)| if shape == '-' { given == '-' } else { given.is_ascii_hexdigit() };
    if prefix.is_empty() || prefix.len() > SHAPE.len() || !prefix.chars().zip(SHAPE.chars()).all(fits) {
        return None;
    }
    let filled = |digit: &str| Uuid::try_parse(&format!("{prefix}{}", SHAPE[prefix.len()..].replace('x', digit))).ok();
    filled("0").zip(filled("f"))
}

/// The range of days of some numbers.
pub(super) fn span(numbers: &[i64]) -> (i64, i64) {
    let (low, high) = (numbers.iter().min(), numbers.iter().max());
    low.zip(high).map_or((0, 0), |(low, high)| (low >> DAY_BITS, (high >> DAY_BITS) + 1))
}

/// No task that was submitted since this time has a number of an earlier day: clocks differ by less than a day.
pub(super) fn first_day(since: Time) -> i64 {
    since.0.div_euclid(DAY_MICROS) - 1
}

/// The time at the beginning of an id made by a gateway.
fn time_of(key: Uuid) -> Option<Time> {
    let millis = (key.as_u128() >> 80) as i64;
    (key.get_version_num() == 7).then(|| Time(millis.saturating_mul(1_000)))
}

/// Whether the id was made for this submission, so that it cannot have been used before and only the newest partition must be checked.
pub(super) fn is_fresh(id: &TaskId, submitted_at: Time) -> bool {
    const FRESH_MICROS: i64 = 60_000_000;
    let made = written_as_uuid(id.as_str()).and_then(time_of);
    made.is_some_and(|at| at.0.abs_diff(submitted_at.0) < FRESH_MICROS.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_with_a_time_is_looked_for_on_its_day_and_the_neighbours() {
        let key = Uuid::try_parse("0199a2b3-0000-7000-8000-000000000000").unwrap();
        let day = time_of(key).unwrap().0 / DAY_MICROS;
        assert_eq!(place(&[key]), (day - 1, day + 2));
        assert_eq!(span(&[(day << 32) + 7, (day << 32) + 9]), (day, day + 1));
        assert_eq!(place(&[key, Uuid::from_u128(1)]), ANYWHERE);
        assert_eq!(place(&[]), ANYWHERE);
    }

    #[test]
    fn the_beginning_of_an_id_is_a_range_of_keys() {
        let (low, high) = beginning_with("0199A2b3-00").unwrap();
        assert_eq!(low.to_string(), "0199a2b3-0000-0000-0000-000000000000");
        assert_eq!(high.to_string(), "0199a2b3-00ff-ffff-ffff-ffffffffffff");
        for other in ["", "import", "0199a2b30", "0199a2b3-0000-7000-8000-0000000000000"] {
            assert_eq!(beginning_with(other), None, "{other}");
        }
    }

    #[test]
    fn only_the_usual_form_of_a_uuid_is_its_own_key() {
        let text = "0199a2b3-0000-7000-8000-000000000000";
        assert_eq!(key(text).to_string(), text);
        for other in ["0199A2B3-0000-7000-8000-000000000000", "0199a2b30000700080000000000000aa", "import-7"] {
            assert_ne!(key(other).to_string(), other);
            assert_eq!(given(&TaskId::parse(other).unwrap()), Some(other));
        }
        assert_eq!(given(&TaskId::parse(text).unwrap()), None);
    }
}
