//! The built-in Redis-protocol server of `taskgate dev`: it and the Celery workers that join it need no Redis.
//!
//! It follows redis-server 7.0 in what Celery, kombu, redis-py and taskgate use: RESP2 and RESP3, pipelines,
//! transactions, pub/sub, blocking pops, expiry, Lua. It keeps everything in memory, loses it when it stops, and does not know
//! about tasks. It is for development: no users, no persistence, no replication.
//!
//! Invariants: commands run one after the other on one thread; no input makes it panic or use memory without bound; an
//! unknown command gets Redis's own error.

mod failure;
mod glob;
mod number;
mod protocol;
mod reply;

mod call;
mod command;
mod commands;
mod keyspace;
mod sorted_set;
mod value;

mod blocking;
mod client;
mod engine;
mod info;
mod pubsub;
mod script;
mod session;
mod transaction;

mod connection;
mod server;

pub use server::Server;

/// Reads requests until the input ends or is refused, for `crate::fuzz_entry`.
///
/// # Panics
/// When the parser returns a request without having consumed input.
pub fn read_requests(bytes: &[u8]) {
    let (mut parser, mut input) = (protocol::Parser::default(), bytes::BytesMut::from(bytes));
    let mut left = input.len() + 1;
    while let Ok(Some(request)) = parser.next(&mut input) {
        assert!(input.len() < left && !request.is_empty(), "each request takes something");
        left = input.len();
    }
    let _ = parser.wanted(input.len());
}
