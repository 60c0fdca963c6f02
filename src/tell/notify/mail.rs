//! Sends a mail through the configured server, over a new connection: incidents are rare, and an idle connection would be closed.

use std::time::Duration;

use lettre::message::Mailbox;
use lettre::message::header::ContentType;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};

use crate::config::Secret;

/// The whole conversation ends within this many timeouts, however slowly each line comes.
const STEPS: u32 = 2;

/// # Errors
/// The server's answer, or why it was not reached; never its address, which may contain a password.
pub(super) async fn send(
    server: &Secret,
    from: &Mailbox,
    to: &[Mailbox],
    subject: String,
    text: String,
    timeout: Duration,
) -> Result<(), String> {
    let mut letter = Message::builder().from(from.clone()).subject(subject).header(ContentType::TEXT_PLAIN);
    for address in to {
        letter = letter.to(address.clone());
    }
    let letter = letter.body(text).map_err(|error| error.to_string())?;
    let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(server.reveal())
        .map_err(|error| format!("the address of the mail server: {error}"))?
        .timeout(Some(timeout))
        .build();
    match tokio::time::timeout(timeout * STEPS, transport.send(letter)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(chain(&error)),
        Err(_) => Err("the mail server did not answer in time".to_owned()),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}
