//! What submits by itself, over the same path as a client: beat, the expander of large fan-outs, the drains of inboxes, the retrier,
//! steps that wait, and parts of DAGs.

pub mod beat;
pub mod bulk;
pub mod dags;
pub mod expander;
pub mod hand_over;
pub mod inboxes;
pub mod retrier;
pub mod waits;
