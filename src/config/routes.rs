//! Which queue a task goes to when neither the request nor the catalog says it.

use std::collections::BTreeMap;

use super::Error;
use super::value::Text;
use crate::task::QueueName;

/// Task name or pattern → queue.
#[derive(Debug, Clone, Default)]
pub struct Routes(pub Vec<(String, QueueName)>);

impl Routes {
    pub(super) fn read(raw: BTreeMap<String, Text>) -> Result<Self, Error> {
        let route = |(pattern, queue): (String, Text)| match QueueName::parse(queue.0) {
            Ok(queue) => Ok((pattern, queue)),
            Err(error) => Err(Error::value(format!("routes.{pattern:?}"), error.to_string())),
        };
        raw.into_iter().map(route).collect::<Result<_, _>>().map(Self)
    }
}
