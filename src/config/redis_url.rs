//! Translates Redis URLs as kombu, Celery and redis-py write them into the form that our client reads.

/// What a URL says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct RedisUrl {
    /// For our client: `redis://`, `rediss://`, `unix://`, or `sentinel://[login@]host:port[,host:port…]/db`.
    pub url: String,
    pub tls_ca: Option<String>,
    /// Whether the URL turns off the check of the server's certificate.
    pub unverified: bool,
    /// Names of parameters and alternatives that have no effect here.
    pub ignored: Vec<String>,
}

/// Splits a URL into what our client needs. URLs of RabbitMQ (`amqp`, `pyamqp`, `rpc`) are returned unchanged.
pub(super) fn read(text: &str) -> RedisUrl {
    let is_other = ["amqp", "pyamqp", "rpc", "db+", "django-db"].iter().any(|other| text.starts_with(other));
    if is_other {
        return RedisUrl { url: text.to_owned(), ..RedisUrl::default() };
    }
    // Celery separates alternatives by `;`. Only Sentinels may have several.
    let mut parts = text.split(';').map(str::trim).filter(|part| !part.is_empty());
    let first = parts.next().unwrap_or(text);
    let others: Vec<&str> = parts.collect();
    let (rest, query) = first.split_once('?').unwrap_or((first, ""));
    let Query { database, username, password, mut read } = Query::read(query);
    read.url = match rest.split_once("://") {
        Some(("redis+socket" | "socket" | "unix" | "redis+unix", path)) => {
            let (login, path) = path.rsplit_once('@').map_or((None, path), |(login, path)| (Some(login), path));
            let (user, word) = login.map_or(("", ""), |login| login.split_once(':').unwrap_or((login, "")));
            socket(path, database.as_deref(), username.as_deref().unwrap_or(user), password.as_deref().unwrap_or(word))
        }
        Some(("sentinel", hosts)) => sentinels(hosts, &others, database.as_deref(), query),
        Some((scheme, host)) => {
            let host = with_login(host, username.as_deref(), password.as_deref());
            let (host, path) = host.split_once('/').unwrap_or((&host, ""));
            let database = database.as_deref().unwrap_or(path);
            format!("{scheme}://{host}/{database}")
        }
        None => rest.to_owned(),
    };
    if !read.url.starts_with("sentinel://") {
        read.ignored.extend(others.iter().map(|_| "a second URL after ;".to_owned()));
    }
    read
}

/// The query parameters that our client and TLS use, under redis-py's and kombu's names.
#[derive(Default)]
struct Query {
    database: Option<String>,
    username: Option<String>,
    password: Option<String>,
    read: RedisUrl,
}

impl Query {
    fn read(query: &str) -> Self {
        let mut this = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "db" | "virtual_host" => this.database = Some(value.trim_start_matches('/').to_owned()),
                "user" | "username" => this.username = Some(value.to_owned()),
                "pass" | "password" => this.password = Some(value.to_owned()),
                "ssl_ca_certs" => this.read.tls_ca = Some(decoded(value)),
                "ssl_cert_reqs" => this.read.unverified = asks_for_no_check(value),
                "ssl_check_hostname" | "ssl" | "protocol" => {}
                other => this.read.ignored.push(other.to_owned()),
            }
        }
        this
    }
}

fn asks_for_no_check(word: &str) -> bool {
    matches!(word.to_ascii_lowercase().as_str(), "none" | "cert_none" | "optional" | "cert_optional")
}

/// A URL for a Unix socket: our client takes its login from the query.
fn socket(path: &str, database: Option<&str>, user: &str, password: &str) -> String {
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let words = [("db", database.unwrap_or_default()), ("user", user), ("pass", password)];
    let query: Vec<String> =
        words.iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| format!("{name}={value}")).collect();
    if query.is_empty() { format!("unix://{path}") } else { format!("unix://{path}?{}", query.join("&")) }
}

