//! Celery's broker and result backend, behind ports.
//!
//! [`Port`] has the operations that every broker supports; [`redis`] and [`amqp`] implement it. What only one broker can do is a
//! capability, without which a use case must work too: [`Port::lists`] are Redis's lists, in which single messages can be read,
//! certainly removed, marked and leased.

pub mod amqp;
pub mod backend;
mod port;
mod redis;
mod served;

pub use port::{Binding, Broker, Exchange, Kind, Port};
pub use redis::Broker as Lists;
pub use redis::*;
pub use served::Served;
