//! Access control: tokens, logins, rate limits, namespaces and the audit log.

pub mod audit;
pub mod namespace;
pub mod oidc;
pub mod passwords;
pub mod throttle;
pub mod tokens;