/// A URL for Sentinels. The first login is the master's; Celery repeats it before every Sentinel.
fn sentinels(first: &str, others: &[&str], database: Option<&str>, query: &str) -> String {
    let others = others.iter().filter_map(|part| part.strip_prefix("sentinel://"));
    let parts: Vec<&str> = std::iter::once(first).chain(others).collect();
    let path = parts.iter().find_map(|part| part.split('?').next()?.split_once('/')).map_or("0", |(_, path)| path);
    let login =
        parts.iter().find_map(|part| part.rsplit_once('@')).map_or(String::new(), |(login, _)| format!("{login}@"));
    let host = |part: &&str| {
        let part = part.split(['/', '?']).next().unwrap_or_default();
        part.rsplit_once('@').map_or(part, |(_, host)| host).to_owned()
    };
    let hosts: Vec<String> = parts.iter().map(host).collect();
    let tls = if query.split('&').any(|pair| pair == "ssl=true") { "?ssl=true" } else { "" };
    format!("sentinel://{login}{}/{}{tls}", hosts.join(","), database.unwrap_or(path))
}

fn with_login(host: &str, username: Option<&str>, password: Option<&str>) -> String {
    match (username, password) {
        _ if host.contains('@') => host.to_owned(),
        (None, None) => host.to_owned(),
        (user, word) => format!("{}:{}@{host}", user.unwrap_or_default(), word.unwrap_or_default()),
    }
}

/// Decodes percent escapes such as `%2F`.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, tail)) = rest.split_first() {
        let hex = tail
            .get(..2)
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match hex.filter(|_| *byte == b'%') {
            Some(value) => {
                bytes.push(value);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*byte);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ways_of_writing_a_redis_mean_the_same_as_for_celery() {
        for (theirs, ours) in [
            ("redis://h:1/0", "redis://h:1/0"),
            ("redis://:pw@h:1", "redis://:pw@h:1/"),
            ("redis://h:1/2?virtual_host=3", "redis://h:1/3"),
            ("redis://h?password=pw&db=1", "redis://:pw@h/1"),
            ("redis+socket:///tmp/r.sock?virtual_host=3", "unix:///tmp/r.sock?db=3"),
            ("redis+socket://:pw@/tmp/r.sock", "unix:///tmp/r.sock?pass=pw"),
            ("socket://me:pw@/tmp/r.sock?virtual_host=/1", "unix:///tmp/r.sock?db=1&user=me&pass=pw"),
            ("unix:///tmp/r.sock", "unix:///tmp/r.sock"),
            ("sentinel://a:1/2;sentinel://b:2/2", "sentinel://a:1,b:2/2"),
            ("sentinel://:pw@a:1/2;sentinel://:pw@b:2/2", "sentinel://:pw@a:1,b:2/2"),
            ("sentinel://a:1,b:2/0?ssl=true", "sentinel://a:1,b:2/0?ssl=true"),
            ("sentinel://a:1;sentinel://b:2", "sentinel://a:1,b:2/0"),
        ] {
            let read = read(theirs);
            assert_eq!((read.url.as_str(), read.ignored.len()), (ours, 0), "{theirs}");
        }
    }

    #[test]
    fn what_a_url_says_of_tls_is_taken_out_of_it() {
        let found = read("rediss://h:1/0?ssl_cert_reqs=required&ssl_ca_certs=%2Fetc%2Fca.pem");
        assert_eq!((found.url.as_str(), found.tls_ca.as_deref()), ("rediss://h:1/0", Some("/etc/ca.pem")));
        assert!(!found.unverified && read("rediss://h?ssl_cert_reqs=CERT_NONE").unverified);
    }

    #[test]
    fn what_means_nothing_here_is_named() {
        assert_eq!(read("redis://h/0?socket_timeout=5&client_name=x").ignored, ["socket_timeout", "client_name"]);
        let failover = read("redis://a:1/0;redis://b:1/0");
        assert_eq!((failover.url.as_str(), failover.ignored.len()), ("redis://a:1/0", 1));
    }
}
