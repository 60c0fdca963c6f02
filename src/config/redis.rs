//! `[broker]` and `[backend]`: the fleet's Redis as broker and as result backend. Workers and taskgate must agree on every value.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::redis_url::{self, RedisUrl};
use super::results::{self, Results};
use super::transport::{RawTransport, prefix};
use super::value::{Scalar, Secret, Span, Switch, Text, Words};
use super::{Error, Said};
use broker::QueueOrder;
use celery::Transport;
use celery::task::QueueName;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawBroker {
    url: Option<Text>,
    key_prefix: Option<Text>,
    /// The same as `key_prefix`, in kombu's words.
    global_keyprefix: Option<Text>,
    default_queue: Option<Text>,
    visibility_timeout: Option<Span>,
    /// kombu's: separator between queue name and priority in the name of a list. Default kombu's own.
    sep: Option<Text>,
    /// kombu's: the priorities that have a list of their own. Default 0, 3, 6, 9.
    priority_steps: Option<Words>,
    /// kombu's: in which order a worker serves its queues, `round_robin`, `priority` or `sorted`. Default `round_robin`.
    queue_order_strategy: Option<Text>,
    /// kombu's: prefix of fanout channels; `false` for none. Default `true`.
    fanout_prefix: Option<Scalar>,
    /// kombu's: whether the names of fanout channels contain the routing key. Default `true`.
    fanout_patterns: Option<Switch>,
    /// kombu's: the hash of unacknowledged messages. Default `unacked`.
    unacked_key: Option<Text>,
    /// kombu's: the sorted set of their delivery times. Default `unacked_index`.
    unacked_index_key: Option<Text>,
    /// kombu's: the lock that a worker holds while it restores them. Default `unacked_mutex`.
    unacked_mutex_key: Option<Text>,
    sentinel_master: Option<Text>,
    sentinel_password: Option<Text>,
    tls_ca: Option<Text>,
    connect_timeout: Option<Span>,
    response_timeout: Option<Span>,
    /// RabbitMQ's management API, `http://user:password@host:15672`: shows the messages of a queue. Default none.
    management_url: Option<Text>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawBackend {
    url: Option<Text>,
    key_prefix: Option<Text>,
    /// The same as `key_prefix`, in kombu's words.
    global_keyprefix: Option<Text>,
    result_expires: Option<Span>,
    /// With `django-db`: where Django's database is, `postgres://…`. Default the address in `url`.
    database_url: Option<Text>,
    /// With results in a database: the name of the table, perhaps with a schema and a dot in front. Default `celery_taskmeta`, with
    /// `django-db` `django_celery_results_taskresult`.
    table: Option<Text>,
    /// With results in a database: how often those of unfinished tasks are looked for without an event that tells an end, 1 s to 1 h.
    /// Default 30 s.
    poll: Option<Span>,
    reply_queue: Option<Text>,
    sentinel_master: Option<Text>,
    sentinel_password: Option<Text>,
    tls_ca: Option<Text>,
    connect_timeout: Option<Span>,
    response_timeout: Option<Span>,
}

#[derive(Debug, Clone)]
pub struct Broker {
    pub redis: Redis,
    /// Queue of tasks that no route names a queue for. Default `celery`, as in Celery.
    pub default_queue: QueueName,
    /// kombu's: time after which an unacknowledged message is delivered again. Default one hour, as in Celery.
    pub visibility_timeout: Duration,
    /// kombu's transport options: the names of the fleet's keys and channels.
    pub transport: Transport,
    /// The order in which our worker serves its queues, unless a flag sets another one.
    pub queue_order: QueueOrder,
    /// RabbitMQ's management API, which shows the messages of a queue.
    pub management_url: Option<Secret>,
}

#[derive(Debug, Clone)]
pub struct Backend {
    pub redis: Redis,
    /// With results over the broker (`rpc://`): the queue that workers send results to; each ledger needs its own. Default
    /// `taskgate.results`.
    pub reply_queue: String,
    /// Where results are in the fleet's own database (`db+postgresql://`, `django-db`): which table, and how often it is looked at.
    pub results: Option<Results>,
    /// How long results of the Rust worker stay in Redis (Python workers have their own setting). Default one hour.
    pub result_expires: Duration,
}

/// One Redis and how to reach it.
#[derive(Debug, Clone)]
pub struct Redis {
    /// `redis://`, `rediss://`, `unix://` or `redis+socket://`, or `sentinel://host:port[,host:port…]/db`. The broker may be RabbitMQ: `amqp://`,
    /// `amqps://`, several with `;` between; results are then in Redis, or `rpc://`, `db+postgresql://…`, `django-db`.
    pub url: Secret,
    /// Celery's `global_keyprefix` of the result backend, kombu's of the broker. Default empty.
    pub key_prefix: String,
    /// The master's name in Sentinel. Required with `sentinel://`.
    pub sentinel_master: Option<String>,
    /// Password of the Sentinels themselves; the URL holds the master's. Default none.
    pub sentinel_password: Option<Secret>,
    /// A PEM file with the certificate authorities to trust for the server's certificate, instead of the public ones.
    pub tls_ca: Option<PathBuf>,
    /// Timeout for opening a connection. Default 2 s.
    pub connect_timeout: Duration,
    /// Timeout for commands that do not block. Default 5 s.
    pub response_timeout: Duration,
    /// Parameters of the URL that have no effect here.
    pub ignored: Vec<String>,
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
            global_keyprefix,
            sep,
            priority_steps,
            queue_order_strategy,
            fanout_prefix,
            fanout_patterns,
            unacked_key,
            unacked_index_key,
            unacked_mutex_key,
            sentinel_master,
            sentinel_password,
            tls_ca,
            connect_timeout,
            response_timeout,
            management_url,
            ..
        } = raw;
        let transport = RawTransport {
            key_prefix,
            global_keyprefix,
            sep,
            priority_steps,
            queue_order_strategy,
            fanout_prefix,
            fanout_patterns,
            unacked_key,
            unacked_index_key,
            unacked_mutex_key,
        };
        let (transport, queue_order) = transport.read(said)?;
        let key_prefix = Some(Text(transport.global_keyprefix.clone()));
        let redis =
            RawRedis { url, key_prefix, sentinel_master, sentinel_password, tls_ca, connect_timeout, response_timeout };
        let queue = raw.default_queue.map_or_else(|| "celery".to_owned(), |text| text.0);
        let redis = Redis::read(redis, "broker", "redis://127.0.0.1:6379/0", said)?;
        let management_url = management_url.map(|text| management(&text.0, &redis, said)).transpose()?;
        Ok(Self {
            management_url,
            redis,
            default_queue: QueueName::parse(queue)
                .map_err(|error| Error::value(said.place("broker.default_queue"), error.to_string()))?,
            visibility_timeout: raw.visibility_timeout.map_or(Duration::from_hours(1), |span| span.0),
            transport,
            queue_order,
        })
    }
}

