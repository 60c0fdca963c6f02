//! Remote control on the wire, for both sides: requests on the pidbox channel, and the replies that workers push.

use serde_json::value::RawValue;

use super::json::{self, Fields};
use super::{DecodeError, Envelope, Properties, envelope, time};
use crate::task::Json;

/// A request to one, some or all workers.
#[derive(Debug, Clone)]
pub struct Request {
    /// Celery's name of the command, such as `ping`.
    pub method: String,
    /// A JSON object.
    pub arguments: Json,
    /// Node names; `None` for all.
    pub destination: Option<Vec<String>>,
    /// A pattern of node names and its syntax; `None` for all.
    pub pattern: Option<(String, Matcher)>,
    /// Set when the sender wants a reply.
    pub reply: Option<ReplyTo>,
    /// The sender's Lamport clock.
    pub clock: i64,
}

/// The syntax of a pattern of node names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Matcher {
    /// `*` and `?` as in a shell.
    Glob,
    /// A regular expression that must match from the start.
    Pcre,
}

/// Where a reply goes, and the ticket that identifies its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyTo {
    pub ticket: String,
    /// Empty: directly to the list named by `routing_key`.
    pub exchange: String,
    pub routing_key: String,
}

/// One worker's answer.
#[derive(Debug, Clone)]
pub struct Reply {
    pub ticket: Option<String>,
    pub clock: i64,
    /// The node's name.
    pub node: String,
    pub value: Json,
}

impl Request {
    /// # Errors
    /// When it is not an envelope with a JSON object that names a method.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let envelope = Envelope::decode(payload)?;
        let body = envelope.json_body()?;
        let fields = Fields::parse(&body).map_err(|_| DecodeError::Body("is not an object"))?;
        let arguments = fields.get("arguments").filter(|arguments| arguments.get().starts_with('{'));
        let reply_to = fields.get("reply_to").and_then(|value| Fields::parse(value.get()).ok());
        let clock = Fields::parse(&envelope.headers).ok().and_then(|headers| headers.integer("clock"));
        Ok(Self {
            method: fields.text("method").ok_or(DecodeError::Body("names no method"))?,
            arguments: arguments.map_or_else(|| json::written("{}".into()), ToOwned::to_owned),
            destination: fields.get("destination").and_then(names),
            pattern: fields.text("pattern").map(|pattern| (pattern, matcher(&fields))),
            reply: reply_to.map(|reply_to| ReplyTo {
                ticket: fields.text("ticket").unwrap_or_default(),
                exchange: reply_to.text("exchange").unwrap_or_default(),
                routing_key: reply_to.text("routing_key").unwrap_or_default(),
            }),
            clock: clock.unwrap_or(0),
        })
    }

    /// Whether the request is for a worker of this name. An invalid pattern matches no worker.
    pub fn is_for(&self, node: &str) -> bool {
        if let Some(destination) = &self.destination {
            return destination.iter().any(|name| name == node);
        }
        match &self.pattern {
            None => true,
            Some((pattern, matcher)) => {
                let expression = match matcher {
                    Matcher::Pcre => format!("^(?:{pattern})"),
                    Matcher::Glob => glob(pattern),
                };
                regex::Regex::new(&expression).is_ok_and(|expression| expression.is_match(node))
            }
        }
    }

    /// The message for the control channel. `expires` is when the sender stops waiting; workers ignore it.
    pub fn encode(&self, exchange: &str, expires: Option<jiff::Timestamp>, delivery_tag: &str) -> Vec<u8> {
        let expires = expires.map_or_else(|| "0".to_owned(), |at| format!("{:?}", time::to_unix(at)));
        let headers = format!("{{\"clock\": {}, \"expires\": {expires}}}", self.clock);
        let properties = Properties { delivery_mode: 2, ..Properties::transient(exchange, "", delivery_tag) };
        envelope(&headers, &self.body(), &properties)
    }

    fn body(&self) -> String {
        let mut out = String::from("{\"method\": ");
        json::push_string(&mut out, &self.method);
        out.extend([", \"arguments\": ", self.arguments.get(), ", \"destination\": "]);
        match &self.destination {
            None => out.push_str("null"),
            Some(names) => {
                for (index, name) in names.iter().enumerate() {
                    out.push_str(if index == 0 { "[" } else { ", " });
                    json::push_string(&mut out, name);
                }
                out.push_str(if names.is_empty() { "[]" } else { "]" });
            }
        }
        out.push_str(", \"pattern\": ");
        json::push_optional(&mut out, self.pattern.as_ref().map(|(pattern, _)| pattern.as_str()));
        out.push_str(", \"matcher\": ");
        json::push_optional(&mut out, self.pattern.as_ref().map(|(_, matcher)| matcher.as_str()));
        if let Some(reply) = &self.reply {
            for (name, value) in [
                (", \"ticket\": ", &reply.ticket),
                (", \"reply_to\": {\"exchange\": ", &reply.exchange),
                (", \"routing_key\": ", &reply.routing_key),
            ] {
                out.push_str(name);
                json::push_string(&mut out, value);
            }
            out.push('}');
        }
        out.push('}');
        out
    }
}

impl Matcher {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Glob => "glob",
            Self::Pcre => "pcre",
        }
    }
}

