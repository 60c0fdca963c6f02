//! Who may call, and how often.

pub mod audit;
pub mod namespace;
pub mod oidc;
pub mod passwords;
pub mod throttle;
pub mod tokens;
