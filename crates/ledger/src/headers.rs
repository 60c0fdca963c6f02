//! Packs a message's headers by leaving out what the task's row contains anyway: half a kilobyte becomes some tens of bytes.
//!
//! The id, the name and the usual texts between the values are each replaced by a control character; JSON texts contain none except
//! tab and line breaks, which are not used. Unpacking gives the same bytes. A text that contains such a character anyway is stored
//! unchanged after a mark.

/// Stands for the task's id.
const ID: char = '\u{1}';
/// Stands for the task's name.
const NAME: char = '\u{2}';
/// Marks that the following text is not packed.
const VERBATIM: char = '\u{1f}';

/// Longer texts first, because a text may be part of another. The codes are stored, so new texts go to the end, with new codes.
const USUAL: [(char, &str); 7] = [
    (
        '\u{3}',
        "\", \"shadow\": null, \"eta\": null, \"expires\": null, \"group\": null, \"group_index\": null, \"retries\": 0, \
         \"timelimit\": [null, null], \"root_id\": \"",
    ),
    ('\u{4}', ", \"replaced_task_nesting\": 0, \"stamped_headers\": null, \"stamps\": {}}"),
    ('\u{5}', "\", \"parent_id\": null, \"argsrepr\": \""),
    ('\u{6}', "\", \"ignore_result\": false"),
    ('\u{7}', "{\"lang\": \"py\", \"task\": \""),
    ('\u{8}', "\", \"kwargsrepr\": \""),
    ('\u{b}', "\", \"origin\": \""),
];

pub(crate) fn pack(headers: &str, id: &str, name: &str) -> String {
    // Counting is quicker than looking at each character, and usually there is none.
    let unusual = headers.bytes().filter(|byte| !(b' '..=b'~').contains(byte)).count();
    if unusual > 0 && headers.chars().any(is_code) {
        return format!("{VERBATIM}{headers}");
    }
    let mut packed = String::with_capacity(headers.len() / 4);
    let mut rest = headers;
    while let Some(next) = rest.chars().next() {
        let (written, length) = code_at(rest, id, name).unwrap_or((next, next.len_utf8()));
        packed.push(written);
        rest = &rest[length..];
    }
    packed
}

fn is_code(character: char) -> bool {
    character.is_control() && !matches!(character, '\t' | '\n' | '\r')
}

/// The code of the text that `rest`, which is not empty, begins with, and the text's length.
fn code_at(rest: &str, id: &str, name: &str) -> Option<(char, usize)> {
    // Most places differ in the first byte already.
    let begins = |text: &str| rest.as_bytes().first() == text.as_bytes().first() && rest.starts_with(text);
    if begins(id) {
        return Some((ID, id.len()));
    }
    if begins(name) {
        return Some((NAME, name.len()));
    }
    USUAL.iter().find(|(_, text)| begins(text)).map(|(code, text)| (*code, text.len()))
}

pub(crate) fn unpack(packed: &str, id: &str, name: &str) -> String {
    if let Some(headers) = packed.strip_prefix(VERBATIM) {
        return headers.to_owned();
    }
    let mut out = String::with_capacity(packed.len() + 512);
    for character in packed.chars() {
        match character {
            ID => out.push_str(id),
            NAME => out.push_str(name),
            other => match USUAL.iter().find(|(code, _)| *code == other) {
                Some((_, text)) => out.push_str(text),
                None => out.push(other),
            },
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID_TEXT: &str = "0199a2b3-0000-7000-8000-000000000000";

    fn headers() -> String {
        format!(
            "{{\"lang\": \"py\", \"task\": \"tasks.add\", \"id\": \"{ID_TEXT}\", \"shadow\": null, \"eta\": null, \"expires\": null, \
             \"group\": null, \"group_index\": null, \"retries\": 0, \"timelimit\": [null, null], \"root_id\": \"{ID_TEXT}\", \
             \"parent_id\": null, \"argsrepr\": \"(1, 2)\", \"kwargsrepr\": \"{{}}\", \"origin\": \"gen1@봉사\", \
             \"ignore_result\": false, \"replaced_task_nesting\": 0, \"stamped_headers\": null, \"stamps\": {{}}}}"
        )
    }

    #[test]
    fn what_is_packed_reads_back_and_is_short() {
        let packed = pack(&headers(), ID_TEXT, "tasks.add");
        assert_eq!(unpack(&packed, ID_TEXT, "tasks.add"), headers());
        assert!(packed.len() < 60, "{} bytes: {packed:?}", packed.len());
    }

    #[test]
    fn any_text_reads_back() {
        for text in ["", "{}", "{\"a\":\n\t1}", "tasks.addtasks.add", "\u{1}\u{2}\u{1f}", "\u{7f}", "봉사 tasks.ad"] {
            assert_eq!(unpack(&pack(text, ID_TEXT, "tasks.add"), ID_TEXT, "tasks.add"), text);
        }
        assert_eq!(unpack(&pack("\u{1f}", "", ""), "", ""), "\u{1f}");
    }

    #[test]
    fn an_id_that_is_part_of_the_name_is_no_trouble() {
        let text = "{\"task\": \"a\", \"id\": \"aa\"}";
        assert_eq!(unpack(&pack(text, "aa", "a"), "aa", "a"), text);
        assert_eq!(unpack(&pack(text, "a", "aa"), "a", "aa"), text);
    }
}
