//! Celery's broker and result backend, behind ports.
//!
//! [`Port`] is what a use case may ask of any broker; [`redis`] and [`amqp`] stand behind it. What only one broker can is a capability
//! that a use case asks for and does without: [`Port::lists`] are Redis's lists, in which single messages can be seen, removed for
//! certain, marked and leased.

pub mod amqp;
pub mod backend;
mod port;
mod redis;
mod served;

pub use port::{Binding, Broker, Exchange, Kind, Port};
pub use redis::Broker as Lists;
pub use redis::*;
pub use served::Served;
