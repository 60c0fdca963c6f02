//! The kinds of incidents, with their names in the API, the metrics and the documents.

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    SilentWorker,
    NoConsumer,
    OverBudget,
    /// A task has run for long without a progress report.
    NoProgress,
    /// Thousands of tasks that take almost no time.
    ShortTasks,
    /// Results that are large enough to be kept in a store.
    LargeResults,
    /// A worker uses much memory.
    LargeWorker,
    OutboxStuck,
    CanvasStuck,
    /// A queue's key is not a list.
    WrongKey,
    /// The fleet's transport options differ from `[broker]`.
    OtherOptions,
    /// A worker sends no events.
    MuteWorker,
    /// A worker does not answer remote control.
    DeafWorker,
    /// The broker has no queue of this name.
    NoQueue,
    /// Workers report different signatures for a task, or one that contradicts its catalog entry.
    OtherSignature,
    LedgerDown,
    RedisDown,
    RedisEvicts,
    /// A task is delivered again and again; a reconciler finds this.
    RepeatedDelivery,
    /// So many tasks would run again at once that the repair was suspended.
    RepairSuspended,
    /// The outcome of a task is unknown.
    Undecided,
    /// A row of the ledger cannot be read, so its task is left out.
    UnreadableRow,
}

impl Kind {
    pub const ALL: [Self; 22] = [
        Self::SilentWorker,
        Self::NoConsumer,
        Self::OverBudget,
        Self::NoProgress,
        Self::ShortTasks,
        Self::LargeResults,
        Self::LargeWorker,
        Self::OutboxStuck,
        Self::CanvasStuck,
        Self::WrongKey,
        Self::OtherOptions,
        Self::MuteWorker,
        Self::DeafWorker,
        Self::NoQueue,
        Self::OtherSignature,
        Self::LedgerDown,
        Self::RedisDown,
        Self::RedisEvicts,
        Self::RepeatedDelivery,
        Self::RepairSuspended,
        Self::Undecided,
        Self::UnreadableRow,
    ];

    /// The kinds that [`troubles`](super::incidents::troubles) reports; the others are found by periodic checks.
    pub(super) const OF_HEALTH: [Self; 2] = [Self::LedgerDown, Self::RedisDown];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::SilentWorker => "silent_worker",
            Self::NoConsumer => "no_consumer",
            Self::OverBudget => "over_budget",
            Self::NoProgress => "no_progress",
            Self::ShortTasks => "short_tasks",
            Self::LargeResults => "large_results",
            Self::LargeWorker => "large_worker",
            Self::OutboxStuck => "outbox_stuck",
            Self::CanvasStuck => "canvas_stuck",
            Self::WrongKey => "wrong_key",
            Self::OtherOptions => "other_options",
            Self::MuteWorker => "mute_worker",
            Self::DeafWorker => "deaf_worker",
            Self::NoQueue => "no_queue",
            Self::OtherSignature => "other_signature",
            Self::LedgerDown => "ledger_down",
            Self::RedisDown => "redis_down",
            Self::RedisEvicts => "redis_evicts",
            Self::RepeatedDelivery => "repeated_delivery",
            Self::RepairSuspended => "repair-suspended",
            Self::Undecided => "undecided",
            Self::UnreadableRow => "unreadable_row",
        }
    }
}
