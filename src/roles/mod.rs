//! What submits by itself, over the same path as a client: beat, the expander of large fan-outs, the retrier.

pub mod beat;
pub mod bulk;
pub mod expander;
pub mod retrier;
