//! Cursors: a position in a list as an opaque text with a checksum, so that a damaged cursor is refused and not misread.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use ledger::Cursor;

const CHECK_BYTES: usize = 4;

/// The text of a cursor, for `next`.
pub fn write(cursor: Cursor) -> String {
    write_bytes(&cursor.0.to_be_bytes())
}

/// `None` when the text was not written by [`write`].
pub fn read(text: &str) -> Option<Cursor> {
    let number: [u8; 8] = read_bytes(text)?.try_into().ok()?;
    Some(Cursor(i64::from_be_bytes(number)))
}

/// A cursor for lists that are ordered by name.
pub fn write_name(name: &str) -> String {
    write_bytes(name.as_bytes())
}

/// `None` when the text was not written by [`write_name`].
pub fn read_name(text: &str) -> Option<String> {
    String::from_utf8(read_bytes(text)?).ok()
}

fn write_bytes(place: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode([place, &check(place)].concat())
}

fn read_bytes(text: &str) -> Option<Vec<u8>> {
    let mut bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let sum = bytes.split_off(bytes.len().checked_sub(CHECK_BYTES)?);
    (sum == check(&bytes)).then_some(bytes)
}

/// A checksum against accidents and guesses; forgery does not matter, because a cursor grants no access.
fn check(place: &[u8]) -> [u8; CHECK_BYTES] {
    let hash = Sha256::new().chain_update(b"taskgate cursor").chain_update(place).finalize();
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
