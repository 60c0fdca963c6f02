//! What people do with a fleet: operations on many tasks, who did what, logging in.

mod audit;
mod bulk;
mod login;
pub use login::hash;
mod provider;
