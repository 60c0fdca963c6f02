//! Parses the URLs of RabbitMQ that Celery understands: `amqp://`, `amqps://`, `pyamqp://`, or several separated by `;` for a cluster
//! whose nodes are tried in turn.
//!
//! The client's own parser is not used, because it reads `amqp://host/` as the virtual host with the empty name; kombu reads it as
//! `/`.

use crate::Error;

/// Default seconds between heartbeats: a dead node is noticed within two of them.
const HEARTBEAT: u16 = 20;

/// A node, with the login there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    pub is_tls: bool,
    pub host: String,
    pub port: u16,
    pub user: String,
    pub password: String,
    pub vhost: String,
    /// Seconds; zero for none. `?heartbeat=`.
    pub heartbeat: u16,
}

impl Address {
    /// All nodes of a URL, in the order in which they are tried.
    ///
    /// # Errors
    /// When one of them is not understood. The message does not repeat the URL: it holds a password.
    pub fn parse_all(text: &str) -> Result<Vec<Self>, Error> {
        let addresses: Result<Vec<Self>, Error> =
            text.split(';').map(str::trim).filter(|url| !url.is_empty()).map(Self::parse).collect();
        let addresses = addresses?;
        if addresses.is_empty() {
            return Err(Error::Url("it is empty".into()));
        }
        Ok(addresses)
    }

    fn parse(text: &str) -> Result<Self, Error> {
        let (scheme, rest) = text.split_once("://").ok_or_else(|| Error::Url("it has no ://".into()))?;
        let is_tls = match scheme {
            "amqp" | "pyamqp" => false,
            "amqps" => true,
            other => return Err(Error::Url(format!("{other:?} is not amqp or amqps"))),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, vhost) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, place) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (name, password) = user.split_once(':').unwrap_or((user, ""));
        let (host, port) = host_and_port(place)?;
        let or = |text: String, other: &str| if text.is_empty() { other.to_owned() } else { text };
        Ok(Self {
            is_tls,
            host: or(host.to_owned(), "localhost"),
            port: port.unwrap_or(if is_tls { 5671 } else { 5672 }),
            user: or(decoded(name)?, "guest"),
            password: or(decoded(password)?, "guest"),
            vhost: or(decoded(vhost)?, "/"),
            heartbeat: heartbeat(query)?,
        })
    }

    /// Host and port for display, without the password.
    pub fn place(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

fn host_and_port(place: &str) -> Result<(&str, Option<u16>), Error> {
    // An IPv6 address is in brackets, because it contains colons.
    let (host, rest) = match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => (host, rest),
        None => place.split_at(place.find(':').unwrap_or(place.len())),
    };
    match rest.strip_prefix(':') {
        None | Some("") => Ok((host, None)),
        Some(port) => match port.parse() {
            Ok(port) => Ok((host, Some(port))),
            Err(_) => Err(Error::Url(format!("{port:?} is no port"))),
        },
    }
}

fn heartbeat(query: &str) -> Result<u16, Error> {
    let Some(value) = query.split('&').find_map(|pair| pair.strip_prefix("heartbeat=")) else { return Ok(HEARTBEAT) };
    value.parse().map_err(|_| Error::Url(format!("heartbeat={value} is not a number of seconds")))
}

fn decoded(text: &str) -> Result<String, Error> {
    let damaged = || Error::Url("a % in it is not followed by two hexadecimal digits of UTF-8".into());
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok()).ok_or_else(damaged)?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| damaged())?);
        rest = &after[2..];
    }
    String::from_utf8(bytes).map_err(|_| damaged())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address_of(text: &str) -> Address {
        Address::parse_all(text).unwrap().remove(0)
    }

    #[test]
    fn virtual_hosts_are_read_as_kombu_reads_them() {
        for (url, vhost) in [
            ("amqp://h", "/"),
            ("amqp://h/", "/"),
            ("amqp://h//", "/"),
            ("amqp://h/%2F", "/"),
            ("amqp://h/shop", "shop"),
            ("amqp://h//shop", "/shop"),
        ] {
            assert_eq!(address_of(url).vhost, vhost, "{url}");
        }
    }

    #[test]
    fn what_is_left_out_is_as_in_celery() {
        let address = address_of("amqp://");
        assert_eq!((address.host.as_str(), address.port), ("localhost", 5672));
        assert_eq!((address.user.as_str(), address.password.as_str()), ("guest", "guest"));
        assert_eq!(address_of("amqps://h").port, 5671);
        assert_eq!(address_of("pyamqp://me:p%40ss@[::1]:7/v?heartbeat=5").place(), "::1:7");
        assert_eq!(address_of("amqp://me:p%40ss@h").password, "p@ss");
        assert_eq!(address_of("amqp://h?heartbeat=5").heartbeat, 5);
    }

    #[test]
    fn several_nodes_are_tried_in_their_order() {
        let all = Address::parse_all("amqp://a:1//;amqp://b:2//; ").unwrap();
        assert_eq!(all.iter().map(Address::place).collect::<Vec<_>>(), ["a:1", "b:2"]);
    }

    #[test]
    fn what_is_no_url_is_refused_without_repeating_it() {
        for url in ["", ";", "redis://h", "amqp:h", "amqp://u:secret@h:port", "amqp://h/%zz", "amqp://h?heartbeat=x"] {
            let error = Address::parse_all(url).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
