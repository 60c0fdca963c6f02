//! Tokens as an administrator sees them: who may call, until when, and who called last. Only hashes are kept, so nothing here is secret.

use super::Gateway;
use ledger::{Error, Token};
use runtime::clock;

/// Newest ones that are shown.
const LISTED: usize = 1_000;

impl Gateway {
    /// Those that were made by hand, the revoked ones too, newest first; sessions of people are not among them.
    pub async fn tokens(&self) -> Result<Vec<Token>, Error> {
        let mut tokens = self.ledger.tokens().await?;
        tokens.retain(|token| token.person.is_none());
        tokens.truncate(LISTED);
        Ok(tokens)
    }

    /// `None` when no token of this id is left to revoke.
    pub async fn revoke_token(&self, id: &str) -> Result<Option<Token>, Error> {
        if !self.tokens().await?.iter().any(|token| token.id == id) {
            return Ok(None);
        }
        self.ledger.revoke_token(id, clock::now()).await
    }
}
