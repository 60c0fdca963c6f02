//! The help of `taskgate`: lists its commands in groups.

use clap::Command;

/// The groups. Each command is in exactly one.
const GROUPS: [(&str, &[&str]); 4] = [
    ("Run it", &["dev", "serve", "worker", "migrate"]),
    ("Tasks", &["submit", "result", "watch", "revoke", "retry", "explain", "tasks", "events", "dead-letters"]),
    ("The fleet", &["top", "queues", "workers", "schedules", "limits", "webhooks", "incidents", "audit"]),
    (
        "Set it up and look after it",
        &["check", "token", "password", "inbox", "export", "healthcheck", "openapi", "completions"],
    ),
];

/// The command with a help text that lists the groups.
pub fn grouped(command: Command) -> Command {
    let lists = GROUPS.map(|(title, names)| {
        let known = names.iter().filter_map(|name| command.find_subcommand(name));
        let lines = known.map(|found| format!("  {:<13} {}", found.get_name(), found.get_about().unwrap_or_default()));
        format!("{title}:\n{}", lines.collect::<Vec<_>>().join("\n"))
    });
    let template = format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{}\n\nOptions:\n{{options}}{{after-help}}",
        lists.join("\n\n")
    );
    command.help_template(template)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::super::Cli;
    use super::*;

    #[test]
    fn every_command_stands_in_one_group() {
        let command = Cli::command();
        for found in command.get_subcommands().filter(|found| !found.is_hide_set()) {
            let times = GROUPS.iter().flat_map(|(_, names)| *names).filter(|name| **name == found.get_name()).count();
            assert_eq!(times, 1, "{} stands in {times} groups of the help", found.get_name());
        }
        let help = grouped(command).render_help().to_string();
        assert!(help.contains("The fleet:\n  top") && help.contains("--config"), "{help}");
    }
}
