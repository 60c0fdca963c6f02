//! How many executions beyond its first one a task's history explains.
//!
//! Only what an operator can read counts: the reasons of the entries. Two entries may tell of the same delivery: a worker gives a message
//! back, and the next worker announces it. So the larger number of the two counts, not their sum.

use serde_json::Value;

/// What the history explains.
#[derive(Debug, PartialEq, Eq)]
pub struct Told {
    /// Further executions with a reason.
    pub times: usize,
    /// Whether the end says that nobody knows how often it ran: its worker died with it.
    pub is_uncertain: bool,
}

pub fn told(history: &[Value]) -> Told {
    let reasons: Vec<&str> = history.iter().filter_map(|event| event["reason"].as_str()).collect();
    let count = |words: &[&str]| reasons.iter().filter(|reason| words.iter().any(|word| reason.contains(word))).count();
    let again = count(&["queued again", "went back to the queue", "runs twice", "runs again on request"]);
    let delivered = count(&["delivered it again"]).max(count(&["gave the message back"]));
    let poison = reasons.iter().filter_map(|reason| deliveries(reason)).max().unwrap_or(1);
    Told { times: (again + delivered).max(poison.saturating_sub(1)), is_uncertain: count(&["it may have run"]) > 0 }
}

/// The number in `it was delivered 3 times and did not end`.
fn deliveries(reason: &str) -> Option<usize> {
    let (count, _) = reason.strip_prefix("it was delivered ")?.split_once(" times and did not end")?;
    count.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(reasons: &[&str]) -> Told {
        let history: Vec<Value> = reasons.iter().map(|reason| json!({"reason": reason})).collect();
        told(&history)
    }

    #[test]
    fn every_reason_explains_one_execution_and_none_explains_nothing() {
        assert_eq!(told(&[json!({"phase": "queued"})]), Told { times: 0, is_uncertain: false });
        let both = ["Redis lost its message, it is queued again", "the broker delivered it again"];
        assert_eq!(of(&both).times, 2);
    }

    #[test]
    fn a_message_that_is_given_back_and_announced_again_is_one_delivery() {
        let back = "its worker rejected it and gave the message back";
        let again = "the broker delivered it again";
        assert_eq!(of(&[back, again]).times, 1);
        assert_eq!(of(&[back, again, back]).times, 2);
    }

    #[test]
    fn an_end_tells_how_often_it_was_delivered_or_that_nobody_knows() {
        assert_eq!(of(&["it was delivered 3 times and did not end; the last worker"]).times, 2);
        assert!(of(&["w0 had it and is gone; it may have run, and is not known to be safe to run again"]).is_uncertain);
    }
}