impl Backend {
    /// Results are records in a Redis.
    pub fn is_redis(&self) -> bool {
        self.reply_queue().is_none() && self.results.is_none()
    }

    /// The queue of results, if they come over the broker.
    pub fn reply_queue(&self) -> Option<&str> {
        (self.redis.url.scheme() == RPC).then_some(&self.reply_queue)
    }

    /// Without a backend of its own, the broker's Redis holds the results too.
    pub(super) fn read(raw: RawBackend, broker: &Redis, said: &Said) -> Result<Self, Error> {
        let RawBackend {
            url,
            key_prefix,
            global_keyprefix,
            sentinel_master,
            sentinel_password,
            tls_ca,
            connect_timeout,
            response_timeout,
            database_url,
            table,
            poll,
            ..
        } = raw;
        let only_broker = said.has("broker.url") && url.is_none();
        if only_broker && broker.is_rabbitmq() {
            let message = "is needed: with RabbitMQ as the broker, results are in a Redis of their own (redis://…), come back over \
                 the broker (rpc://), or are in a database (db+postgresql://…, django-db)";
            return Err(Error::value("backend.url", message));
        }
        let default = if only_broker { broker.url.reveal() } else { "redis://127.0.0.1:6379/1" };
        let master = broker.sentinel_master.clone().filter(|_| only_broker).map(Text);
        let sentinel_master = sentinel_master.or(master);
        let same = |value: &Option<Text>, other: Option<&str>| {
            value.clone().or_else(|| other.filter(|_| only_broker).map(|text| Text(text.to_owned())))
        };
        let sentinel_password = same(&sentinel_password, broker.sentinel_password.as_ref().map(Secret::reveal));
        let tls_ca = same(&tls_ca, broker.tls_ca.as_ref().and_then(|path| path.to_str()));
        let key_prefix = Some(Text(prefix(key_prefix, global_keyprefix, "backend", said)?));
        let redis =
            RawRedis { url, key_prefix, sentinel_master, sentinel_password, tls_ca, connect_timeout, response_timeout };
        let redis = Redis::read(redis, "backend", default, said)?;
        if redis.url.scheme() == RPC && !broker.is_rabbitmq() {
            let (ours, other) = (said.place("backend.url"), said.place("broker.url"));
            return Err(Error::pair(ours, other, "results can come over the broker only if it is RabbitMQ"));
        }
        let results = results::read(redis.url.reveal(), database_url, table, poll, said)?;
        if results.is_some() && !broker.is_rabbitmq() {
            let (ours, other) = (said.place("backend.url"), said.place("broker.url"));
            let harm =
                "results in a database are read only where the broker is RabbitMQ: with Redis repairs need its records";
            return Err(Error::pair(ours, other, harm));
        }
        Ok(Self {
            redis,
            results,
            reply_queue: raw.reply_queue.map_or_else(|| "taskgate.results".to_owned(), |text| text.0),
            result_expires: raw.result_expires.map_or(Duration::from_hours(1), |span| span.0),
        })
    }
}

