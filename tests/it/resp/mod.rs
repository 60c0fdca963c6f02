//! dev's built-in Redis-protocol server: answers like a real redis-server, and withstands hostile clients.

mod built_in;
mod celery;
mod commands;
mod hostile;
mod log;
mod replay;
mod wire;
