//! What submits by itself, over the same path as a client: beat, the expander of large fan-outs, the drains of inboxes, the retrier,
//! and steps that wait.

pub mod beat;
pub mod bulk;
pub mod expander;
pub mod hand_over;
pub mod inboxes;
pub mod retrier;
pub mod waits;
