//! Options of an entry that contradict each other.

use super::canvas::Canvas;
use super::entry::Entry;
use crate::config::{Config, DEFAULT_STORE, Error};

impl Entry {
    /// # Errors
    /// The first two keys that contradict each other, and the harm.
    pub(super) fn check_pairs(&self, known: &[&str]) -> Result<(), Error> {
        if self.split.is_some() && self.unique.is_some() {
            return self.pair("split", "unique", "many tasks cannot be the one task of a key");
        }
        if self.split.is_some() && !self.links.is_empty() {
            let harm = "nobody could say which of many tasks the other one follows: use a canvas";
            return self.pair("split", "link", harm);
        }
        if self.unique.is_some() && self.canvas.as_ref().is_some_and(Canvas::is_group) {
            return self.pair("canvas", "unique", "a group has no single end: make it a chord");
        }
        self.check_upload()?;
        let Some(response) = &self.response else { return Ok(()) };
        if self.message.is_some() && response.replaces_message() {
            return self.pair("message", "response", "both say the answer's message");
        }
        match response.ambiguous(known) {
            Some(name) => {
                self.pair("response", "endpoint", &format!("{{{name}}} names both the request's and the answer's"))
            }
            None => Ok(()),
        }
    }

    fn check_upload(&self) -> Result<(), Error> {
        let Some(upload) = &self.upload else { return Ok(()) };
        let Some(endpoint) = &self.endpoint else {
            return self.pair("upload", "endpoint", "a file is sent to an endpoint, and there is none");
        };
        if self.split.is_some() {
            return self.pair("upload", "split", "a file cannot be cut here: let a task read it, and submit the parts");
        }
        let fields = self.body.as_ref().map_or(&[][..], |body| body.fields.as_slice());
        if let Some(twice) = upload.names.iter().find(|name| fields.contains(name)) {
            return self.pair("upload", "body", &format!("{{{twice}}} would stand for both"));
        }
        match upload.names.iter().find(|name| endpoint.params.contains(name)) {
            Some(twice) => self.pair("upload", "endpoint", &format!("{{{twice}}} would stand for both")),
            None => Ok(()),
        }
    }

    /// # Errors
    /// When its store is not in the configuration.
    pub(super) fn check_store(&self, config: &Config) -> Result<(), Error> {
        let is_there = |name: &str| config.stores.iter().any(|store| store.name == name);
        let refused = |key: &str, name: &str| {
            let message = format!("there is no store {name:?}: write [stores.{name}] with a url");
            Err(Error::value(format!("{}.{key}", self.place), message))
        };
        match &self.upload {
            Some(upload) if !is_there(&upload.store) => refused("upload.store", &upload.store),
            _ if self.offload.is_some() && !is_there(DEFAULT_STORE) => refused("offload", DEFAULT_STORE),
            _ => Ok(()),
        }
    }

    fn pair(&self, first: &str, second: &str, harm: &str) -> Result<(), Error> {
        Err(Error::pair(format!("{}.{first}", self.place), format!("{}.{second}", self.place), harm))
    }
}
