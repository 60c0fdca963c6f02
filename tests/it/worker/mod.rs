//! The Rust worker as a process, beside the real peers: stock Celery clients, Python workers, Celery's own tools.

mod canvas;
mod control;
mod hostile;
mod loss;
mod process;
mod semantics;
