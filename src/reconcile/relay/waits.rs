//! What tasks in the outbox wait for, and how long to pause between passes: a burst of news causes a single pass, but one piece of news
//! never waits long.

use std::time::Duration;

use crate::live::hub::Room;

/// While tasks wait for ends of others, the pause between two passes is as long as a pass: a burst of ends causes few passes. It is never
/// longer than this, because an end should let the next task go within 20 ms.
pub(super) const GATE_BREATH: Duration = Duration::from_millis(5);
/// Longest pause while tasks wait only for room in their queues, because the broker has messages for the workers meanwhile.
const LINE_BREATH: Duration = Duration::from_millis(40);
/// Longest pause when the broker has hardly any messages left.
const DRY_BREATH: Duration = Duration::from_millis(2);

/// What the tasks wait for that the last pass left. Those that wait for a time are not mentioned: the pass says when it comes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Waits {
    /// Some tasks wait until others of their key have ended.
    pub for_ends: bool,
    /// Some tasks wait for room in their queues: every message that a worker receives makes room.
    pub in_lines: bool,
    /// A queue had hardly any messages left.
    pub is_dry: bool,
}

impl Waits {
    pub fn any(self) -> bool {
        self.for_ends || self.in_lines
    }

    /// The shortest pause between the end of a pass, which took `took`, and the next pass caused by this news; `None` when the news
    /// lets none of them go.
    pub fn rest_after(self, took: Duration, news: Room) -> Option<Duration> {
        match self {
            Self { in_lines: true, is_dry: true, .. } => Some(DRY_BREATH),
            Self { for_ends: true, .. } if news == Room::Ended => Some(took.min(GATE_BREATH)),
            Self { in_lines: true, .. } => Some(LINE_BREATH),
            Self { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_comes_the_sooner_the_more_somebody_waits_for_it() {
        let millis = Duration::from_millis;
        let ends = Waits { for_ends: true, ..Waits::default() };
        let lines = Waits { in_lines: true, ..Waits::default() };
        let both = Waits { in_lines: true, ..ends };
        assert_eq!(ends.rest_after(millis(3), Room::Ended), Some(millis(3)));
        assert_eq!(ends.rest_after(millis(50), Room::Ended), Some(GATE_BREATH));
        assert_eq!(lines.rest_after(millis(3), Room::Received), Some(LINE_BREATH));
        assert_eq!(Waits { is_dry: true, ..lines }.rest_after(millis(30), Room::Received), Some(DRY_BREATH));
        assert_eq!(both.rest_after(millis(30), Room::Ended), Some(GATE_BREATH));
        assert_eq!(both.rest_after(millis(30), Room::Received), Some(LINE_BREATH));
    }

    #[test]
    fn news_that_lets_nobody_go_causes_no_pass() {
        let ends = Waits { for_ends: true, ..Waits::default() };
        assert_eq!(ends.rest_after(Duration::ZERO, Room::Received), None);
        assert_eq!(Waits::default().rest_after(Duration::ZERO, Room::Ended), None);
    }
}
