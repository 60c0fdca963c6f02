//! Reads file, environment and flags once, and hands them to the configuration.

use super::Common;
use crate::config::{Config, Error, Given, Role};
use crate::telemetry;

/// A flag that stands for a key of the configuration.
pub struct Flag<'a> {
    pub key: &'a str,
    pub name: &'a str,
    pub value: Option<String>,
}

/// Reads the configuration and starts logging as it says.
///
/// # Errors
/// When the configuration is invalid; the message names every place involved.
pub fn configure(role: Role, common: &Common, flags: &[Flag<'_>]) -> anyhow::Result<Config> {
    configure_fitting(role, common, flags, |_| Ok(()))
}

/// As [`configure`], for a role whose configuration must also pass `fits`: all faults are reported at once.
///
/// # Errors
/// As [`configure`].
pub fn configure_fitting(
    role: Role,
    common: &Common,
    flags: &[Flag<'_>],
    fits: impl Fn(&Config) -> Result<(), Error>,
) -> anyhow::Result<Config> {
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let log = Flag { key: "log.filter", name: "log", value: common.log.clone() };
    let said = flags
        .iter()
        .chain([&log])
        .filter_map(|flag| flag.value.clone().map(|value| (flag.key.to_owned(), flag.name.to_owned(), value)));
    let given = Given { file: common.config.clone(), environment, flags: said.collect() };
    let config = Config::load_fitting(role, &given, fits)?;
    telemetry::log(&config.log)?;
    Ok(config)
}
