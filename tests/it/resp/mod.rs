//! dev's built-in Redis-protocol server: the same as a real redis-server to those who talk to it, and not to be broken.

mod built_in;
mod celery;
mod commands;
mod hostile;
mod log;
mod replay;
mod wire;
