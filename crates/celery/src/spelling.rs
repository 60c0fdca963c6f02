//! Finds the known word most similar to an unknown one, so that an error can suggest it.

/// The most similar word in `known`, if it may be a misspelling: at most two edits, or a third of the word.
pub fn nearest<'a, I, S>(word: &str, known: I) -> Option<&'a str>
where
    I: IntoIterator<Item = &'a S>,
    S: AsRef<str> + ?Sized + 'a,
{
    let allowed = (word.chars().count() / 3).max(2);
    known
        .into_iter()
        .map(|candidate| (distance(word, candidate.as_ref()), candidate.as_ref()))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edits (insert, delete, replace) between two words, ignoring case. Only the first 100 characters count, so that a hostile
/// key costs little.
pub fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().take(100).flat_map(char::to_lowercase).collect();
    let right: Vec<char> = right.chars().take(100).flat_map(char::to_lowercase).collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_pen_is_understood() {
        assert_eq!(nearest("lisen", &["hosts", "listen"]), Some("listen"));
        assert_eq!(nearest("Qeue", &["queue", "priority"]), Some("queue"));
        assert_eq!(nearest("ignoreResult", &["ignore_result", "eta"]), Some("ignore_result"));
    }

    #[test]
    fn another_word_is_not_guessed() {
        assert_eq!(nearest("elephant", &["queue", "priority"]), None);
    }
}
