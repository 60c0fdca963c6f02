//! Reads the schedules of other schedulers, for an import.

/// The schedules of another beat, by the URL of its store. `prefix` is RedBeat's key prefix.
///
/// # Errors
/// When the URL is not understood, or the store does not answer.
pub async fn foreign_schedules(
    url: &str,
    prefix: &str,
    timezone: Option<&str>,
) -> anyhow::Result<Vec<schedule::import::Imported>> {
    let now = runtime::clock::now();
    if let Some(path) = url.strip_prefix("sqlite://") {
        return Ok(schedule::import::django::read(&ledger::sqlite::django::periodic_tasks(path).await?, timezone, now));
    }
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        return Ok(schedule::import::django::read(
            &ledger::postgres::django::periodic_tasks(url).await?,
            timezone,
            now,
        ));
    }
    let link = broker::Link::new(broker::LinkConfig::new(url))?;
    Ok(schedule::import::redbeat::read(&broker::redbeat_definitions(&link, prefix).await?, timezone, now))
}
