//! The recovery policy of a catalog entry.

/// What happens to a task whose worker died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    Rerun,
    Report,
}

impl Recovery {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rerun => "rerun",
            Self::Report => "report",
        }
    }
}
