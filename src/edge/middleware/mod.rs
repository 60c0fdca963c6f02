//! Middleware for every request.

pub mod audit;
pub mod authenticate;
mod compress;
mod cors;
pub mod forwarded;
pub mod guard;
pub mod layers;
pub mod meters;
pub mod observe;
mod origin;
mod patience;
mod reader;
mod shield;
mod throttle;
mod unread;
