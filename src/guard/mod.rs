//! Who may call, and how often.

pub mod audit;
pub mod namespace;
pub mod throttle;
pub mod tokens;
