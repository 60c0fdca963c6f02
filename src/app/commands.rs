//! Passes the catalog's settings to the Rust worker: tasks that are executables, and tasks that run in child processes.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::value::RawValue;

use crate::catalog::{Catalog, Defaults, Entry, NamedCall, OptionWords, Process, Recovery};
use celery::task::RetryPolicy;
use celery::task::invalid::Problems;
use taskgate_worker::{Bounds, Command, Dashes, Registry, TaskOptions};

/// No entry has more positional arguments than this.
const MOST_OWNED: usize = 256;

/// Adds the catalog's commands to `registry`, and gives its tasks the limits and policies of their entries. Limits in a message
/// override these: the gateway writes them into each message, but other clients may not.
///
/// # Errors
/// When an entry's retry policy cannot be read.
pub(super) fn register(catalog: &Catalog, registry: &mut Registry) -> anyhow::Result<()> {
    for entry in catalog.entries() {
        if let [program, arguments @ ..] = &entry.command[..] {
            let command = arguments.iter().fold(Command::new(program), |command, word| command.argument(word));
            let command = confined(entry, command).judge(judge(catalog, entry.name.as_str()));
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

/// Applies the entry's limits on the process.
fn confined(entry: &Entry, mut command: Command) -> Command {
    let Process { environment, pass, directory, memory, output, processes, options } = &entry.process;
    for (name, value) in environment {
        command = command.environment(name, value);
    }
    command = pass.iter().fold(command, |command, name| command.pass(name));
    if let Some(directory) = directory {
        command = command.directory(directory);
    }
    let usual = Bounds::default();
    command = command.bounds(Bounds {
        memory: memory.unwrap_or(usual.memory),
        output: output.unwrap_or(usual.output),
        processes: processes.unwrap_or(usual.processes),
    });
    // Arguments that the entry itself fixes may begin with a dash.
    command = (0..MOST_OWNED).filter(|at| entry.owns(*at)).fold(command, Command::owned);
    command.dashes(match options {
        OptionWords::Refuse => Dashes::Refuse,
        OptionWords::Separate => Dashes::Separate,
        OptionWords::Allow => Dashes::Allow,
    })
}

/// Checks arguments by the rules of this task's entries: calls may bypass the gateway, or contain the result of another task.
fn judge(catalog: &Catalog, name: &str) -> impl Fn(&RawValue, &RawValue) -> Result<(), String> + Send + Sync + 'static {
    let (entries, name): (Vec<Arc<Entry>>, _) = (catalog.entries_of(name).cloned().collect(), name.to_owned());
    move |args, kwargs| {
        let call =
            NamedCall { name: &name, args, kwargs, queue: None, soft_time_limit: None, time_limit: None, fed: false };
        let mut first = None;
        for entry in &entries {
            match entry.admit(call) {
                Ok(_) => return Ok(()),
                Err(wrong) => drop(first.get_or_insert(wrong)),
            }
        }
        let told = first.iter().flatten().map(|problem| format!("{} {}", problem.pointer, problem.detail));
        Err(told.collect::<Vec<_>>().join("; "))
    }
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
    // A task that may run twice is acknowledged late, so that it runs again when its worker dies.
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