impl Reply {
    /// # Errors
    /// When it is not an envelope with an object of one node's answer.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let envelope = Envelope::decode(payload)?;
        let body = envelope.read_body()?;
        let fields = Fields::parse(&body).map_err(|_| DecodeError::Body("is not an object"))?;
        let (node, value) = fields.iter().next().ok_or(DecodeError::Body("names no node"))?;
        let headers = Fields::parse(&envelope.headers).unwrap_or_default();
        Ok(Self {
            ticket: headers.text("ticket"),
            clock: headers.integer("clock").unwrap_or(0),
            node: node.to_owned(),
            value: value.to_owned(),
        })
    }

    /// The message for the list that `to` names.
    pub fn encode(&self, to: &ReplyTo, delivery_tag: &str) -> Vec<u8> {
        let mut headers = String::from("{\"ticket\": ");
        json::push_optional(&mut headers, self.ticket.as_deref());
        headers.push_str(&format!(", \"clock\": {}}}", self.clock));
        let mut body = String::from("{");
        json::push_string(&mut body, &self.node);
        body.extend([": ", self.value.get(), "}"]);
        envelope(&headers, &body, &Properties::transient(&to.exchange, &to.routing_key, delivery_tag))
    }
}

/// `{"ok": text}`, the answer of most commands.
pub fn ok(text: &str) -> Json {
    said("ok", text)
}

/// `{"error": text}`; Celery gives the `repr` of a Python exception, `KeyError('nope')`.
pub fn error(text: &str) -> Json {
    said("error", text)
}

fn said(name: &str, text: &str) -> Json {
    let mut out = format!("{{\"{name}\": ");
    json::push_string(&mut out, text);
    out.push('}');
    json::written(out)
}

fn names(value: &RawValue) -> Option<Vec<String>> {
    match json::elements(value) {
        Some(names) => Some(names.into_iter().filter_map(json::text).collect()),
        None => json::text(value).map(|name| vec![name]),
    }
}

fn matcher(fields: &Fields<'_>) -> Matcher {
    if fields.text("matcher").as_deref() == Some("pcre") { Matcher::Pcre } else { Matcher::Glob }
}

fn glob(pattern: &str) -> String {
    let mut expression = String::from("^");
    for char in pattern.chars() {
        match char {
            '*' => expression.push_str(".*"),
            '?' => expression.push('.'),
            _ => expression.push_str(&regex::escape(char.encode_utf8(&mut [0; 4]))),
        }
    }
    expression.push('$');
    expression
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vectors;

    #[test]
    fn every_recorded_request_is_written_byte_for_byte() {
        let mut seen = 0;
        for (name, vector) in vectors::all() {
            for text in vectors::payloads(&vector, "PUBLISH", |channel| channel.ends_with("/0.celery.pidbox")) {
                let request = Request::decode(text.as_bytes()).unwrap_or_else(|error| panic!("{name}: {error}"));
                let theirs = Envelope::decode(text.as_bytes()).unwrap();
                assert_eq!(request.body(), theirs.json_body().unwrap(), "{name}");
                let ours = request.encode("celery.pidbox", None, &theirs.properties.delivery_tag);
                assert_eq!(Envelope::decode(&ours).unwrap().properties, theirs.properties, "{name}");
                seen += 1;
            }
        }
        assert!(seen > 40, "only {seen}");
    }

    #[test]
    fn every_recorded_reply_is_written_byte_for_byte() {
        let mut seen = 0;
        for (name, vector) in vectors::all().into_iter().filter(|(name, _)| name.contains("control_")) {
            for text in vectors::payloads(&vector, "LPUSH", |key| key.contains("pidbox") || key.contains("replies")) {
                let reply = Reply::decode(text.as_bytes()).unwrap_or_else(|error| panic!("{name}: {error}"));
                let properties = Envelope::decode(text.as_bytes()).unwrap().properties;
                let to = ReplyTo {
                    ticket: String::new(),
                    exchange: properties.exchange.to_string(),
                    routing_key: properties.routing_key.to_string(),
                };
                let ours = reply.encode(&to, &properties.delivery_tag);
                assert_eq!(String::from_utf8(ours).unwrap(), text, "{name}");
                seen += 1;
            }
        }
        assert!(seen > 40, "only {seen}");
    }

    #[test]
    fn a_request_says_whom_it_is_for() {
        let mut request = Request {
            method: "ping".into(),
            arguments: json::null(),
            destination: None,
            pattern: None,
            reply: None,
            clock: 0,
        };
        assert!(request.is_for("w1@host"));
        request.pattern = Some(("w1@*".into(), Matcher::Glob));
        assert!(request.is_for("w1@host") && !request.is_for("w2@host") && !request.is_for("xw1@host"));
        request.pattern = Some((r"w\d@".into(), Matcher::Pcre));
        assert!(request.is_for("w1@host") && !request.is_for("xw1@host"));
        request.pattern = Some(("(".into(), Matcher::Pcre));
        assert!(!request.is_for("w1@host"));
        request.destination = Some(vec!["w9@host".into()]);
        assert!(request.is_for("w9@host") && !request.is_for("w1@host"));
    }

    #[test]
    fn what_names_no_method_is_no_request() {
        let payload = envelope("{}", "{}", &Properties::transient("celery.pidbox", "", "t"));
        assert_eq!(Request::decode(&payload).unwrap_err(), DecodeError::Body("names no method"));
        assert_eq!(error("KeyError('x')").get(), r#"{"error": "KeyError('x')"}"#);
        assert_eq!(ok("pong").get(), r#"{"ok": "pong"}"#);
    }
}
