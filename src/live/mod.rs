//! What stands in front of the ledger: submissions are committed in groups, reads are batched, changes are shown live.

pub mod commit;
pub mod direct;
pub mod hub;
pub mod inboxes;
pub mod learned;
pub mod news;
pub mod pauses;
pub mod reads;
pub mod windows;
