//! Keys of limits as the API shows them.

use serde::Serialize;
use utoipa::ToSchema;

use celery::task::limit::Rate;
use ledger::KeyState;
use runtime::clock::Time;

/// The state of a key.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Limit)]
pub struct LimitView {
    /// As the caller's submissions name it.
    #[schema(example = "user-7")]
    pub key: String,
    /// The most tasks of the key that may be published and unfinished at once: as changed by hand, else as in its tasks. Null without such
    /// a limit.
    #[schema(example = 2)]
    pub max: Option<u32>,
    /// How many may start per time, likewise.
    #[schema(example = "1/m")]
    pub rate: Option<String>,
    /// No task of the key starts.
    pub paused: bool,
    /// Tasks that were published and have not ended. Only those with a `max` are counted.
    pub under_way: i64,
    /// Tasks that wait for the key, counted up to 10,000 of each kind.
    pub waiting: i64,
    /// When the rate allows the next task to start, if that is not now.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_at: Option<Time>,
    /// When it was changed by hand. Null when only the values of its tasks apply.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub changed_at: Option<Time>,
}

impl LimitView {
    pub fn of(state: KeyState, now: Time) -> Self {
        let (rule, changed_at) = state.rule.map_or((None, None), |(rule, at)| (Some(rule), Some(at)));
        let rule = rule.unwrap_or_default();
        let said = state.interval.map(Rate::of_interval);
        Self {
            key: state.key,
            max: rule.max.or(state.max.filter(|max| *max > 0)),
            rate: rule.rate.as_ref().map(|rate| rate.as_str().to_owned()).or(said),
            paused: rule.paused,
            under_way: state.under_way,
            waiting: state.waiting,
            next_at: state.opens_at.filter(|at| *at > now),
            changed_at,
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Limits)]
pub struct LimitListView {
    pub limits: Vec<LimitView>,
    /// The value for `cursor`; null on the last page.
    pub next: Option<String>,
}
