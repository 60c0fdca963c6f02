//! What people do with a fleet: operations on many tasks, who did what, logging in, incidents, a screen of figures.

mod audit;
mod bulk;
mod incidents;
mod login;
pub use login::hash;
mod mail_server;
mod provider;
mod tokens;
mod top;
