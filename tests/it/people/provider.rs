//! A real OpenID provider (npm `oidc-provider`), and a simple browser that logs in there: it follows redirects, fills in forms, keeps
//! cookies.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use regex::Regex;
use reqwest::header::{COOKIE, LOCATION, SET_COOKIE};

use crate::harness::celery::root;
use crate::harness::process::Process;
use crate::harness::{http, ports};

pub struct Provider {
    pub issuer: String,
    _process: Process,
}

impl Provider {
    /// `redirect` is where it sends people back to.
    pub fn start(redirect: &str) -> Self {
        let port = ports::free();
        let mut command = Command::new("node");
        command.arg(root().join("tests/oidc_app/provider.mjs")).args([&port.to_string(), redirect]);
        command.env("OIDC_MODULES", root().join(".venv/oidc/node_modules"));
        let mut process = Process::start("oidc-provider", command);
        process.wait_for_log("ready on", Duration::from_secs(60));
        Self { issuer: format!("http://127.0.0.1:{port}"), _process: process }
    }
}

/// An answer: its status, where it leads, and its page.
pub struct Seen {
    pub status: u16,
    pub location: Option<String>,
    pub page: String,
}

/// A browser without scripts. Cookies are kept by site, as the tests need no more.
pub struct Person {
    client: reqwest::Client,
    cookies: BTreeMap<String, BTreeMap<String, String>>,
}

impl Person {
    pub fn new() -> Self {
        let client = http::client().redirect(reqwest::redirect::Policy::none()).build().expect("a client");
        Self { client, cookies: BTreeMap::new() }
    }

    /// The value of a cookie of this site.
    pub fn cookie(&self, url: &str, name: &str) -> Option<&str> {
        self.cookies.get(&site(url))?.get(name).map(String::as_str)
    }

    pub async fn get(&mut self, url: &str) -> Seen {
        self.send(self.client.get(url), url).await
    }

    pub async fn send(&mut self, request: reqwest::RequestBuilder, url: &str) -> Seen {
        let kept = self.cookies.entry(site(url)).or_default();
        let line = kept.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ");
        let answer = request.header(COOKIE, line).send().await.expect("an answer");
        for cookie in answer.headers().get_all(SET_COOKIE) {
            let text = cookie.to_str().expect("a text");
            let (name, value) = text.split(';').next().and_then(|pair| pair.split_once('=')).expect("a cookie");
            // An empty value takes a cookie away.
            if value.is_empty() {
                kept.remove(name);
            } else {
                kept.insert(name.to_owned(), value.to_owned());
            }
        }
        let location = answer.headers().get(LOCATION).map(|value| value.to_str().expect("a text").to_owned());
        let status = answer.status().as_u16();
        Seen { status, location: location.map(|to| absolute(url, &to)), page: answer.text().await.expect("a page") }
    }

    /// Logs in at the provider as `name`, from the address that the gateway sent the browser to. Answers with the address that the
    /// provider sends it back to, unvisited.
    pub async fn logs_in_at(&mut self, provider: &str, start: &str, name: &str) -> String {
        let action = Regex::new(r#"action="([^"]+)""#).expect("an expression");
        let mut url = start.to_owned();
        let mut seen = self.get(&url).await;
        for _ in 0..12 {
            if let Some(to) = seen.location {
                if !to.starts_with(provider) {
                    return to;
                }
                url = to;
                seen = self.get(&url).await;
                continue;
            }
            let form = action.captures(&seen.page).unwrap_or_else(|| panic!("no form at {url}: {}", seen.page));
            let target = absolute(&url, &form[1]);
            let prompt = if seen.page.contains("value=\"login\"") { "login" } else { "consent" };
            let fields = format!("prompt={prompt}&login={name}&password=any");
            let request = self.client.post(&target).body(fields);
            let request = request.header("content-type", "application/x-www-form-urlencoded");
            url = target.clone();
            seen = self.send(request, &target).await;
        }
        panic!("the provider leads nowhere");
    }
}

fn site(url: &str) -> String {
    url.splitn(4, '/').take(3).collect::<Vec<_>>().join("/")
}

fn absolute(base: &str, place: &str) -> String {
    if place.contains("://") { place.to_owned() } else { format!("{}{place}", site(base)) }
}