fn management(url: &str, broker: &Redis, said: &Said) -> Result<Secret, Error> {
    let place = said.place("broker.management_url");
    if !broker.is_rabbitmq() {
        return Err(Error::pair(place, said.place("broker.url"), "only RabbitMQ has such an API"));
    }
    let is_http = url.starts_with("http://") || url.starts_with("https://");
    if !is_http || reqwest::Url::parse(url).is_err() {
        return Err(Error::value(place, "must be http://user:password@host:15672"));
    }
    Ok(Secret::new(url.to_owned()))
}

/// RabbitMQ's scheme.
const AMQP: &str = "amqp";
/// Celery's results over the broker.
const RPC: &str = "rpc";

impl Redis {
    /// Whether the broker is RabbitMQ instead of Redis.
    pub fn is_rabbitmq(&self) -> bool {
        self.url.scheme().contains(AMQP)
    }

    fn read(raw: RawRedis, section: &str, default: &str, said: &Said) -> Result<Self, Error> {
        let key = format!("{section}.url");
        let given = raw.url.map_or_else(|| default.to_owned(), |text| text.0);
        let RedisUrl { url, tls_ca, unverified, ignored } = redis_url::read(&given);
        let url = Secret::new(url);
        if unverified {
            let message = "turns off the check of the server's certificate, so TLS protects nothing; name its authority in tls_ca";
            return Err(Error::value(said.place(&key), message));
        }
        let is_broker = section == "broker";
        let is_known = matches!(url.scheme(), "redis" | "rediss" | "unix" | "sentinel")
            || is_broker && matches!(url.scheme(), AMQP | "amqps" | "pyamqp")
            || !is_broker && (url.scheme() == RPC || results::is_database(url.reveal()));
        if !is_known {
            let more = if is_broker {
                "; RabbitMQ is amqp:// or amqps://"
            } else {
                "; with RabbitMQ also rpc://, db+postgresql:// or django-db"
            };
            let message =
                format!("{:?} is not supported: write redis://, rediss://, unix:// or sentinel://{more}", url.scheme());
            return Err(Error::value(said.place(&key), message));
        }
        let master = raw.sentinel_master.map(|text| text.0);
        if url.scheme() == "sentinel" && master.is_none() {
            let other = format!("{section}.sentinel_master");
            return Err(Error::pair(said.place(&key), said.place(&other), "Sentinel looks a master up by its name"));
        }
        Ok(Self {
            url,
            key_prefix: raw.key_prefix.map_or_else(String::new, |text| text.0),
            sentinel_master: master,
            sentinel_password: raw.sentinel_password.map(|text| Secret::new(text.0)),
            tls_ca: raw.tls_ca.map(|text| text.0).or(tls_ca).map(PathBuf::from),
            ignored,
            connect_timeout: raw.connect_timeout.map_or(Duration::from_secs(2), |span| span.0),
            response_timeout: raw.response_timeout.map_or(Duration::from_secs(5), |span| span.0),
        })
    }
}
