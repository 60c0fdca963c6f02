use super::*;

fn rate(interval: i64) -> Vec<RateGate> {
    vec![RateGate::Rate { name: "rate t".into(), interval }]
}

fn key(name: &str, max: i32) -> RateGate {
    RateGate::Key { name: name.into(), max }
}

/// Whenever passes come, also late, the rate of each minute is neither exceeded nor left unused.
#[test]
fn a_rate_is_kept_and_used_whatever_the_times_of_the_passes() {
    let gates = rate(6 * SECOND / 10);
    let (mut state, mut passed) = (RateGates::default(), Vec::new());
    let mut now = Time(1_000 * SECOND);
    let begin = now;
    for step in 0..4_000 {
        now = Time(now.0 + 10_000 + (step * 7_919) % 97_000);
        state.closed.clear();
        while state.admit(step, &gates, now).is_ok() {
            passed.push(now.0);
        }
    }
    let minutes = (now.0 - begin.0) as f64 / 60e6;
    let rate = passed.len() as f64 / minutes;
    assert!((98.0..=101.0).contains(&rate), "{rate}");
    assert!(passed.windows(102).all(|some| some[101] - some[0] >= 60 * SECOND), "more than 101 in a minute");
    assert!(passed.windows(2).all(|two| two[1] - two[0] >= 4 * SECOND / 10), "not smooth");
}

#[test]
fn of_a_slow_rate_no_two_starts_are_closer_than_it_says() {
    let (mut state, gates) = (RateGates::default(), rate(60 * SECOND));
    let mut now = Time(1_000 * SECOND);
    let mut passed = Vec::new();
    for step in 0..40_000 {
        now = Time(now.0 + 3_000 + (step * 7_919) % 20_000);
        state.closed.clear();
        if state.admit(step, &gates, now).is_ok() {
            passed.push(now.0);
        }
    }
    assert!(passed.len() > 5);
    assert!(
        passed.windows(2).all(|two| (60 * SECOND..=60 * SECOND + 23_000).contains(&(two[1] - two[0]))),
        "{passed:?}"
    );
}

#[test]
fn a_rate_of_hundreds_a_second_is_used_by_passes_that_come_less_often() {
    let (mut state, gates) = (RateGates::default(), rate(2_000));
    let (begin, mut passed) = (1_000 * SECOND, 0);
    for step in 0..1_000 {
        state.closed.clear();
        while state.admit(step, &gates, Time(begin + step * 15_000)).is_ok() {
            passed += 1;
        }
    }
    assert!((7_300..=7_520).contains(&passed), "{passed} in 15 s");
}

#[test]
fn after_idle_time_there_is_no_burst() {
    let (mut state, gates) = (RateGates::default(), rate(SECOND));
    assert!(state.admit(1, &gates, Time(500 * SECOND)).is_ok());
    assert!(state.admit(2, &gates, Time(500 * SECOND)).is_err());
    state.closed.clear();
    assert!(state.admit(2, &gates, Time(900 * SECOND)).is_ok());
    assert!(state.admit(3, &gates, Time(900 * SECOND)).is_err());
}

#[test]
fn a_key_lets_so_many_pass_and_nobody_overtakes() {
    let mut state = RateGates::default();
    let now = Time(0);
    assert!(state.admit(1, &[key("a", 2)], now).is_ok());
    assert!(state.admit(2, &[key("a", 2), key("b", 1)], now).is_ok());
    assert_eq!(state.admit(3, &[key("a", 5), key("b", 1)], now), Err(key("b", 1)));
    assert_eq!(state.admit(4, &[key("b", 9)], now), Err(key("b", 9)), "the third comes before it");
    assert!(state.admit(5, &[key("a", 3)], now).is_ok(), "the third does not wait here");
    assert!(state.admit(2, &[key("a", 1), key("b", 1)], now).is_ok(), "a task that is under way is not stopped again");
}

#[test]
fn only_what_was_carried_counts() {
    let gates = [key("a", 2), RateGate::Rate { name: "rate t".into(), interval: SECOND }];
    let settled = RateGates::default().settle([(7, &gates[..])].into_iter(), Time(10 * SECOND));
    assert_eq!(settled.holds, [("a".to_owned(), 7, 2)]);
    assert_eq!(settled.rates, [("rate t".to_owned(), 11 * SECOND, SECOND)]);
    let none = RateGates::default().settle(std::iter::empty(), Time(0));
    assert!(none.holds.is_empty() && none.rates.is_empty());
}

/// A pass that reads all waiting tasks of a gate delays the other gates.
#[test]
fn few_more_waiting_tasks_are_read_than_may_pass() {
    let waiting = |max: Option<i32>, spacing: Option<i64>, holders: i64| Waiting {
        gate: format!("{KEY}a"),
        max,
        opens_at: None,
        spacing,
        holders,
    };
    let heads = |one: Waiting| one.into_open(&Rules::default()).heads;
    assert_eq!(heads(waiting(Some(3), None, 1)), KEY_HEADS, "others of the key may say more");
    assert_eq!(heads(waiting(Some(40), None, 10)), 31);
    assert_eq!(heads(waiting(Some(1_000), None, 0)), HEADS);
    assert_eq!(heads(waiting(None, Some(60 * SECOND), 0)), 2, "one of a slow rate");
    assert_eq!(heads(waiting(None, Some(1_000), 0)), 22, "as many as a late pass makes up for");
    assert_eq!(heads(waiting(None, None, 0)), HEADS, "a rate that nobody has passed yet");
    let rule = Rule { max: Some(25), rate: None, paused: false };
    let rules = Rules::from([("a".to_owned(), rule)]);
    assert_eq!(waiting(Some(1), None, 0).into_open(&rules).heads, 26, "what is said by hand");
}

#[test]
fn nobody_passes_a_gate_whose_first_task_may_not() {
    let open = vec![Open { gate: "pace a".into(), heads: 1 }, Open { gate: "key b".into(), heads: 2 }];
    let heads = Heads::new(&[("pace a".into(), 1), ("key b".into(), 2)], open);
    let mut gates = RateGates::default();
    gates.waited_for.extend(["key b".to_owned(), "key shut".to_owned()]);
    heads.close_shut(&mut gates, &Looks::default());
    assert_eq!(gates.admit(8, &[key("key shut", 5)], Time(0)), Err(key("key shut", 5)));
    assert_eq!(gates.admit(8, &[key("key b", 5)], Time(0)), Ok(()));
    heads.close_before(8, &mut gates);
    assert!(
        gates.admit(8, &[RateGate::Rate { name: "pace a".into(), interval: 5 }], Time(0)).is_err(),
        "more wait there"
    );
}
