//! Tokens as an administrator sees them: their names, their ends and their last uses. Only hashes are stored, so nothing here is secret.

use super::Gateway;
use ledger::{Error, Token};
use runtime::clock;

/// The most tokens that are listed, newest first.
const LISTED: i64 = 1_000;

impl Gateway {
    /// Tokens that were created by hand, including revoked ones, newest first; sessions of people are left out.
    pub async fn tokens(&self) -> Result<Vec<Token>, Error> {
        self.ledger.tokens(LISTED).await
    }

    /// `None` when no token of this id is left to revoke.
    pub async fn revoke_token(&self, id: &str) -> Result<Option<Token>, Error> {
        if self.ledger.token(id).await?.is_none() {
            return Ok(None);
        }
        self.ledger.revoke_token(id, clock::now()).await
    }
}
