//! Celery's broker and result backend. All keys and channels that kombu knows, each behind a plain method.
//!
//! [`redis`] is the broker, [`backend`] the result backend beside it.

pub mod backend;
mod redis;

pub use redis::*;
