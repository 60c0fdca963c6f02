//! Decides which of the past ticks fire now, and which are missed. Pure.
//!
//! Normally there is one past tick, a few milliseconds old. After an outage there are many, and `catch_up` says what happens to
//! them. Every tick either fires, or is recorded as missed with a reason.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Serialize;

use super::timetable::{Rhythm, Timetable};
use runtime::clock::Time;

/// What happens to ticks that passed while no gateway could fire them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CatchUp {
    /// Only a tick younger than [`ON_TIME`] fires.
    None,
    /// The newest one fires.
    #[default]
    Last,
    /// All fire, but no more than the newest [`MOST_FIRED`].
    All,
}

/// An older tick counts as late: no gateway ran at its time.
pub const ON_TIME: Duration = Duration::from_secs(5);
/// The most ticks that one pass submits for a schedule: a day's outage must not become a flood of tasks.
pub const MOST_FIRED: usize = 100;
/// The most missed ticks that get a row each; older ones share one row.
const MOST_MISSED: usize = 500;
/// How far back the ticks of a crontab are counted one by one.
const LONGEST_LOOK_BACK: Duration = Duration::from_hours(24 * 31);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missed {
    pub tick: Time,
    pub reason: String,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Ascending.
    pub fire: Vec<Time>,
    /// Ascending; all before the ones that fire.
    pub missed: Vec<Missed>,
    /// The tick after all these.
    pub next: Option<Time>,
}

impl Decision {
    /// The newest of these ticks.
    pub fn last(&self) -> Option<Time> {
        self.fire.last().copied().or_else(|| self.missed.last().map(|missed| missed.tick))
    }
}

/// `tick` is the schedule's next tick, and it is due; `due` says when a tick's jitter is over.
pub fn decide(
    table: &Timetable,
    anchor: Time,
    tick: Time,
    now: Time,
    catch_up: CatchUp,
    due: impl Fn(Time) -> Time,
) -> Decision {
    let past = gather(table, anchor, tick, now, &due);
    let newest = past.ticks.back().copied().unwrap_or(tick);
    let on_time = now.since(due(newest)) <= ON_TIME;
    let fired = match catch_up {
        CatchUp::None if on_time => 1,
        CatchUp::None => 0,
        CatchUp::Last => 1,
        CatchUp::All => MOST_FIRED,
    };
    let split = past.ticks.len().saturating_sub(fired);
    let (missed, fire): (Vec<Time>, Vec<Time>) = {
        let ticks: Vec<Time> = past.ticks.into();
        (ticks[..split].to_vec(), ticks[split..].to_vec())
    };
    let reason = missed_because(catch_up);
    let mut rows = Vec::new();
    let shown = missed.len().saturating_sub(MOST_MISSED);
    if let Some(first) = past.first_uncounted.or_else(|| missed.first().copied().filter(|_| shown > 0)) {
        let until = missed.get(shown).copied().unwrap_or(newest);
        rows.push(Missed {
            tick: first,
            reason: format!("this and all further ticks before {}: {reason}", until.rfc3339()),
        });
    }
    rows.extend(missed[shown..].iter().map(|tick| Missed { tick: *tick, reason: reason.clone() }));
    Decision { fire, missed: rows, next: table.next(anchor, newest) }
}

fn missed_because(catch_up: CatchUp) -> String {
    match catch_up {
        CatchUp::None => format!("no gateway fired it within {} s (catch_up is none)", ON_TIME.as_secs()),
        CatchUp::Last => "no gateway fired it in time and a later tick took its place (catch_up is last)".to_owned(),
        CatchUp::All => format!("more than {MOST_FIRED} ticks were late at once (catch_up is all)"),
    }
}

struct Past {
    ticks: VecDeque<Time>,
    /// The first tick that was not listed one by one, if there were too many.
    first_uncounted: Option<Time>,
}

fn gather(table: &Timetable, anchor: Time, tick: Time, now: Time, due: &impl Fn(Time) -> Time) -> Past {
    let start = skip(table, anchor, tick, now);
    let mut past = Past { ticks: VecDeque::new(), first_uncounted: (start != tick).then_some(tick) };
    let mut at = start;
    loop {
        past.ticks.push_back(at);
        match table.next(anchor, at) {
            Some(next) if due(next) <= now => at = next,
            _ => return past,
        }
    }
}

