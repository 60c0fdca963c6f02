//! Every problem that an answer can name.

use std::fmt::Write as _;

use taskgate::edge::slugs;

use super::{cell, hold_current};

#[test]
fn the_page_of_problems_is_current() {
    let mut page = String::from(
        "# Problems\n\nEvery refusal is an `application/problem+json` document (RFC 9457). Its `type` is `/problems/NAME`; the gateway \
         serves a page there that says the same as this table. A name keeps its meaning for ever.\n\n\
         | name | status | why | what to do |\n|---|---|---|---|\n",
    );
    for slug in slugs::ALL {
        let (cause, cure) = (cell(slug.cause), cell(slug.cure));
        let _ = writeln!(page, "| `{}` | {} | {cause} | {cure} |", slug.name, slug.status.as_u16());
    }
    hold_current("problems.md", &page);
}
