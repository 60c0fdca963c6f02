//! What tasks in the outbox wait for, and how long to pause between passes: a burst of news causes a single pass, but one piece of news
//! never waits long.

use std::time::Duration;

/// While tasks wait for limits, the pause between two passes is as long as a pass: a burst of ends causes few passes. It is never longer
/// than this, because an end should let the next task go within 20 ms.
pub(super) const GATE_BREATH: Duration = Duration::from_millis(5);
/// Longest pause while tasks wait only for room in their queues, because the broker has messages for the workers meanwhile.
const LINE_BREATH: Duration = Duration::from_millis(40);
/// Longest pause when the broker has hardly any messages left.
const DRY_BREATH: Duration = Duration::from_millis(2);

/// What the tasks wait for that the last pass left.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Waits {
    /// Some tasks wait for limits: an end may let one of them go.
    pub at_gates: bool,
    /// Some tasks wait for room in their queues: every message that a worker receives makes room.
    pub in_lines: bool,
    /// A queue had hardly any messages left.
    pub is_dry: bool,
}

impl Waits {
    pub fn any(self) -> bool {
        self.at_gates || self.in_lines
    }

    /// The shortest pause between the end of a pass, which took `took`, and the next pass caused by news.
    pub fn rest_after(self, took: Duration) -> Duration {
        match self {
            Self { in_lines: true, is_dry: true, .. } => DRY_BREATH,
            Self { at_gates: false, in_lines: true, .. } => LINE_BREATH,
            Self { .. } => took.min(GATE_BREATH),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_comes_the_sooner_the_more_somebody_waits_for_it() {
        let millis = Duration::from_millis;
        let gates = Waits { at_gates: true, ..Waits::default() };
        let lines = Waits { in_lines: true, ..Waits::default() };
        assert_eq!(gates.rest_after(millis(3)), millis(3));
        assert_eq!(gates.rest_after(millis(50)), GATE_BREATH);
        assert_eq!(lines.rest_after(millis(3)), LINE_BREATH);
        assert_eq!(Waits { is_dry: true, ..lines }.rest_after(millis(30)), DRY_BREATH);
        assert_eq!(Waits { in_lines: true, ..gates }.rest_after(millis(30)), GATE_BREATH);
    }
}
