//! For what tasks of the outbox wait, and so how long a pass rests after another: many pieces of news become one pass, and a single one is
//! never waited for long.

use std::time::Duration;

/// While tasks wait for limits, the pause between two passes, in times of what a pass takes: a burst of ends becomes one pass,
const GATE_REST: u32 = 2;
/// and a single one is never waited for longer.
pub(super) const GATE_BREATH: Duration = Duration::from_millis(12);
/// The same while tasks wait for room in their queues only: the broker has messages for the workers until then.
const LINE_BREATH: Duration = Duration::from_millis(40);
/// And when it has hardly any.
const DRY_BREATH: Duration = Duration::from_millis(2);

/// What the last pass left behind.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Waits {
    /// Tasks wait for limits: an end may let one of them go.
    pub at_gates: bool,
    /// Tasks wait for room in their queues: every reception makes some.
    pub in_lines: bool,
    /// A queue had hardly any messages left.
    pub is_dry: bool,
}

impl Waits {
    pub fn any(self) -> bool {
        self.at_gates || self.in_lines
    }

    /// The least time between the end of a pass, which took so long, and the next one that news brings about.
    pub fn rest_after(self, took: Duration) -> Duration {
        match self {
            Self { in_lines: true, is_dry: true, .. } => DRY_BREATH,
            Self { at_gates: false, in_lines: true, .. } => LINE_BREATH,
            Self { .. } => (took * GATE_REST).min(GATE_BREATH),
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
        assert_eq!(gates.rest_after(millis(3)), millis(6));
        assert_eq!(gates.rest_after(millis(50)), GATE_BREATH);
        assert_eq!(lines.rest_after(millis(3)), LINE_BREATH);
        assert_eq!(Waits { is_dry: true, ..lines }.rest_after(millis(30)), DRY_BREATH);
        assert_eq!(Waits { in_lines: true, ..gates }.rest_after(millis(30)), GATE_BREATH);
    }
}