/// The tick to begin with, so that an outage of years costs no more than an outage of a month.
fn skip(table: &Timetable, anchor: Time, tick: Time, now: Time) -> Time {
    let look_back = match &table.rhythm {
        Rhythm::Every(micros) => {
            let most = u64::try_from(MOST_MISSED + MOST_FIRED).unwrap_or(u64::MAX);
            Duration::from_micros(u64::try_from(*micros).unwrap_or(0).saturating_mul(most))
        }
        Rhythm::Cron(_) => LONGEST_LOOK_BACK,
        Rhythm::At(_) => return tick,
    };
    let from = now.minus(look_back);
    if tick >= from {
        return tick;
    }
    table.next(anchor, from).filter(|next| *next <= now).unwrap_or(tick)
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::super::cron::Cron;
    use super::*;

    fn secs(secs: i64) -> Time {
        Time(secs * 1_000_000)
    }

    fn every(seconds: i64) -> Timetable {
        let rhythm = Rhythm::Every(seconds * 1_000_000);
        Timetable { rhythm, timezone: "UTC".to_owned(), zone: TimeZone::UTC, starts_at: None, ends_at: None }
    }

    fn at(now: i64, catch_up: CatchUp) -> Decision {
        decide(&every(60), secs(0), secs(60), secs(now), catch_up, |tick| tick)
    }

    #[test]
    fn a_tick_on_time_fires_whatever_the_policy_is() {
        for catch_up in [CatchUp::None, CatchUp::Last, CatchUp::All] {
            let expected = Decision { fire: vec![secs(60)], missed: Vec::new(), next: Some(secs(120)) };
            assert_eq!(at(61, catch_up), expected);
        }
    }

    #[test]
    fn after_an_outage_the_policy_decides() {
        let none = at(250, CatchUp::None);
        assert_eq!((none.fire.len(), none.missed.len(), none.next), (0, 4, Some(secs(300))));
        let still_fresh = at(244, CatchUp::None);
        assert_eq!((still_fresh.fire, still_fresh.missed.len()), (vec![secs(240)], 3));
        let last = at(250, CatchUp::Last);
        assert_eq!((last.fire, last.missed.len(), last.next), (vec![secs(240)], 3, Some(secs(300))));
        let all = at(250, CatchUp::All);
        assert_eq!((all.fire, all.missed.len()), ((1..=4).map(|n| secs(n * 60)).collect(), 0));
    }

    #[test]
    fn all_is_capped_and_every_tick_is_accounted_for() {
        let all = at(60 * 150, CatchUp::All);
        assert_eq!((all.fire.len(), all.missed.len()), (100, 50));
        assert_eq!(all.fire[0], secs(60 * 51));
        let year = at(60 * 525_600, CatchUp::Last);
        assert_eq!(year.fire, [secs(60 * 525_600)]);
        assert_eq!(year.missed.len(), MOST_MISSED + 1);
        assert_eq!(year.missed[0].tick, secs(60));
        assert!(year.missed[0].reason.starts_with("this and all further ticks before"), "{}", year.missed[0].reason);
    }

    #[test]
    fn a_crontab_that_slept_for_years_is_counted_back_a_month() {
        let cron = Rhythm::Cron(Cron::parse("* * * * *").unwrap());
        let table = Timetable { rhythm: cron, ..every(60) };
        let now = secs(60 * 525_600 * 3);
        let decision = decide(&table, secs(0), secs(60), now, CatchUp::All, |tick| tick);
        assert_eq!((decision.fire.len(), decision.fire[99], decision.missed.len()), (100, now, MOST_MISSED + 1));
        assert_eq!(decision.next, Some(now.plus(Duration::from_mins(1))));
    }

    #[test]
    fn a_tick_whose_jitter_is_not_over_waits() {
        let decision =
            decide(&every(60), secs(0), secs(60), secs(125), CatchUp::All, |tick| tick.plus(Duration::from_secs(10)));
        assert_eq!((decision.fire, decision.next), (vec![secs(60)], Some(secs(120))));
    }

    #[test]
    fn the_end_of_a_timetable_is_no_tick() {
        let table = Timetable { ends_at: Some(secs(130)), ..every(60) };
        let decision = decide(&table, secs(0), secs(60), secs(1000), CatchUp::All, |tick| tick);
        assert_eq!((decision.fire, decision.next), (vec![secs(60), secs(120)], None));
    }
}
