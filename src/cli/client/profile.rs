//! Profiles: gateways that a person calls often, by name, in `~/.config/taskgate/profiles.toml`.
//!
//! ```toml
//! [default]
//! url = "http://127.0.0.1:8000"
//! [production]
//! url = "https://gate.example"
//! token = "tg_…"
//! ca = "/etc/ssl/private-ca.pem"
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::connection::Failure;

/// The section that is used when none is named.
const DEFAULT: &str = "default";

/// The settings of a profile; flags and variables override them.
#[derive(Debug, Default, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    pub url: Option<String>,
    pub token: Option<String>,
    pub ca: Option<PathBuf>,
}

/// Loads the profile of this name, else the default one, else an empty one.
///
/// # Errors
/// When the file cannot be parsed, or has no section of the given name.
pub fn load(name: Option<&str>) -> Result<Profile, Failure> {
    let Some(path) = place() else { return absent(name, "no home directory is known") };
    match std::fs::read_to_string(&path) {
        Ok(text) => chosen(&text, &path, name),
        Err(_) => absent(name, &format!("{} cannot be read", path.display())),
    }
}

fn absent(name: Option<&str>, why: &str) -> Result<Profile, Failure> {
    name.map_or_else(
        || Ok(Profile::default()),
        |name| Err(Failure::Usage(format!("there is no profile {name}: {why}"))),
    )
}

/// The path in `TASKGATE_PROFILES`, or the usual one in the user's settings.
fn place() -> Option<PathBuf> {
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let usual = || from("XDG_CONFIG_HOME").or_else(|| Some(from("HOME")?.join(".config")));
    from("TASKGATE_PROFILES").or_else(|| Some(usual()?.join("taskgate/profiles.toml")))
}

fn chosen(text: &str, path: &Path, name: Option<&str>) -> Result<Profile, Failure> {
    let mut found: BTreeMap<String, Profile> =
        toml::from_str(text).map_err(|error| Failure::Usage(format!("{}: {}", path.display(), error.message())))?;
    match (found.remove(name.unwrap_or(DEFAULT)), name) {
        (Some(profile), _) => Ok(profile),
        (None, None) => Ok(Profile::default()),
        (None, Some(name)) => {
            let known: Vec<String> = found.into_keys().collect();
            Err(Failure::Usage(format!("{} has no profile {name}; it has {}", path.display(), known.join(", "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_chosen_by_its_name() {
        let text = "[default]\nurl = 'http://a'\n[live]\nurl = 'https://b'\ntoken = 't'\n";
        let read = |name| chosen(text, Path::new("p.toml"), name);
        assert_eq!(read(None).unwrap().url.as_deref(), Some("http://a"));
        assert_eq!(read(Some("live")).unwrap().token.as_deref(), Some("t"));
        assert!(read(Some("other")).unwrap_err().to_string().contains("default, live"));
        assert!(chosen("[x]\nurll = 'a'", Path::new("p.toml"), Some("x")).is_err());
        assert_eq!(chosen("", Path::new("p.toml"), None).unwrap(), Profile::default());
    }
}
