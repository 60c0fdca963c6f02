//! The notice boards that the sample crawl reads: fixed HTML list pages. Pure.

use std::fmt::Write as _;

/// Each board's name in URLs, and its title on the page.
const BOARDS: [(&str, &str); 3] = [("volunteer", "봉사 공지"), ("job", "취업 공지"), ("scholarship", "장학금 공지")];
/// List pages of each board.
pub const PAGES: u32 = 3;
/// Notices on a page.
pub const PER_PAGE: u32 = 10;

/// Page `number` (from 1) of the board `slug`; `None` where there is none.
pub fn page(slug: &str, number: u32) -> Option<String> {
    let (slug, name) = BOARDS.into_iter().find(|(known, _)| *known == slug)?;
    if !(1..=PAGES).contains(&number) {
        return None;
    }
    let mut html = format!(
        "<!doctype html>\n<html lang=\"ko\"><head><meta charset=\"utf-8\"><title>{name} {number}</title></head>\n\
         <body><main data-pages=\"{PAGES}\"><ul>\n"
    );
    for item in (number - 1) * PER_PAGE + 1..=number * PER_PAGE {
        writeln!(
            html,
            "  <li class=\"notice\" data-id=\"{slug}-{item}\"><a href=\"/sample-site/{slug}/items/{item}\">{name} {item}</a></li>"
        )
        .expect("a String takes every write");
    }
    html.push_str("</ul></main></body></html>\n");
    Some(html)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_board_has_its_pages_and_no_more() {
        for (slug, name) in BOARDS {
            for number in 1..=PAGES {
                let html = page(slug, number).expect("a page");
                assert_eq!(html.matches("class=\"notice\"").count(), PER_PAGE as usize);
                assert!(html.contains(name));
            }
            assert_eq!(page(slug, 0), None);
            assert_eq!(page(slug, PAGES + 1), None);
        }
        assert_eq!(page("sports", 1), None);
    }
}
