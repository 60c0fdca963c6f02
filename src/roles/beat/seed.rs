//! Copies the configuration's `[[schedules]]` into the table of schedules, each name once. After that only the table counts, and the
//! start logs differences between the two.

use tracing::{info, warn};

use crate::config::{Error, RawSchedule};
use crate::usecase::Gateway;
use crate::usecase::schedules::new_schedule;
use celery::task::Invalid;
use celery::task::signature::Limits;
use ledger::Created;
use runtime::clock;
use schedule::definition::{Definition, check_name};
use schedule::document::Document;

/// Checks the entries before anything starts.
///
/// # Errors
/// The first invalid entry, with all its mistakes.
pub fn check(seeds: &[RawSchedule], limits: Limits) -> Result<(), Error> {
    for (index, raw) in seeds.iter().enumerate() {
        let refuse = |places: &[Invalid]| Error::value(format!("schedules[{index}] ({})", raw.name), said(places));
        check_name(&raw.name).map_err(|detail| refuse(&[Invalid { pointer: "/name".to_owned(), detail }]))?;
        let document = Document::parse(&raw.document()).map_err(|found| refuse(&found))?;
        Definition::parse(document.rest.get(), limits).map_err(|found| refuse(&found))?;
    }
    Ok(())
}

fn said(places: &[Invalid]) -> String {
    let place =
        |problem: &Invalid| format!("{} {}", problem.pointer.trim_start_matches('/').replace('/', "."), problem.detail);
    places.iter().map(place).collect::<Vec<_>>().join("; ")
}

/// Copies the entries, which must have passed [`check`].
///
/// # Errors
/// When the ledger fails; entries that were copied stay.
pub async fn seed(gateway: &Gateway, seeds: &[RawSchedule]) -> Result<(), ledger::Error> {
    for raw in seeds {
        let Ok(document) = Document::parse(&raw.document()) else { continue };
        let Ok(definition) = Definition::parse(document.rest.get(), gateway.signature_limits()) else { continue };
        let schedule = new_schedule(&raw.name, &document, &definition, clock::now());
        match gateway.ledger.create_schedule(&schedule, true).await? {
            Created::Done => info!(schedule = raw.name, "seeded schedule {}", raw.name),
            Created::SeededBefore | Created::NameTaken => compare(gateway, &raw.name, &document).await?,
        }
    }
    Ok(())
}

async fn compare(gateway: &Gateway, name: &str, document: &Document) -> Result<(), ledger::Error> {
    match gateway.ledger.schedule(name).await? {
        None => info!(schedule = name, "schedule {name} of the configuration was deleted over HTTP and stays deleted"),
        Some(stored) if stored.paused != document.paused || !same(stored.document.get(), document.rest.get()) => {
            warn!(
                schedule = name,
                "schedule {name} differs from the configuration: the timetable counts, edit it over HTTP"
            );
        }
        Some(_) => {}
    }
    Ok(())
}

/// Whether two documents are equal, apart from the order of members and the notation of numbers.
fn same(left: &str, right: &str) -> bool {
    let parse = |text| serde_json::from_str::<serde_json::Value>(text).ok();
    parse(left) == parse(right)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Role};

    fn checked(toml: &str) -> Result<(), String> {
        let config = Config::parse(Role::Dev, toml).map_err(|error| error.to_string())?;
        check(&config.schedules, Limits::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn an_entry_is_a_schedule_with_times_in_quotes_or_without() {
        let entry = "[[schedules]]\nname = 'a'\ntask = 't'\nkwargs = { deep = [1] }\nat = 2099-01-01T00:00:00Z\n";
        assert_eq!(checked(entry), Ok(()));
    }

    #[test]
    fn a_wrong_entry_stops_the_start_and_says_where() {
        let error = checked("[[schedules]]\nname = 'a'\ntask = 't'\ncron = '0 99 * * *'\n").unwrap_err();
        assert_eq!(error, "schedules[0] (a): cron hour: 99 is out of range: allowed are 0-23");
        let twice = "[[schedules]]\nname = 'a'\ntask = 't'\nevery = 5\n";
        assert!(checked(&format!("{twice}{twice}")).unwrap_err().contains("both have this name"));
    }
}
