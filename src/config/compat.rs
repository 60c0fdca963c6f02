//! `[compat]`: APIs for scripts that were written for other tools.

use serde::Deserialize;

use super::value::Text;
use super::{Error, Said};

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawCompat {
    flower: Option<Text>,
}

#[derive(Debug, Clone, Default)]
pub struct Compat {
    /// Path under which Flower 2's HTTP API is served, such as `"/flower"`. Default none. See [From Flower](../tutorials/flower.md).
    pub flower: Option<String>,
}

impl Compat {
    pub(super) fn read(raw: RawCompat, said: &Said) -> Result<Self, Error> {
        let flower = raw.flower.map(|text| text.0.trim_end_matches('/').to_owned());
        let fits = |path: &str| {
            path.strip_prefix('/').is_some_and(|rest| !rest.is_empty())
                && path.split('/').skip(1).all(|part| !part.is_empty())
                && path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte))
                && !["/v1", "/dashboard", "/swagger-ui", "/problems", "/result"].contains(&path)
                && !path.starts_with("/v1/")
        };
        match &flower {
            Some(path) if !fits(path) => {
                let message = format!("{path:?} is not a path below the root: write a path like \"/flower\"");
                Err(Error::value(said.place("compat.flower"), message))
            }
            Some(_) | None => Ok(Self { flower }),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Role};

    #[test]
    fn the_door_has_a_path_of_its_own() {
        let read = |path: &str| {
            Config::parse(Role::Dev, &format!("compat.flower = '{path}'")).map(|config| config.compat.flower)
        };
        assert_eq!(read("/flower/").unwrap().as_deref(), Some("/flower"));
        for wrong in ["flower", "/", "/a//b", "/v1", "/v1/x", "/{x}", "/a b"] {
            assert!(read(wrong).unwrap_err().to_string().contains("compat.flower"), "{wrong}");
        }
    }
}
