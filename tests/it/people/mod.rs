//! Features for people: operations on many tasks, the audit log, logins, incidents, `taskgate top`.

mod audit;
mod bulk;
mod incidents;
mod login;
pub use login::hash;
mod mail_server;
mod provider;
mod tokens;
mod top;
