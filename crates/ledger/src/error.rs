//! How the ledger fails.

/// Absence is not here: it is `Ok(None)`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection, no answer in time, server starting or stopping: the same call may succeed later.
    #[error("the ledger does not answer")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A row that breaks the schema's own rules.
    #[error("ledger row {row} has a corrupt {table}.{column}")]
    Corrupt { table: &'static str, column: &'static str, row: String },
    /// Anything else the database refused; repeating it would not help.
    #[error("the ledger refused a statement")]
    Refused(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the ledger's schema could not be brought up to date")]
    Migration(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A ledger of a release that this one does not read, and what can be done with it.
#[derive(Debug, thiserror::Error)]
#[error("the ledger was made by an earlier version, whose tables this one does not read: {advice}")]
pub(crate) struct OldShape {
    pub advice: &'static str,
}

impl Error {
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}
