//! The data of the ledger as the API shows it: field by field in the contract's order. Results pass through verbatim.

mod accepted;
mod audit;
mod bulk;
mod children;
pub mod control;
mod error;
mod event;
mod group;
mod incident;
mod limit;
mod message;
mod result;
mod schedule;
pub mod standings;
pub mod stats;
mod task;
pub mod together;
mod token;
pub mod wait;
mod webhook;

pub use accepted::{AcceptedView, ChildView, LinksView, Shown, WarningView};
pub use audit::{ActListView, ActView};
pub use bulk::{BulkListView, BulkView, PreviewBulkView};
pub use celery::task::mask::Mask;
pub use children::SentView;
pub use error::ErrorView;
pub use event::{EventView, SnapshotView};
pub use group::{GroupEventView, GroupView, MemberView};
pub use incident::{IncidentHistoryView, IncidentListView, IncidentView};
pub use limit::{LimitListView, LimitView};
pub use message::MessageView;
pub use result::ResultView;
pub use schedule::{PreviewView, RunListView, RunView, schedule_path, schedule_text};
pub use task::{SummaryView, TaskListView, TaskView};
pub use token::{InboxListView, InboxView, TokenListView, TokenView};
pub use webhook::{DeliveryListView, DeliveryView, WebhookListView, WebhookView};
