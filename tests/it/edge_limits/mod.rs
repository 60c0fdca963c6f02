//! Limits of the edge, webhooks, batches, and the contract under a fuzzer.

mod contract;
mod rate;
pub mod receiver;
mod requests;
mod webhooks;

use std::sync::OnceLock;

use crate::harness::CeleryOptions;
use crate::harness::environment::{Harness, Lent, Options, Shared};

/// A worker and a gateway that may send webhooks to this machine; shared by the tests of this folder.
fn shared() -> Shared {
    static SHARED: OnceLock<Harness> = OnceLock::new();
    let celery = CeleryOptions { concurrency: 4, ..CeleryOptions::default() };
    Lent::over(&SHARED, &Options { celery, config: CONFIG.to_owned(), ..Options::default() })
}

const CONFIG: &str = r#"
[webhooks]
allow = ["127.0.0.1"]
first_retry = "200ms"
retry_for = "1h"
per_target = 2
"#;
