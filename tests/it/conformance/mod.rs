//! One suite for both ledgers: checks the promises of `crates/ledger/src/lib.rs` on PostgreSQL and on SQLite.

#![expect(clippy::unwrap_used, reason = "a refused call fails the test, and its error is the report")]
#![expect(clippy::disallowed_methods, reason = "what a test spawns ends with its runtime")]

mod fixture;

mod admission;
mod arguments;
mod audit;
mod canvas;
mod control;
mod fan_out;
mod feed;
mod findings;
mod incidents;
mod lines;
mod lists;
mod logs;
mod months;
mod news;
mod outbox;
mod plans;
mod races;
mod rate_gates;
mod reads;
mod retention;
mod schedules;
mod schema;
mod stats;
mod tokens;
mod waits;
mod webhooks;

/// Each case becomes a test on either ledger.
macro_rules! on_both {
    ($($case:ident),+ $(,)?) => {
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case(&crate::conformance::fixture::Fixture::postgres().await).await;
            })+
        }
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case(&crate::conformance::fixture::Fixture::sqlite().await).await;
            })+
        }
    };
}
pub(crate) use on_both;
