//! A secret text: a prefix that names its type, then 256 random bits. Only its holder has it; the ledger has its hash.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use ledger::SecretHash;
use runtime::clock;

/// A prefix that people and secret scanners recognise.
pub const TOKEN_PREFIX: &str = "tg_";
pub const TICKET_PREFIX: &str = "tgt_";
pub const SESSION_PREFIX: &str = "tgs_";

pub struct Secret {
    prefix: &'static str,
    bits: [u8; 32],
}

impl Secret {
    pub fn new(prefix: &'static str) -> Self {
        Self { prefix, bits: clock::secret() }
    }

    /// `None` when the text does not have the form of a secret.
    pub fn read(prefix: &'static str, text: &str) -> Option<Self> {
        let bits = URL_SAFE_NO_PAD.decode(text.strip_prefix(prefix)?).ok()?;
        Some(Self { prefix, bits: bits.try_into().ok()? })
    }

    pub fn hash(&self) -> SecretHash {
        let mut hash = Sha256::new();
        hash.update(self.prefix);
        hash.update(self.bits);
        hash.finalize().into()
    }

    /// The text. It is shown only once.
    pub fn reveal(&self) -> String {
        format!("{}{}", self.prefix, URL_SAFE_NO_PAD.encode(self.bits))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}***", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_reads_back_and_no_two_are_alike() {
        let (first, second) = (Secret::new(TOKEN_PREFIX), Secret::new(TOKEN_PREFIX));
        assert_ne!(first.reveal(), second.reveal());
        assert_eq!(first.reveal().len(), 3 + 43);
        assert_eq!(Secret::read(TOKEN_PREFIX, &first.reveal()).unwrap().hash(), first.hash());
        assert!(!format!("{first:?}").contains(&first.reveal()[3..]));
    }

    #[test]
    fn what_cannot_be_one_is_not_looked_up() {
        let secret = Secret::new(TOKEN_PREFIX).reveal();
        for text in ["", "tg_", "tg_abc", &secret[3..], &format!("{secret}A"), &format!("tgt_{}", &secret[3..])] {
            assert!(Secret::read(TOKEN_PREFIX, text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_ticket_is_no_token() {
        let ticket = Secret::new(TICKET_PREFIX);
        let as_token = Secret { prefix: TOKEN_PREFIX, bits: ticket.bits };
        assert_ne!(ticket.hash(), as_token.hash());
    }
}
