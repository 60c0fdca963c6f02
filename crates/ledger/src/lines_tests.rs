use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

fn share(key: &str, turn: i64, weight: i32, tasks: std::ops::Range<i64>) -> Share {
    Share { key: key.to_owned(), turn, weight, heads: tasks.collect(), has_more: false }
}

/// Runs consecutive passes with little room, like the relay. Returns the keys in the order of their tasks.
fn run(shares: &mut [Share], room: usize, count: usize) -> Vec<String> {
    let mut order = Vec::new();
    while order.len() < count {
        let picks = take_turns(shares, 0, room.min(count - order.len()));
        if picks.is_empty() {
            break;
        }
        for pick in picks {
            let share = shares.iter_mut().find(|share| share.key == pick.share).unwrap();
            assert_eq!(share.heads.remove(0), pick.task_no, "first in, first out");
            share.turn += STRIDE / i64::from(share.weight);
            order.push(pick.share);
        }
    }
    order
}

fn count(order: &[String], key: &str) -> usize {
    order.iter().filter(|picked| *picked == key).count()
}

#[test]
fn a_small_batch_passes_between_the_tasks_of_a_large_one() {
    let mut shares = [share("a", 0, 1, 0..10_000)];
    run(&mut shares, 16, 500);
    let mut both = [shares[0].clone(), share("b", shares[0].turn, 1, 10_000..10_010)];
    let order = run(&mut both, 16, 20);
    assert_eq!(count(&order, "b"), 10, "its ten tasks are among the next twenty");
}

#[test]
fn who_had_nothing_to_do_neither_saves_up_nor_owes() {
    let mut shares = [share("a", 0, 1, 0..1_000), share("b", 0, 1, 1_000..1_001)];
    run(&mut shares, 8, 400);
    // B comes back with the turn of the others.
    let turn = shares[0].turn;
    shares[1] = share("b", turn, 1, 2_000..2_500);
    let order = run(&mut shares, 8, 200);
    assert!((99..=101).contains(&count(&order, "b")), "{}", count(&order, "b"));
}

#[test]
fn a_key_of_which_not_all_was_loaded_stops_the_order_rather_than_lose_its_turn() {
    let shares = [Share { has_more: true, ..share("a", 0, 1, 0..2) }, share("b", 0, 1, 10..20)];
    let picks = take_turns(&shares, 3, 10);
    let order: Vec<i64> = picks.iter().map(|pick| pick.task_no).collect();
    assert_eq!(order, [0, 10, 1, 11]);
    assert!(picks.iter().all(|pick| pick.rank == 3));
}

#[test]
fn only_what_was_carried_puts_a_turn_off() {
    let mut lines = Lines::default();
    let pick = |task_no, share: &str| Pick { task_no, rank: 0, share: share.to_owned() };
    let shares = HashMap::from([((0, "a".to_owned()), (5, 2)), ((0, "b".to_owned()), (7, 1))]);
    let line = Line { room: 3, picks: vec![pick(1, "a"), pick(2, "a"), pick(3, "b")], shares, empty: Vec::new() };
    lines.add("mail".to_owned(), line, false);
    let turns = lines.turns(&[1]);
    assert_eq!((turns.len(), turns[0].share.as_str(), turns[0].turn), (1, "a", 5 + STRIDE / 2));
    assert!(lines.admit("mail", 2) && lines.admit("mail", 9) && lines.admit("other", 9));
}

#[test]
fn nobody_goes_past_those_who_wait() {
    let mut lines = Lines::default();
    let picks = vec![Pick { task_no: 1, rank: 0, share: String::new() }];
    lines.add("mail".to_owned(), Line { room: 3, picks, ..Line::default() }, true);
    assert!(lines.admit("mail", 1) && !lines.admit("mail", 2));
}

#[test]
fn a_hundred_thousand_keys_take_turns() {
    let mut shares: Vec<Share> = (0..100_000).map(|n| share(&format!("k{n:06}"), 0, 1, n..n + 1)).collect();
    shares[99_999].turn = -1;
    let picks = take_turns(&shares, 0, 1_000);
    assert_eq!((picks.len(), picks[0].share.as_str(), picks[1].share.as_str()), (1_000, "k099999", "k000000"));
}

proptest! {
    /// Whatever the weights and the room of each pass: a saturated queue is shared by weight, to within one task of each key.
    #[test]
    fn a_saturated_queue_is_shared_by_weight(weights in prop::collection::vec(1_i32..20, 2..6), room in 1_usize..50) {
        let mut shares: Vec<Share> =
            weights.iter().enumerate().map(|(n, weight)| share(&format!("k{n}"), 0, *weight, 0..5_000)).collect();
        let total = 2_000;
        let order = run(&mut shares, room, total);
        let all: i32 = weights.iter().sum();
        for (n, weight) in weights.iter().enumerate() {
            let due = total as f64 * f64::from(*weight) / f64::from(all);
            let got = count(&order, &format!("k{n}")) as f64;
            prop_assert!((got - due).abs() <= due * 0.05 + 1.0, "{got} instead of {due}");
        }
    }

    /// Nothing is picked twice, nothing waits while there is room.
    #[test]
    fn every_task_goes_once(sizes in prop::collection::vec(0_i64..40, 1..8), room in 1_usize..50) {
        let mut next = 0;
        let mut shares: Vec<Share> = sizes.iter().enumerate().map(|(n, size)| {
            let tasks = next..next + size;
            next += size;
            share(&format!("k{n}"), 0, 1, tasks)
        }).collect();
        let order = run(&mut shares, room, usize::MAX);
        prop_assert_eq!(order.len(), usize::try_from(next).unwrap());
    }

    /// As many tasks of each key are loaded as a pass can use, so a pass fills its room while enough wait.
    #[test]
    fn what_is_loaded_is_enough(weights in prop::collection::vec(1_i32..20, 1..6), room in 1_usize..100) {
        let mut shares: Vec<Share> =
            weights.iter().enumerate().map(|(n, weight)| share(&format!("k{n}"), 0, *weight, 0..0)).collect();
        let depth = depth(&shares, room);
        for share in &mut shares {
            share.heads = (0..depth).collect();
            share.has_more = true;
        }
        prop_assert_eq!(take_turns(&shares, 0, room).len(), room);
    }
}
