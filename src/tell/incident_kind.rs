//! The kinds of incidents, with the words that the API, the metrics and the documents have for them.

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    SilentWorker,
    NoConsumer,
    OverBudget,
    OutboxStuck,
    CanvasStuck,
    /// A queue's key holds something else than a list.
    WrongKey,
    /// The fleet's transport options are not those of `[broker]`.
    OtherOptions,
    /// A worker sends no events.
    MuteWorker,
    /// A worker answers nothing.
    DeafWorker,
    /// The broker has no queue of this name.
    NoQueue,
    /// Workers have different signatures of a task, or one that its catalog entry does not fit.
    OtherSignature,
    LedgerDown,
    RedisDown,
    RedisEvicts,
    /// Found by a reconciler: a task that is delivered again and again.
    RepeatedDelivery,
    /// So many tasks would run again at once that none does.
    RepairSuspended,
    /// What became of a task is not known.
    Undecided,
}

impl Kind {
    pub const ALL: [Self; 17] = [
        Self::SilentWorker,
        Self::NoConsumer,
        Self::OverBudget,
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
    ];

    /// What [`troubles`](super::incidents::troubles) tells; the others are found by looking.
    pub(super) const OF_HEALTH: [Self; 2] = [Self::LedgerDown, Self::RedisDown];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::SilentWorker => "silent_worker",
            Self::NoConsumer => "no_consumer",
            Self::OverBudget => "over_budget",
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
        }
    }
}
