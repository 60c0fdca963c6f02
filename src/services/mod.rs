//! Reconcilers: each repairs one difference between what was decided, what is in flight and what happened.

pub mod canvas;
pub mod commit;
pub mod exchanges;
pub mod expiry;
pub mod health;
pub mod hub;
pub mod incidents;
pub mod news;
pub mod pauses;
pub mod reads;
pub mod recorder;
pub mod relay;
pub mod removal;
pub mod retention;
pub mod stats;
pub mod sweeper;
pub mod throttle;
pub mod tokens;
pub mod webhooks;
pub mod workers;
