//! Services that submit tasks by themselves, in the same way as a client: beat (the scheduler), the expander of large fan-outs, the drains
//! of inboxes, the retrier, bulk operations, and steps that wait.

pub mod beat;
pub mod bulk;
pub mod expander;
pub mod hand_over;
pub mod inboxes;
pub mod retrier;
pub mod waits;
