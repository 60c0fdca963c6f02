//! `[http]`: where the gateway listens, its timeouts and its limits.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::network::Network;
use super::value::{Bytes, Count, Span, Switch, Text, Words};
use super::{Error, Said};

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawHttp {
    listen: Option<Text>,
    hosts: Option<Words>,
    origins: Option<Words>,
    request_timeout: Option<Span>,
    header_timeout: Option<Span>,
    sse_heartbeat: Option<Span>,
    idle_timeout: Option<Span>,
    max_streams: Option<Count>,
    max_streams_per_token: Option<Count>,
    access_log: Option<Switch>,
    /// The same as `origins`.
    cors_origins: Option<Words>,
    compression: Option<Switch>,
    /// A PEM file with the certificate chain; TLS is then served instead of plain HTTP. Reloaded when the file changes. Needs
    /// `tls_key`. Default none.
    tls_cert: Option<Text>,
    /// A PEM file with the private key of the first certificate.
    tls_key: Option<Text>,
    base_path: Option<Text>,
    trusted_proxies: Option<Words>,
    max_header: Option<Bytes>,
    max_connections: Option<Count>,
    writer: Option<Text>,
}

/// The smallest buffer that the HTTP/1 parser accepts.
const LEAST_HEADER: usize = 8 << 10;
const MOST_HEADER: usize = 16 << 20;

#[derive(Debug, Clone)]
pub struct Http {
    /// Default 127.0.0.1:8000. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// `Host` headers that requests with side effects may carry when no token is required, besides IP addresses, `localhost` and the
    /// name of the listener. Default none; `*` allows all.
    pub hosts: Vec<String>,
    /// Origins of other sites (`https://app.example`) whose pages may call the API and read its answers; `*` allows all. The key is
    /// `http.origins` or `http.cors_origins`. Default none.
    pub origins: Vec<String>,
    /// Timeout from the first byte of a request to the head of its answer, not counting `Prefer: wait`. Default 30 s.
    pub request_timeout: Duration,
    /// Timeout for reading the head of a request. Default 10 s.
    pub header_timeout: Duration,
    /// Interval between keep-alive comments on a quiet SSE stream. Default 15 s.
    pub sse_heartbeat: Duration,
    /// After how much silence a proxy in front of the gateway cuts a connection. Default 60 s.
    pub idle_timeout: Duration,
    /// Limit of open SSE streams of this process; a further stream is answered 503. Default 20,000.
    pub max_streams: usize,
    /// Limit of open SSE streams of one token at this process; a further stream is answered 429. Default 1,000.
    pub max_streams_per_token: usize,
    /// One log line for each request. Default true.
    pub access_log: bool,
    /// Compresses answers of more than a kilobyte for clients that accept it; streams are never compressed. Default true.
    pub compression: bool,
    /// Serves TLS instead of plain HTTP. The files are reloaded when they change. Default none.
    pub tls: Option<TlsFiles>,
    /// Path prefix under which a proxy publishes the gateway, such as `/tasks`: requests may have the prefix or not, links always have
    /// it. Default empty.
    pub base_path: String,
    /// Proxies whose `X-Forwarded-For`, `-Proto`, `-Host` and `Forwarded` headers are believed. Default none.
    pub trusted_proxies: Vec<Network>,
    /// Limit of the head of a request in bytes; a larger one is answered 431. Default 64 KiB, at least 8 KiB.
    pub max_header: usize,
    /// Limit of open connections of this process; a further one is answered 503 and closed. Default 25,000.
    pub max_connections: usize,
    /// The gateway to which one with `--role read` refers clients that want to write, such as `https://tasks.example`. Default none.
    pub writer: Option<String>,
}

