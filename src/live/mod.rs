//! Services in front of the ledger (the history database): group commit, batched reads, live events.

pub mod announcements;
pub mod commit;
pub mod direct;
pub mod hub;
pub mod inboxes;
pub mod learned;
pub mod management;
pub mod news;
pub mod pauses;
pub mod reads;
pub mod stored;
pub mod windows;
