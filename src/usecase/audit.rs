//! The audit log: a row for each control call, opened with the act and sealed with its verdict.

use std::future::Future;

use super::Gateway;
use ledger::{Act, Error, NewAct, Page, Seal, audit};

impl Gateway {
    /// A page of rows, newest first, and where the next page begins.
    pub async fn acts(&self, page: &Page) -> Result<(Vec<Act>, Option<i64>), Error> {
        let mut acts = self.ledger.acts(page.after.map(|after| after.0), page.limit.saturating_add(1)).await?;
        let limit = usize::try_from(page.limit).unwrap_or(usize::MAX);
        let more = acts.len() > limit;
        acts.truncate(limit);
        let next = acts.last().filter(|_| more).map(|act| act.no);
        Ok((acts, next))
    }

    /// Opens the row of an act outside of the ledger, before the act, so that there is no act without a row.
    pub async fn open_act(&self, act: &NewAct) -> Result<(), Error> {
        self.ledger.open_act(act).await
    }

    pub async fn seal_act(&self, act: &NewAct, seal: &Seal) -> Result<(), Error> {
        self.ledger.seal_act(act, seal).await
    }
}

/// Runs `work` as this act: the row is opened in the same commit as the changes of `work` in the ledger.
pub async fn within<F: Future>(act: NewAct, work: F) -> F::Output {
    audit::within(act, work).await
}
