//! A sorted set: members by score, then by bytes. The two indexes always hold the same members.

use std::{collections::BTreeSet, ops::Bound};

use bytes::Bytes;
use indexmap::IndexMap;

/// A score that can be ordered. Never NaN; minus zero counts as zero.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Score(f64);

impl Eq for Score {}

impl Ord for Score {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Score {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Score {
    fn new(value: f64) -> Self {
        Self(value + 0.0)
    }
}

/// An interval of scores; an end may be excluded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScoreRange {
    pub min: f64,
    pub min_excluded: bool,
    pub max: f64,
    pub max_excluded: bool,
}

impl ScoreRange {
    fn is_empty(&self) -> bool {
        self.min > self.max || (self.min == self.max && (self.min_excluded || self.max_excluded))
    }

    fn contains(&self, score: f64) -> bool {
        (if self.min_excluded { score > self.min } else { score >= self.min })
            && (if self.max_excluded { score < self.max } else { score <= self.max })
    }
}

/// The position after the last member with this score.
fn upper_bound(max: f64) -> Bound<(Score, Bytes)> {
    if max == f64::INFINITY { Bound::Unbounded } else { Bound::Excluded((Score::new(max.next_up()), Bytes::new())) }
}

#[derive(Debug, Clone, Default)]
pub struct SortedSet {
    scores: IndexMap<Bytes, f64>,
    order: BTreeSet<(Score, Bytes)>,
}

impl SortedSet {
    pub fn len(&self) -> usize {
        self.scores.len()
    }

    pub fn is_empty(&self) -> bool {
        self.scores.is_empty()
    }

    pub fn score(&self, member: &[u8]) -> Option<f64> {
        self.scores.get(member).copied()
    }

    /// Sets the score and returns the previous one.
    pub fn insert(&mut self, member: Bytes, score: f64) -> Option<f64> {
        debug_assert!(!score.is_nan());
        let before = self.scores.insert(member.clone(), score);
        if let Some(before) = before {
            self.order.remove(&(Score::new(before), member.clone()));
        }
        self.order.insert((Score::new(score), member));
        before
    }

    pub fn remove(&mut self, member: &[u8]) -> Option<f64> {
        let (member, score) = self.scores.swap_remove_entry(member)?;
        self.order.remove(&(Score::new(score), member));
        Some(score)
    }

    /// In order of score.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&Bytes, f64)> {
        self.order.iter().map(|(score, member)| (member, score.0))
    }

    /// The member at this position, in an order that only removals change; see `scan`.
    pub fn by_position(&self, index: usize) -> Option<(&Bytes, f64)> {
        self.scores.get_index(index).map(|(member, score)| (member, *score))
    }

    pub fn in_scores(&self, range: ScoreRange) -> impl DoubleEndedIterator<Item = (&Bytes, f64)> {
        // A range whose start lies behind its end would panic, so an empty range is handled apart.
        let from = (!range.is_empty()).then(|| (Score::new(range.min), Bytes::new()));
        from.into_iter()
            .flat_map(move |start| self.order.range((Bound::Included(start), upper_bound(range.max))))
            .map(|(score, member)| (member, score.0))
            .filter(move |(_, score)| range.contains(*score))
    }

    /// The number of members before this one, counted from the top if `reverse`.
    pub fn rank(&self, member: &[u8], reverse: bool) -> Option<usize> {
        let (member, score) = self.scores.get_key_value(member)?;
        let key = (Score::new(*score), member.clone());
        let below = self.order.range(..key).count();
        Some(if reverse { self.len() - 1 - below } else { below })
    }

    pub fn pop(&mut self, highest: bool) -> Option<(Bytes, f64)> {
        let (score, member) = if highest { self.order.pop_last()? } else { self.order.pop_first()? };
        self.scores.swap_remove(&member);
        Some((member, score.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(items: &[(&'static str, f64)]) -> SortedSet {
        let mut set = SortedSet::default();
        for (member, score) in items {
            set.insert(Bytes::from(*member), *score);
        }
        set
    }

    fn names<'a>(items: impl Iterator<Item = (&'a Bytes, f64)>) -> Vec<&'a [u8]> {
        items.map(|(member, _)| member.as_ref()).collect()
    }

    fn range(min: f64, max: f64) -> ScoreRange {
        ScoreRange { min, min_excluded: false, max, max_excluded: false }
    }

    #[test]
    fn equal_scores_are_ordered_by_bytes() {
        let set = set(&[("b", 1.0), ("a", 1.0), ("c", 0.0), ("z", -0.0)]);
        assert_eq!(names(set.iter()), [b"c", b"z", b"a", b"b"]);
        assert_eq!(set.rank(b"a", false), Some(2));
        assert_eq!(set.rank(b"a", true), Some(1));
    }

    #[test]
    fn ranges_of_scores_end_where_they_say() {
        let set = set(&[("a", 1.0), ("b", 2.0), ("c", 3.0), ("d", f64::INFINITY), ("e", f64::NEG_INFINITY)]);
        assert_eq!(names(set.in_scores(range(1.0, 2.0))), [b"a", b"b"]);
        assert_eq!(names(set.in_scores(ScoreRange { min_excluded: true, ..range(1.0, 3.0) })), [b"b", b"c"]);
        assert_eq!(names(set.in_scores(ScoreRange { max_excluded: true, ..range(1.0, 3.0) })), [b"a", b"b"]);
        assert_eq!(set.in_scores(range(f64::NEG_INFINITY, f64::INFINITY)).count(), 5);
        assert_eq!(names(set.in_scores(range(f64::INFINITY, f64::INFINITY))), [b"d"]);
        assert_eq!(names(set.in_scores(range(f64::NEG_INFINITY, f64::NEG_INFINITY))), [b"e"]);
    }

    #[test]
    fn empty_and_reversed_ranges_are_empty() {
        let set = set(&[("a", 1.0), ("b", 2.0)]);
        assert_eq!(set.in_scores(range(2.0, 1.0)).count(), 0);
        assert_eq!(set.in_scores(ScoreRange { max_excluded: true, ..range(1.0, 1.0) }).count(), 0);
        assert_eq!(set.in_scores(range(f64::INFINITY, f64::NEG_INFINITY)).count(), 0);
    }

    #[test]
    fn both_indexes_stay_in_step() {
        let mut set = set(&[("a", 1.0), ("b", 2.0)]);
        assert_eq!(set.insert(Bytes::from("a"), 3.0), Some(1.0));
        assert_eq!(set.pop(true), Some((Bytes::from("a"), 3.0)));
        assert_eq!(set.remove(b"b"), Some(2.0));
        assert!(set.is_empty());
        assert_eq!(set.pop(false), None);
    }
}
