//! `taskgate token`: manages API tokens. Works on the ledger directly, so creating the first token needs no token.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::Common;
use super::given::configure;
use crate::app;
use crate::config::value::{Scalar, Span};
use crate::config::{Config, Quota, Role};
use crate::guard::audit::by_command;
use crate::guard::tokens::{Secret, TOKEN_PREFIX};
use ledger::{NewAct, Scope, SharedLedger, Token};
use runtime::clock::{self, Time};

const MAX_NAME: usize = 100;

/// The most tokens that `list` prints, newest first.
const LISTED: i64 = 1_000;

#[derive(Debug, Args)]
pub struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create a token and print it, only this once: just its hash is stored
    Create(Create),
    /// List all tokens, newest first
    List(List),
    /// Revoke a token: every replica refuses it within a second
    Revoke(Revoke),
}

#[derive(Debug, Args)]
struct Create {
    /// What the token is for
    #[arg(long)]
    name: String,
    /// What it may do: submit, read, control, admin; separated by commas. `submit:tasks.crawl.*` also limits it to those tasks
    #[arg(long = "scope", value_name = "SCOPES", value_delimiter = ',', required = true)]
    scopes: Vec<String>,
    /// The only tasks that it may submit, see and control, such as tasks.crawl.*; separated by commas; default all
    #[arg(long, value_name = "PATTERNS", value_delimiter = ',')]
    tasks: Vec<String>,
    /// Namespace of its keys for limits, unique and Idempotency-Key; tokens of one namespace share them. Default its name
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// How long it is valid, such as 90d or 12h; default for ever
    #[arg(long, value_name = "SPAN")]
    expires: Option<String>,
    /// Rate limit, such as 100/s, 1000/m or 5000/h; default as configured
    #[arg(long, value_name = "RATE")]
    rate_limit: Option<String>,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct List {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Revoke {
    /// Its name or id
    token: String,
}

/// # Errors
/// When the ledger does not answer, or an argument is invalid.
pub fn run(common: &Common, options: &Options) -> anyhow::Result<ExitCode> {
    let config = configure(Role::Migrate, common, &[])?;
    super::runtime()?.block_on(async {
        let stop = CancellationToken::new();
        let ledger = ready_ledger(&config, stop.clone()).await?;
        let done = match &options.command {
            Command::Create(create) => create.run(&ledger).await,
            Command::List(list) => list.run(&ledger).await,
            Command::Revoke(revoke) => revoke.run(&ledger).await,
        };
        stop.cancel();
        done
    })
}

/// Opens the configured ledger, and migrates its schema unless `database.migrate` is off.
async fn ready_ledger(config: &Config, stop: CancellationToken) -> anyhow::Result<SharedLedger> {
    let ledger = app::open_ledger(config, stop)?;
    if config.database.migrate {
        ledger.migrate().await.context("the ledger's schema could not be brought up to date")?;
    }
    Ok(ledger)
}

impl Create {
    async fn run(&self, ledger: &SharedLedger) -> anyhow::Result<ExitCode> {
        let secret = Secret::new(TOKEN_PREFIX);
        let token = self.token(&secret, clock::now())?;
        if !by_command(ledger, act("token create", &self.name), ledger.create_token(&token)).await? {
            bail!("there is already a token {:?}: choose another name, or revoke that token", self.name);
        }
        if self.json {
            let mut shown = view(&token);
            shown["token"] = secret.reveal().into();
            println!("{shown}");
        } else {
            eprintln!("This is the only time that the token is shown:");
            println!("{}", secret.reveal());
        }
        Ok(ExitCode::SUCCESS)
    }

    fn token(&self, secret: &Secret, now: Time) -> anyhow::Result<Token> {
        if !is_name(&self.name) {
            bail!("--name must have 1 to {MAX_NAME} characters, without control characters");
        }
        if self.namespace.as_ref().is_some_and(|name| !is_name(name)) {
            bail!("--namespace must have 1 to {MAX_NAME} characters, without control characters");
        }
        let (mut scopes, mut tasks) = (Vec::new(), self.tasks.clone());
        for text in &self.scopes {
            let (scope, pattern) = text.split_once(':').map_or((text.as_str(), None), |(s, p)| (s, Some(p)));
            let Ok(scope) = scope.trim().parse::<Scope>() else {
                bail!("--scope {text:?} is none of {}", Scope::ALL.map(Scope::as_str).join(", "));
            };
            scopes.push(scope);
            tasks.extend(pattern.map(str::to_owned));
        }
        scopes.sort_unstable();
        scopes.dedup();
        if tasks.iter().any(|pattern| pattern.trim().is_empty()) {
            bail!("--tasks: a pattern must not be empty");
        }
        Ok(Token {
            id: clock::new_id().to_string(),
            name: self.name.clone(),
            hash: secret.hash(),
            scopes,
            tasks,
            namespace: self.namespace.clone(),
            person: None,
            rate: self.rate_limit.as_deref().map(rate).transpose()?,
            created_at: now,
            expires_at: self.expires.as_deref().map(span).transpose()?.map(|span| now.plus(span)),
            revoked_at: None,
            last_used_at: None,
        })
    }
}

fn is_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.chars().count()) && !text.chars().any(char::is_control)
}

