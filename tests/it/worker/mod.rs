//! The Rust worker as a process, beside the real peers: stock Celery clients, Python workers, Celery's own tools.

mod beside;
mod canvas;
mod children;
mod commands;
mod control;
mod flower;
mod hostile;
mod inspect;
mod loss;
mod process;
mod rabbit;
mod rabbit_loss;
mod rabbit_timeout;
mod semantics;
