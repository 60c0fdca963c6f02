//! Declares the configured exchanges.
//!
//! Declaring an existing exchange in the same way changes nothing; the broker refuses a declaration that differs, and the exchange
//! stays as it is. Queues are not declared here: a binding to a missing queue is made later, when the queue exists.

use celery::binding::ExchangeKind as Kind;
use lapin::ExchangeKind;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions};
use lapin::types::FieldTable;

use super::error::{self, NOT_FOUND, short};
use super::link::Link;
use super::{queues, table};
use crate::Error;
use crate::port::Exchange;

/// The options with which Celery declares an exchange.
pub const DURABLE: ExchangeDeclareOptions =
    ExchangeDeclareOptions { passive: false, durable: true, auto_delete: false, internal: false, nowait: false };

/// # Errors
/// [`Error::Refused`] when an exchange of that name exists with other arguments.
pub async fn declare(link: &Link, exchange: &Exchange) -> Result<(), Error> {
    let name = short(&exchange.name)?;
    make(link, exchange, DURABLE).await?;
    for binding in &exchange.bindings {
        // A refusal closes the channel.
        let channel = link.channel().await?;
        let bound = channel.queue_bind(
            short(binding.queue.as_str())?,
            name.clone(),
            short(&binding.routing_key)?,
            QueueBindOptions::default(),
            table::from_json(&binding.headers),
        );
        match link.answer(bound).await {
            Err(refusal) if !error::is(&refusal, NOT_FOUND) => return Err(refusal),
            Err(_) => {}
            Ok(()) => queues::close(Some(channel)).await,
        }
    }
    Ok(())
}

/// What the broker says when an exchange of this name exists with another type or other arguments. Creates and binds nothing.
pub async fn differs(link: &Link, exchange: &Exchange) -> Result<Option<String>, Error> {
    match make(link, exchange, ExchangeDeclareOptions { passive: true, ..DURABLE }).await {
        Ok(()) => {}
        Err(refusal) if error::is(&refusal, NOT_FOUND) => return Ok(None),
        Err(other) => return Err(other),
    }
    match make(link, exchange, DURABLE).await {
        Ok(()) => Ok(None),
        Err(Error::Refused { text, .. }) => Ok(Some(text)),
        Err(other) => Err(other),
    }
}

async fn make(link: &Link, exchange: &Exchange, options: ExchangeDeclareOptions) -> Result<(), Error> {
    let channel = link.channel().await?;
    let kind = match exchange.kind {
        Kind::Direct => ExchangeKind::Direct,
        Kind::Topic => ExchangeKind::Topic,
        Kind::Fanout => ExchangeKind::Fanout,
        Kind::Headers => ExchangeKind::Headers,
    };
    link.answer(channel.exchange_declare(short(&exchange.name)?, kind, options, FieldTable::default())).await?;
    queues::close(Some(channel)).await;
    Ok(())
}