/// PEM files: the certificate chain, and the private key of its first certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Http {
    pub(super) fn read(raw: RawHttp, said: &Said) -> Result<Self, Error> {
        let listen = raw.listen.map_or_else(|| "127.0.0.1:8000".to_owned(), |text| text.0);
        let http = Self {
            listen: listen.parse().map_err(|_| {
                Error::value(
                    said.place("http.listen"),
                    format!("{listen:?} is not an address with a port, such as 0.0.0.0:8000"),
                )
            })?,
            hosts: raw.hosts.unwrap_or_default().0,
            origins: [raw.origins, raw.cors_origins].into_iter().flatten().flat_map(|words| words.0).collect(),
            request_timeout: raw.request_timeout.map_or(Duration::from_secs(30), |span| span.0),
            header_timeout: raw.header_timeout.map_or(Duration::from_secs(10), |span| span.0),
            sse_heartbeat: raw.sse_heartbeat.map_or(Duration::from_secs(15), |span| span.0),
            idle_timeout: raw.idle_timeout.map_or(Duration::from_secs(60), |span| span.0),
            max_streams: raw.max_streams.map_or(20_000, |count| usize::try_from(count.0).unwrap_or(usize::MAX)),
            max_streams_per_token: raw
                .max_streams_per_token
                .map_or(1_000, |count| usize::try_from(count.0).unwrap_or(usize::MAX)),
            access_log: raw.access_log.is_none_or(|switch| switch.0),
            compression: raw.compression.is_none_or(|switch| switch.0),
            tls: tls(raw.tls_cert, raw.tls_key, said)?,
            base_path: base_path(&raw.base_path.unwrap_or_default().0, said)?,
            trusted_proxies: networks(raw.trusted_proxies.unwrap_or_default().0, said)?,
            max_header: raw.max_header.map_or(64 << 10, |bytes| bytes.0),
            max_connections: raw.max_connections.map_or(25_000, |count| usize::try_from(count.0).unwrap_or(usize::MAX)),
            writer: raw.writer.map(|text| text.0),
        };
        http.checked(said)
    }

    fn checked(self, said: &Said) -> Result<Self, Error> {
        for (key, span) in [
            ("http.sse_heartbeat", self.sse_heartbeat),
            ("http.request_timeout", self.request_timeout),
            ("http.header_timeout", self.header_timeout),
        ] {
            if span.is_zero() {
                return Err(Error::value(said.place(key), "must be longer than zero"));
            }
        }
        if !(LEAST_HEADER..=MOST_HEADER).contains(&self.max_header) {
            return Err(Error::value(said.place("http.max_header"), "must be from 8 KiB to 16 MiB"));
        }
        if self.max_connections == 0 {
            return Err(Error::value(said.place("http.max_connections"), "must be at least 1"));
        }
        if let Some(writer) = &self.writer
            && !(is_address(writer, "http://") || is_address(writer, "https://"))
        {
            let message = format!("{writer:?} is not the address of a gateway, such as https://tasks.example");
            return Err(Error::value(said.place("http.writer"), message));
        }
        for origin in &self.origins {
            check_origin(origin).map_err(|detail| Error::value(said.place("http.cors_origins"), detail))?;
        }
        if self.sse_heartbeat >= self.idle_timeout {
            return Err(Error::pair(
                said.place("http.sse_heartbeat"),
                said.place("http.idle_timeout"),
                "every quiet stream would be cut",
            ));
        }
        Ok(self)
    }
}

/// Whether the text is an address with this scheme. It must be printable, because it is sent in a header.
fn is_address(text: &str, scheme: &str) -> bool {
    text.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_graphic()))
}

fn tls(cert: Option<Text>, key: Option<Text>, said: &Said) -> Result<Option<TlsFiles>, Error> {
    match (cert, key) {
        (None, None) => Ok(None),
        (Some(cert), Some(key)) => Ok(Some(TlsFiles { cert: cert.0.into(), key: key.0.into() })),
        (Some(_), None) => Err(Error::value(said.place("http.tls_cert"), "needs http.tls_key beside it")),
        (None, Some(_)) => Err(Error::value(said.place("http.tls_key"), "needs http.tls_cert beside it")),
    }
}

fn base_path(text: &str, said: &Said) -> Result<String, Error> {
    let path = text.trim_end_matches('/');
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    if path.is_empty() || (path.starts_with('/') && !path.contains("//") && path.bytes().all(fits)) {
        return Ok(path.to_owned());
    }
    Err(Error::value(said.place("http.base_path"), format!("{text:?} is not a path, such as /tasks")))
}

fn networks(texts: Vec<String>, said: &Said) -> Result<Vec<Network>, Error> {
    let read =
        |text: String| text.parse().map_err(|detail: String| Error::value(said.place("http.trusted_proxies"), detail));
    texts.into_iter().map(read).collect()
}

/// An origin is a scheme, a host and perhaps a port, as browsers send it; any other text would never match.
fn check_origin(text: &str) -> Result<(), String> {
    let host = text.split_once("://").map_or("", |(_, host)| host);
    if text == "*" || (!host.is_empty() && !host.contains(['/', '*', ' '])) {
        return Ok(());
    }
    Err(format!("{text:?} is not an origin, such as https://app.example"))
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Role};

    fn refusal(http: &str) -> String {
        Config::parse(Role::Dev, &format!("[http]\n{http}")).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn what_belongs_together_is_said_together() {
        assert!(refusal("tls_cert = 'a.pem'").contains("tls_key"));
        assert!(refusal("tls_key = 'a.pem'").contains("tls_cert"));
        assert_eq!(refusal("tls_cert = 'a.pem'\ntls_key = 'b.pem'"), "");
    }

    #[test]
    fn paths_networks_and_origins_are_checked() {
        for (line, key) in [
            ("base_path = 'tasks'", "base_path"),
            ("base_path = '/a b'", "base_path"),
            ("trusted_proxies = ['10.0.0.0/40']", "trusted_proxies"),
            ("cors_origins = ['app.example']", "cors_origins"),
            ("cors_origins = ['https://app.example/']", "cors_origins"),
            ("max_header = 100", "max_header"),
            ("max_connections = 0", "max_connections"),
        ] {
            assert!(refusal(line).contains(key), "{line}: {}", refusal(line));
        }
        let fine = "base_path = '/tasks/'\ntrusted_proxies = '10.0.0.0/8, ::1'\ncors_origins = 'https://a.example,*'";
        let config = Config::parse(Role::Dev, &format!("[http]\n{fine}")).unwrap();
        assert_eq!(config.http.base_path, "/tasks");
        assert_eq!((config.http.trusted_proxies.len(), config.http.origins.len()), (2, 2));
    }
}
