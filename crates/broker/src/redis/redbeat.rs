//! Reads RedBeat's keys for an import; never writes them.

use super::{Error, Link};

/// Keys under the prefix that are not entries: `<prefix>:schedule`, `<prefix>:statics`, `<prefix>:lock`.
const OWN: char = ':';
const PAGE: usize = 500;
/// Maximum number of entries.
const MOST: usize = 100_000;

/// The field `definition` of every entry's hash. `prefix` is RedBeat's `redbeat_key_prefix`, by default `redbeat:`.
pub async fn redbeat_definitions(link: &Link, prefix: &str) -> Result<Vec<String>, Error> {
    let mut definitions = Vec::new();
    let mut cursor = 0_u64;
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(format!("{}*", escaped(prefix))).arg("COUNT").arg(PAGE);
        scan.arg("TYPE").arg("hash");
        let (next, keys): (u64, Vec<String>) = link.call(&scan).await?;
        for key in keys.iter().filter(|key| !key[prefix.len()..].starts_with(OWN)) {
            let found: Option<String> = link.call(redis::cmd("HGET").arg(key).arg("definition")).await?;
            definitions.extend(found);
        }
        if next == 0 || definitions.len() > MOST {
            definitions.sort();
            definitions.dedup();
            return Ok(definitions);
        }
        cursor = next;
    }
}

/// Escapes a prefix, which may contain characters with a meaning in patterns.
fn escaped(prefix: &str) -> String {
    prefix.chars().flat_map(|char| if "*?[]\\".contains(char) { vec!['\\', char] } else { vec![char] }).collect()
}
