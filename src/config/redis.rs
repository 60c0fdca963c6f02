//! The fleet's Redis, as broker and as result backend. Workers and taskgate must agree on every value.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::value::{Secret, Span, Text};
use super::{Error, Said};
use celery::task::QueueName;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawBroker {
    url: Option<Text>,
    key_prefix: Option<Text>,
    default_queue: Option<Text>,
    visibility_timeout: Option<Span>,
    sentinel_master: Option<Text>,
    sentinel_password: Option<Text>,
    tls_ca: Option<Text>,
    connect_timeout: Option<Span>,
    response_timeout: Option<Span>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawBackend {
    url: Option<Text>,
    key_prefix: Option<Text>,
    result_expires: Option<Span>,
    sentinel_master: Option<Text>,
    sentinel_password: Option<Text>,
    tls_ca: Option<Text>,
    connect_timeout: Option<Span>,
    response_timeout: Option<Span>,
}

#[derive(Debug, Clone)]
pub struct Broker {
    pub redis: Redis,
    /// Where tasks go that nothing else routes. Default `celery`, as in Celery.
    pub default_queue: QueueName,
    /// kombu's: after it an unacknowledged message is delivered again. Default one hour, as in Celery.
    pub visibility_timeout: Duration,
}

#[derive(Debug, Clone)]
pub struct Backend {
    pub redis: Redis,
    /// How long our worker's results stay in Redis (Python workers have their own setting). Default one hour.
    pub result_expires: Duration,
}

/// One Redis and how to reach it.
#[derive(Debug, Clone)]
pub struct Redis {
    /// `redis://`, `rediss://`, `unix://`, or `sentinel://host:port[,host:port…]/db`.
    pub url: Secret,
    /// kombu's or Celery's `global_keyprefix`. Default empty.
    pub key_prefix: String,
    /// The name Sentinel knows the master by. Needed with `sentinel://`.
    pub sentinel_master: Option<String>,
    /// Of the Sentinels themselves; the URL's is the master's. Default none.
    pub sentinel_password: Option<Secret>,
    /// A PEM file with the authorities that may have signed the server's certificate, instead of the public ones.
    pub tls_ca: Option<PathBuf>,
    /// For making a connection. Default 2 s.
    pub connect_timeout: Duration,
    /// For commands that do not block. Default 5 s.
    pub response_timeout: Duration,
}

struct RawRedis {
    url: Option<Text>,
    key_prefix: Option<Text>,
    sentinel_master: Option<Text>,
    sentinel_password: Option<Text>,
    tls_ca: Option<Text>,
    connect_timeout: Option<Span>,
    response_timeout: Option<Span>,
}

impl Broker {
    pub(super) fn read(raw: RawBroker, said: &Said) -> Result<Self, Error> {
        let RawBroker {
            url,
            key_prefix,
            sentinel_master,
            sentinel_password,
            tls_ca,
            connect_timeout,
            response_timeout,
            ..
        } = raw;
        let redis =
            RawRedis { url, key_prefix, sentinel_master, sentinel_password, tls_ca, connect_timeout, response_timeout };
        let queue = raw.default_queue.map_or_else(|| "celery".to_owned(), |text| text.0);
        Ok(Self {
            redis: Redis::read(redis, "broker", "redis://127.0.0.1:6379/0", said)?,
            default_queue: QueueName::parse(queue)
                .map_err(|error| Error::value(said.place("broker.default_queue"), error.to_string()))?,
            visibility_timeout: raw.visibility_timeout.map_or(Duration::from_hours(1), |span| span.0),
        })
    }
}

impl Backend {
    /// Where only the broker is said, its Redis holds the results too.
    pub(super) fn read(raw: RawBackend, broker: &Redis, said: &Said) -> Result<Self, Error> {
        let RawBackend {
            url,
            key_prefix,
            sentinel_master,
            sentinel_password,
            tls_ca,
            connect_timeout,
            response_timeout,
            ..
        } = raw;
        let only_broker = said.has("broker.url") && url.is_none();
        let default = if only_broker { broker.url.reveal() } else { "redis://127.0.0.1:6379/1" };
        let master = broker.sentinel_master.clone().filter(|_| only_broker).map(Text);
        let sentinel_master = sentinel_master.or(master);
        let same = |value: &Option<Text>, other: Option<&str>| {
            value.clone().or_else(|| other.filter(|_| only_broker).map(|text| Text(text.to_owned())))
        };
        let sentinel_password = same(&sentinel_password, broker.sentinel_password.as_ref().map(Secret::reveal));
        let tls_ca = same(&tls_ca, broker.tls_ca.as_ref().and_then(|path| path.to_str()));
        let redis =
            RawRedis { url, key_prefix, sentinel_master, sentinel_password, tls_ca, connect_timeout, response_timeout };
        Ok(Self {
            redis: Redis::read(redis, "backend", default, said)?,
            result_expires: raw.result_expires.map_or(Duration::from_hours(1), |span| span.0),
        })
    }
}

impl Redis {
    fn read(raw: RawRedis, section: &str, default: &str, said: &Said) -> Result<Self, Error> {
        let key = format!("{section}.url");
        let url = raw.url.map_or_else(|| default.to_owned(), |text| celery_url(&text.0));
        let (url, ssl) = take_ssl(&url);
        let url = Secret::new(url);
        if ssl.unverified {
            let message =
                "asks for no check of the server's certificate, which protects nothing; name its authority in tls_ca";
            return Err(Error::value(said.place(&key), message));
        }
        if !matches!(url.scheme(), "redis" | "rediss" | "unix" | "redis+unix" | "sentinel") {
            let message = format!(
                "{:?} is not supported: taskgate speaks to Celery over Redis; write redis://, rediss://, unix:// or sentinel://",
                url.scheme()
            );
            return Err(Error::value(said.place(&key), message));
        }
        let master = raw.sentinel_master.map(|text| text.0);
        if url.scheme() == "sentinel" && master.is_none() {
            let other = format!("{section}.sentinel_master");
            return Err(Error::pair(
                said.place(&key),
                said.place(&other),
                "Sentinel must be asked for a master by name",
            ));
        }
        Ok(Self {
            url,
            key_prefix: raw.key_prefix.map_or_else(String::new, |text| text.0),
            sentinel_master: master,
            sentinel_password: raw.sentinel_password.map(|text| Secret::new(text.0)),
            tls_ca: raw.tls_ca.map(|text| text.0).or(ssl.ca).map(PathBuf::from),
            connect_timeout: raw.connect_timeout.map_or(Duration::from_secs(2), |span| span.0),
            response_timeout: raw.response_timeout.map_or(Duration::from_secs(5), |span| span.0),
        })
    }
}

/// What a URL says of TLS, in redis-py's words.
#[derive(Debug, Default, PartialEq)]
struct Ssl {
    ca: Option<String>,
    unverified: bool,
}

/// Takes `ssl_cert_reqs`, `ssl_ca_certs` and the like out of a URL.
fn take_ssl(url: &str) -> (String, Ssl) {
    let Some((front, query)) = url.split_once('?') else { return (url.to_owned(), Ssl::default()) };
    let mut ssl = Ssl::default();
    let kept = query.split('&').filter(|pair| match pair.split_once('=').unwrap_or((pair, "")) {
        ("ssl_ca_certs", path) => {
            ssl.ca = Some(path.to_owned());
            false
        }
        ("ssl_cert_reqs", word) => {
            ssl.unverified =
                matches!(word.to_ascii_lowercase().as_str(), "none" | "cert_none" | "optional" | "cert_optional");
            false
        }
        ("ssl_check_hostname", _) => false,
        _ => true,
    });
    let kept = kept.collect::<Vec<_>>().join("&");
    (if kept.is_empty() { front.to_owned() } else { format!("{front}?{kept}") }, ssl)
}

/// Celery writes several Sentinels as `sentinel://a:1/0;sentinel://b:2/0` and sockets as `redis+socket://`.
fn celery_url(text: &str) -> String {
    if let Some(path) = text.strip_prefix("redis+socket://") {
        return format!("unix://{}", path.replace("virtual_host=", "db="));
    }
    if !text.starts_with("sentinel://") || !text.contains(';') {
        return text.to_owned();
    }
    let parts: Vec<&str> = text.split(';').filter_map(|part| part.trim().strip_prefix("sentinel://")).collect();
    let database = parts.iter().find_map(|part| part.split_once('/')).map_or("0", |(_, database)| database);
    let hosts: Vec<&str> = parts.iter().map(|part| part.split('/').next().unwrap_or(part)).collect();
    format!("sentinel://{}/{database}", hosts.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn celery_s_ways_of_writing_urls_are_understood() {
        assert_eq!(celery_url("sentinel://a:1/2;sentinel://b:2/2"), "sentinel://a:1,b:2/2");
        assert_eq!(celery_url("redis+socket:///tmp/r.sock?virtual_host=3"), "unix:///tmp/r.sock?db=3");
        assert_eq!(celery_url("redis://h:1/0"), "redis://h:1/0");
    }

    #[test]
    fn what_celery_s_urls_say_of_tls_is_understood() {
        let (url, ssl) = take_ssl("rediss://h:1/0?ssl_cert_reqs=required&ssl_ca_certs=/etc/ca.pem&protocol=resp3");
        assert_eq!((url.as_str(), ssl.ca.as_deref()), ("rediss://h:1/0?protocol=resp3", Some("/etc/ca.pem")));
        assert!(!ssl.unverified && take_ssl("rediss://h?ssl_cert_reqs=CERT_NONE").1.unverified);
        assert_eq!(take_ssl("redis://h:1/0"), ("redis://h:1/0".to_owned(), Ssl::default()));
    }
}
