//! Inspect and control commands by Celery's own names, and the list of workers.

use std::time::Duration;

use super::Gateway;
use crate::reconcile::workers::is_online;
use broker::{Replies, Request};
use celery::commands::{self, Command};
use celery::task::Invalid;
use celery::task::json::Fields;
use ledger::Worker;
use runtime::clock;

/// Celery's own default.
pub const DEFAULT_PATIENCE: Duration = Duration::from_secs(1);
pub const MAX_PATIENCE: Duration = Duration::from_secs(30);

/// A request to workers, as the client sent it.
#[derive(Debug, Clone)]
pub struct ControlRequest {
    pub command: String,
    /// A JSON object.
    pub arguments: String,
    /// Node names; `None` for all.
    pub destination: Option<Vec<String>>,
    pub patience: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("there is no command {name}")]
    UnknownCommand { name: String, nearest: Option<String> },
    #[error("the arguments do not fit")]
    Invalid(Vec<Invalid>),
    #[error("Redis cannot be reached")]
    Redis(#[from] broker::Error),
    #[error("the ledger failed")]
    Ledger(#[from] ledger::Error),
}

impl Gateway {
    /// Sends an inspect command and gathers the replies.
    pub async fn inspect(&self, request: ControlRequest) -> Result<Replies, ControlError> {
        self.ask_workers(request, true).await
    }

    /// Sends a control command and gathers the replies.
    pub async fn control(&self, request: ControlRequest) -> Result<Replies, ControlError> {
        self.ask_workers(request, false).await
    }

    async fn ask_workers(&self, request: ControlRequest, inspects: bool) -> Result<Replies, ControlError> {
        let command = command(&request.command, inspects)?;
        let arguments = Fields::parse(&request.arguments).map_err(|_| not_an_object())?;
        let wrong = command.check(&arguments, "/arguments");
        if !wrong.is_empty() {
            return Err(ControlError::Invalid(wrong));
        }
        let told = Request::to_all(command.name, &request.arguments).to(request.destination);
        if !command.replies {
            self.broker.tell(&told).await?;
            return Ok(Replies::new());
        }
        Ok(self.broker.ask(&told, request.patience.min(MAX_PATIENCE)).await?)
    }

    /// All workers of the last day, with whether each is online now.
    pub async fn workers(&self) -> Result<Vec<(Worker, bool)>, ledger::Error> {
        let now = clock::now();
        let workers = self.ledger.workers().await?;
        Ok(workers
            .into_iter()
            .map(|worker| (is_online(&worker, now), worker))
            .map(|(online, worker)| (worker, online))
            .collect())
    }
}

fn command(name: &str, inspects: bool) -> Result<&'static Command, ControlError> {
    let known =
        commands::find(name).filter(|command| command.inspects == inspects || (inspects && command.name == "ping"));
    known.ok_or_else(|| {
        let names: Vec<&'static str> = commands::COMMANDS
            .iter()
            .filter(|command| command.inspects == inspects)
            .map(|command| command.name)
            .collect();
        ControlError::UnknownCommand {
            name: name.to_owned(),
            nearest: celery::spelling::nearest(name, &names).map(str::to_owned),
        }
    })
}

fn not_an_object() -> ControlError {
    ControlError::Invalid(vec![Invalid { pointer: "/arguments".to_owned(), detail: "must be an object".to_owned() }])
}
