//! W3C Trace Context: which trace, which span, and whether it is recorded. Pure.

use std::fmt;

use sha2::{Digest, Sha256};

/// The context of a span, as in `traceparent`. Neither id is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanContext {
    pub trace: u128,
    pub span: u64,
    pub sampled: bool,
}

impl SpanContext {
    /// `00-<32 hex>-<16 hex>-<2 hex>`, lower case, neither id zero; `None` for anything else, as the standard says.
    pub fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split('-').collect();
        let [version, trace, span, flags] = parts.as_slice() else { return None };
        if !(is_hex(version, 2) && is_hex(trace, 32) && is_hex(span, 16) && is_hex(flags, 2)) || *version == "ff" {
            return None;
        }
        let context = Self {
            trace: u128::from_str_radix(trace, 16).ok()?,
            span: u64::from_str_radix(span, 16).ok()?,
            sampled: u8::from_str_radix(flags, 16).ok()? & 1 == 1,
        };
        (context.trace != 0 && context.span != 0).then_some(context)
    }
}

impl fmt::Display for SpanContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, u8::from(self.sampled))
    }
}

fn is_hex(part: &str, length: usize) -> bool {
    part.len() == length && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Whether a trace is sampled. The decision is the same everywhere: the lower half of the trace id is random and is compared with `part`.
pub fn is_sampled(trace: u128, part: f64) -> bool {
    let random = short(trace) >> 11;
    (random as f64) < part * (1_u64 << 53) as f64
}

/// The lower half, never zero.
pub fn short(id: u128) -> u64 {
    u64::try_from(id & u128::from(u64::MAX)).unwrap_or(1).max(1)
}

/// An id derived from its parts, so that all replicas compute the same.
pub fn id_of(parts: &[&str]) -> u128 {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let digest = hash.finalize();
    let id = digest.iter().take(16).fold(0_u128, |id, byte| id << 8 | u128::from(*byte));
    id.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_well_formed_parent_is_continued() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context = SpanContext::parse(text).unwrap();
        assert!(context.sampled);
        assert_eq!(context.to_string(), text);
        for text in [
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "hello",
        ] {
            assert_eq!(SpanContext::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_part_of_the_traces_is_sampled_and_all_agree_which() {
        let ids: Vec<u128> = (0..1_000).map(|n| id_of(&[&n.to_string()])).collect();
        let half = ids.iter().filter(|id| is_sampled(**id, 0.5)).count();
        assert!((400..600).contains(&half), "{half}");
        assert!(ids.iter().all(|id| is_sampled(*id, 1.0) && !is_sampled(*id, 0.0)));
    }
}
