//! Who may call, and how often.

pub mod throttle;
pub mod tokens;
