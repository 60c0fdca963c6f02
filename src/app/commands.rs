//! What the catalog says to the Rust worker: tasks that are executables, and tasks that run in child processes.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::value::RawValue;

use crate::catalog::{Catalog, Defaults, Entry, Recovery};
use celery::task::RetryPolicy;
use celery::task::invalid::Problems;
use taskgate_worker::{Command, Registry, TaskOptions};

/// Adds the catalog's commands to `registry`, and gives its tasks what their entries say of their runs. A message's own limits
/// win over these: the gateway writes them into what it publishes, other clients may not.
///
/// # Errors
/// When an entry's retry policy cannot be read.
pub(super) fn register(catalog: &Catalog, registry: &mut Registry) -> anyhow::Result<()> {
    for entry in catalog.entries() {
        if let [program, arguments @ ..] = &entry.command[..] {
            let command = arguments.iter().fold(Command::new(program), |command, word| command.argument(word));
            apply(entry, registry.command(entry.name.as_str(), command))?;
        }
        if entry.child
            && let Some(options) = registry.options(entry.name.as_str())
        {
            options.child(true);
        }
    }
    Ok(())
}

fn apply(entry: &Entry, options: &mut TaskOptions) -> anyhow::Result<()> {
    let Defaults { soft_time_limit, time_limit, ignore_result, recovery, idempotent, retry, .. } = &entry.defaults;
    let span = |seconds: &f64| Duration::try_from_secs_f64(*seconds).ok();
    if let Some(limit) = soft_time_limit.as_ref().and_then(span) {
        options.soft_time_limit(limit);
    }
    if let Some(limit) = time_limit.as_ref().and_then(span) {
        options.time_limit(limit);
    }
    options.ignore_result(ignore_result.unwrap_or(false));
    // What may run twice is acknowledged at its end, so that it runs again when its worker dies.
    if recovery.map_or(*idempotent, |recovery| recovery == Recovery::Rerun) {
        options.acks_late(true);
    }
    if let Some(policy) = retry {
        options.retry_failures(read_policy(policy).with_context(|| format!("{}.retry", entry.place))?);
    }
    Ok(())
}

fn read_policy(policy: &serde_json::Value) -> anyhow::Result<RetryPolicy> {
    let text = RawValue::from_string(policy.to_string())?;
    let mut problems = Problems::default();
    let read = RetryPolicy::read(&mut problems, &text).filter(|_| problems.found.is_empty());
    read.with_context(|| format!("{:?}", problems.found))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Role};

    #[test]
    fn a_command_of_the_catalog_becomes_a_task() {
        let config = Config::parse(
            Role::Worker,
            "tasks = [{name = 'reports.render', command = ['./render', '--fast'], time_limit = 5}, {name = 'other'}]",
        );
        let mut registry = Registry::new();
        register(&Catalog::compile(&config.unwrap()).unwrap(), &mut registry).unwrap();
        let names: Vec<_> = registry.names().iter().map(ToString::to_string).collect();
        assert_eq!(names, ["reports.render"]);
    }
}
