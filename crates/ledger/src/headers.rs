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
    if headers.chars().any(is_code) {
        return format!("{VERBATIM}{headers}");
    }
    let mut packed = headers.to_owned();
    for (code, text) in USUAL {
        replace_one(&mut packed, text, code);
    }
    replace(&packed, id, ID, NAME, name)
}

fn is_code(character: char) -> bool {
    character.is_control() && !matches!(character, '\t' | '\n' | '\r')
}

/// Replaces a text, which occurs at most once.
fn replace_one(packed: &mut String, text: &str, code: char) {
    if let Some(at) = packed.find(text) {
        packed.replace_range(at..at + text.len(), code.encode_utf8(&mut [0; 4]));
    }
}

fn replace(packed: &str, id: &str, id_code: char, name_code: char, name: &str) -> String {
    let mut out = String::with_capacity(packed.len());
    let mut rest = packed;
    while let Some(next) = rest.chars().next() {
        if !id.is_empty() && rest.starts_with(id) {
            out.push(id_code);
            rest = &rest[id.len()..];
        } else if !name.is_empty() && rest.starts_with(name) {
            out.push(name_code);
            rest = &rest[name.len()..];
        } else {
            out.push(next);
            rest = &rest[next.len_utf8()..];
        }
    }
    out
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