fn span(text: &str) -> anyhow::Result<Duration> {
    match Span::try_from(Scalar::Text(text.to_owned())) {
        Ok(Span(span)) if !span.is_zero() => Ok(span),
        Ok(_) => bail!("--expires must be longer than zero"),
        Err(reason) => bail!("--expires: {reason}"),
    }
}

/// Checks the rate, and returns it as it was written.
fn rate(text: &str) -> anyhow::Result<String> {
    match Quota::parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(reason) => bail!("--rate-limit: {reason}"),
    }
}

impl List {
    async fn run(&self, ledger: &SharedLedger) -> anyhow::Result<ExitCode> {
        let tokens = ledger.tokens(LISTED).await?;
        if self.json {
            let tokens: Vec<_> = tokens.iter().map(view).collect();
            println!("{}", json!({ "tokens": tokens }));
            return Ok(ExitCode::SUCCESS);
        }
        let now = clock::now();
        println!("{:<20} {:<8} {:<24} {:<24} {:<28} ID", "NAME", "STATE", "SCOPES", "TASKS", "LAST USED");
        for token in &tokens {
            let state = if token.revoked_at.is_some() {
                "revoked"
            } else if token.is_valid_at(now) {
                "valid"
            } else {
                "expired"
            };
            let tasks = if token.tasks.is_empty() { "*".to_owned() } else { token.tasks.join(",") };
            let used = token.last_used_at.map_or_else(|| "never".to_owned(), Time::rfc3339);
            println!(
                "{:<20} {state:<8} {:<24} {tasks:<24} {used:<28} {}",
                token.name,
                scopes(token).join(","),
                token.id
            );
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Revoke {
    async fn run(&self, ledger: &SharedLedger) -> anyhow::Result<ExitCode> {
        let revoked = ledger.revoke_token(&self.token, clock::now());
        match by_command(ledger, act("token revoke", &self.token), revoked).await? {
            Some(token) => println!("{} is revoked", token.name),
            None => bail!("there is no valid token {:?}", self.token),
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// An audit entry for the user who runs this command.
fn act(what: &str, target: &str) -> NewAct {
    let user = std::env::var("USER").unwrap_or_else(|_| "somebody".to_owned());
    NewAct {
        id: clock::new_id().to_string(),
        at: clock::now(),
        who: format!("{user} on {}", app::hostname()),
        who_id: None,
        what: what.to_owned(),
        target: target.to_owned(),
        origin: None,
    }
}

fn scopes(token: &Token) -> Vec<&'static str> {
    token.scopes.iter().map(|scope| scope.as_str()).collect()
}

fn view(token: &Token) -> serde_json::Value {
    json!({
        "id": token.id,
        "name": token.name,
        "scopes": scopes(token),
        "tasks": token.tasks,
        "namespace": token.namespace.as_ref().unwrap_or(&token.name),
        "rate_limit": token.rate,
        "created_at": token.created_at,
        "expires_at": token.expires_at,
        "revoked_at": token.revoked_at,
        "last_used_at": token.last_used_at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(scopes: &[&str]) -> Create {
        let scopes = scopes.iter().map(|&scope| scope.to_owned()).collect();
        Create {
            name: "ci".into(),
            scopes,
            tasks: Vec::new(),
            namespace: None,
            expires: None,
            rate_limit: None,
            json: false,
        }
    }

    #[test]
    fn a_scope_may_name_the_tasks() {
        let secret = Secret::new(TOKEN_PREFIX);
        let token = create(&["submit:tasks.crawl.*", "read"]).token(&secret, Time(0)).unwrap();
        assert_eq!(token.scopes, [Scope::Submit, Scope::Read]);
        assert_eq!(token.tasks, ["tasks.crawl.*"]);
        assert!(create(&["write"]).token(&secret, Time(0)).is_err());
        assert!(create(&["submit:"]).token(&secret, Time(0)).is_err());
    }

    #[test]
    fn spans_and_rates_are_checked() {
        assert_eq!(span("90d").unwrap(), Duration::from_secs(90 * 86_400));
        assert!(span("0").is_err() && span("soon").is_err());
        assert_eq!(rate("100/m").unwrap(), "100/m");
        assert!(rate("0/m").is_err() && rate("5/d").is_err() && rate("many").is_err());
    }
}
