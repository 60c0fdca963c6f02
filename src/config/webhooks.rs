//! `[webhooks]`: how webhooks are delivered, and to which addresses.

use std::net::IpAddr;
use std::time::Duration;

use serde::Deserialize;

use super::value::{Count, Span, Switch, Words};
use super::{Error, Said};

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawWebhooks {
    allow_private: Option<Switch>,
    allow: Option<Words>,
    timeout: Option<Span>,
    first_retry: Option<Span>,
    retry_for: Option<Span>,
    per_target: Option<Count>,
    concurrency: Option<Count>,
    keep: Option<Span>,
}

#[derive(Debug, Clone)]
pub struct Webhooks {
    /// Allows webhooks to loopback, private and link-local addresses. Default false.
    pub allow_private: bool,
    /// Host names (`hooks.internal`, `*.internal`), addresses and networks (`10.1.0.0/16`) that are allowed although they are
    /// private. Default none.
    pub allow: Vec<Allowed>,
    /// Timeout of one attempt, from the DNS lookup to the end of the answer's head. Default 10 s.
    pub timeout: Duration,
    /// Pause after the first failed attempt; each further pause is four times as long, at most four hours. Default 5 s.
    pub first_retry: Duration,
    /// How long a delivery is retried before it is given up. Default 24 h.
    pub retry_for: Duration,
    /// Concurrent attempts for one host and port. Default 4.
    pub per_target: usize,
    /// Concurrent attempts in this process. Default 64.
    pub concurrency: usize,
    /// How long finished deliveries are kept. Default 30 days.
    pub keep: Duration,
}

/// An exception from the rule against private targets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allowed {
    /// In lower case; a leading `*.` stands for any subdomain.
    Name(String),
    /// An address and the number of leading bits that count.
    Network(IpAddr, u8),
}

impl Allowed {
    fn parse(text: &str) -> Result<Self, String> {
        let refused = || format!("{text:?} is not a host name, address or network such as 10.1.0.0/16");
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        if let Ok(address) = address.trim_matches(['[', ']']).parse::<IpAddr>() {
            let most = if address.is_ipv4() { 32 } else { 128 };
            let bits = bits.map_or(Ok(most), |bits| bits.parse().map_err(|_| refused()))?;
            return if bits <= most { Ok(Self::Network(address, bits)) } else { Err(refused()) };
        }
        let is_name = |name: &str| {
            !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
        };
        if bits.is_none() && is_name(text.strip_prefix("*.").unwrap_or(text)) {
            return Ok(Self::Name(text.to_ascii_lowercase()));
        }
        Err(refused())
    }

    /// Whether it names this host.
    pub fn names(&self, host: &str) -> bool {
        let Self::Name(name) = self else { return false };
        let host = host.to_ascii_lowercase();
        match name.strip_prefix('*') {
            Some(suffix) => host.ends_with(suffix) && host.len() > suffix.len(),
            None => host == *name,
        }
    }

    /// Whether the address lies in it.
    pub fn holds(&self, address: IpAddr) -> bool {
        match (self, address.to_canonical()) {
            (Self::Network(IpAddr::V4(network), bits), IpAddr::V4(address)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(*bits)).unwrap_or(0);
                u32::from(*network) & mask == u32::from(address) & mask
            }
            (Self::Network(IpAddr::V6(network), bits), IpAddr::V6(address)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(*bits)).unwrap_or(0);
                u128::from(*network) & mask == u128::from(address) & mask
            }
            _ => false,
        }
    }
}

impl Webhooks {
    pub(super) fn read(raw: RawWebhooks, said: &Said) -> Result<Self, Error> {
        let span = |given: Option<Span>, usual: Duration| given.map_or(usual, |span| span.0);
        let count = |given: Option<Count>, usual: usize| {
            given.map_or(usual, |count| usize::try_from(count.0).unwrap_or(usize::MAX))
        };
        let allow = raw.allow.unwrap_or_default().0;
        let allow = allow.iter().map(|text| Allowed::parse(text)).collect::<Result<_, _>>();
        let webhooks = Self {
            allow_private: raw.allow_private.is_some_and(|switch| switch.0),
            allow: allow.map_err(|message| Error::value(said.place("webhooks.allow"), message))?,
            timeout: span(raw.timeout, Duration::from_secs(10)),
            first_retry: span(raw.first_retry, Duration::from_secs(5)),
            retry_for: span(raw.retry_for, Duration::from_hours(24)),
            per_target: count(raw.per_target, 4),
            concurrency: count(raw.concurrency, 64),
            keep: span(raw.keep, Duration::from_secs(30 * 86_400)),
        };
        for (key, length) in [("webhooks.timeout", webhooks.timeout), ("webhooks.first_retry", webhooks.first_retry)] {
            if length < Duration::from_millis(10) || length > Duration::from_hours(1) {
                return Err(Error::value(said.place(key), "must be 10 ms to 1 h"));
            }
        }
        for (key, number) in
            [("webhooks.per_target", webhooks.per_target), ("webhooks.concurrency", webhooks.concurrency)]
        {
            if !(1..=1_000).contains(&number) {
                return Err(Error::value(said.place(key), "must be 1 to 1000"));
            }
        }
        Ok(webhooks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_are_names_addresses_and_networks() {
        let network = Allowed::parse("10.1.0.0/16").unwrap();
        assert!(network.holds("10.1.200.3".parse().unwrap()) && !network.holds("10.2.0.1".parse().unwrap()));
        assert!(network.holds("::ffff:10.1.0.9".parse().unwrap()));
        assert!(Allowed::parse("0.0.0.0/0").unwrap().holds("8.8.8.8".parse().unwrap()));
        assert!(Allowed::parse("::1").unwrap().holds("::1".parse().unwrap()));
        let name = Allowed::parse("*.Internal").unwrap();
        assert!(name.names("hooks.internal") && !name.names("internal") && !name.names("evilinternal"));
        for text in ["", "10.0.0.0/33", "a b", "10.0.0.0/x", "h/8", "*."] {
            assert!(Allowed::parse(text).is_err(), "{text}");
        }
    }
}
