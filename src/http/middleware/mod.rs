//! What holds for every request.

pub mod authenticate;
pub mod cors;
pub mod forwarded;
pub mod observe;
pub mod origin;
pub mod patience;
mod throttle;
