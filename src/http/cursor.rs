//! Cursors: a place in a list as an opaque text with a check sum, so that a mangled one is refused and not misread.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use crate::store::Cursor;

const CHECK_BYTES: usize = 4;

/// The text for `next`.
pub fn write(cursor: Cursor) -> String {
    let number = cursor.0.to_be_bytes();
    URL_SAFE_NO_PAD.encode([&number[..], &check(&number)].concat())
}

/// `None` when the text was not written by [`write`].
pub fn read(text: &str) -> Option<Cursor> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (number, sum) = bytes.split_at_checked(8)?;
    let number: [u8; 8] = number.try_into().ok()?;
    (sum == check(&number)).then(|| Cursor(i64::from_be_bytes(number)))
}

/// Against accidents and guesses, not against forgers: a cursor grants nothing.
fn check(number: &[u8]) -> [u8; CHECK_BYTES] {
    let hash = Sha256::new().chain_update(b"taskgate cursor").chain_update(number).finalize();
    std::array::from_fn(|index| hash[index])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_cursor_is_refused() {
        let text = write(Cursor(7));
        assert_eq!(read(&text), Some(Cursor(7)));
        for index in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[index] = if changed[index] == b'x' { b'y' } else { b'x' };
            assert_eq!(read(&String::from_utf8(changed).unwrap()), None);
        }
        assert_eq!(read(""), None);
        assert_eq!(read("tampered"), None);
    }
}
