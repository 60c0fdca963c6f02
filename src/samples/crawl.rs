//! `tasks.college_crawl_task`: fetches the list pages of a notice board and stores the notices that are new.
//!
//! A page looks like `<main data-pages="3"><ul><li class="notice" data-id="volunteer-1"><a href="…">Title</a></li>…`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use scraper::{Html, Selector};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::Mutex;

use super::Samples;
use taskgate_worker::{Context, PROGRESS, Registry, TaskError};

const SLUGS: [(&str, &str); 3] =
    [("봉사 공지사항 크롤링", "volunteer"), ("취업 공지사항 크롤링", "job"), ("장학금 공지사항 크롤링", "scholarship")];
/// The file with all saved notices, by category.
pub(super) const NOTICES: &str = "sample-notices.json";
const FETCH_TIMEOUT: Duration = Duration::from_secs(60);
/// Size limit of a list page, which normally has a few kilobytes.
const MAX_PAGE_BYTES: usize = 4 << 20;

#[derive(Deserialize)]
struct Category {
    category_name: String,
}

#[derive(Debug, Serialize)]
struct Report {
    total_items: usize,
    saved_items: usize,
    /// Seconds.
    duration: f64,
}

/// One list page.
#[derive(Debug, PartialEq)]
struct Page {
    /// How many pages the board has.
    total: u32,
    notices: Vec<Notice>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Notice {
    id: String,
    title: String,
    url: String,
}

struct Crawler {
    client: reqwest::Client,
    samples: Samples,
    seen: Mutex<Seen>,
}

pub(super) fn register(registry: &mut Registry, samples: Samples) {
    let seen = Mutex::new(Seen { file: samples.directory.join(NOTICES) });
    let crawler = Arc::new(Crawler { client: client(), samples, seen });
    registry.task("tasks.college_crawl_task", move |context: Context, category: Category| {
        let crawler = Arc::clone(&crawler);
        async move { crawler.crawl(&context, &category.category_name).await }
    });
}

impl Crawler {
    async fn crawl(&self, context: &Context, category: &str) -> Result<Report, TaskError> {
        let started = Instant::now();
        let slug = slug(category)?;
        let mut report = Report { total_items: 0, saved_items: 0, duration: 0.0 };
        let (mut number, mut total) = (1, 1);
        while number <= total {
            let page = self.fetch(slug, number).await?;
            total = page.total;
            report.total_items += page.notices.len();
            report.saved_items += self.seen.lock().await.remember(category, page.notices).await?;
            let message = format!("{category}: page {number} of {total}, {} new", report.saved_items);
            context.update_state(PROGRESS, json!({"progress": number, "total": total, "message": message})).await?;
            number += 1;
            tokio::time::sleep(self.samples.page_pause).await;
        }
        report.duration = (started.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
        Ok(report)
    }

    async fn fetch(&self, slug: &str, number: u32) -> Result<Page, TaskError> {
        let url = format!("{}/{slug}/{number}", self.samples.site.trim_end_matches('/'));
        let mut answer = self.client.get(&url).timeout(FETCH_TIMEOUT).send().await?.error_for_status()?;
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_PAGE_BYTES {
                return Err(TaskError::fail("ValueError", format!("{url} is larger than {MAX_PAGE_BYTES} bytes")));
            }
        }
        Ok(read_page(&String::from_utf8_lossy(&body)))
    }
}

fn slug(category: &str) -> Result<&'static str, TaskError> {
    let found = SLUGS.into_iter().find(|(name, _)| *name == category);
    found.map(|(_, slug)| slug).ok_or_else(|| {
        let known = SLUGS.map(|(name, _)| name).join(", ");
        TaskError::fail("ValueError", format!("unknown category '{category}', known: {known}"))
    })
}

fn read_page(html: &str) -> Page {
    let select = |css: &str| Selector::parse(css).expect("a selector of this file");
    let document = Html::parse_document(html);
    let total = document.select(&select("[data-pages]")).find_map(|main| main.attr("data-pages")?.parse().ok());
    let (item, link) = (select("li.notice"), select("a"));
    let notices = document.select(&item).map(|item| {
        let link = item.select(&link).next();
        let url = link.and_then(|link| link.attr("href")).unwrap_or_default().to_owned();
        let title = link.map(|link| link.text().collect::<String>().trim().to_owned()).unwrap_or_default();
        Notice { id: item.attr("data-id").map_or_else(|| url.clone(), str::to_owned), title, url }
    });
    Page { total: total.unwrap_or(1), notices: notices.collect() }
}

/// All notices that were ever saved, in one small file.
struct Seen {
    file: PathBuf,
}

impl Seen {
    /// Stores the notices that are new, and returns how many.
    async fn remember(&self, category: &str, notices: Vec<Notice>) -> Result<usize, TaskError> {
        let mut all = self.read().await?;
        let known = all.entry(category.to_owned()).or_default();
        let mut ids: BTreeSet<String> = known.iter().map(|notice| notice.id.clone()).collect();
        let before = known.len();
        known.extend(notices.into_iter().filter(|notice| ids.insert(notice.id.clone())));
        let saved = known.len() - before;
        if saved > 0 {
            write_whole(&self.file, &serde_json::to_vec(&all)?).await?;
        }
        Ok(saved)
    }

    async fn read(&self) -> Result<BTreeMap<String, Vec<Notice>>, TaskError> {
        match tokio::fs::read(&self.file).await {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Replaces a file in one step: a crash leaves the old one or the new one.
pub(super) async fn write_whole(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(directory) = file.parent() {
        tokio::fs::create_dir_all(directory).await?;
    }
    let part = file.with_extension("part");
    tokio::fs::write(&part, bytes).await?;
    tokio::fs::rename(&part, file).await
}

/// An HTTP client with built-in root certificates, so that it works in an empty container.
pub(super) fn client() -> reqwest::Client {
    let roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    reqwest::Client::builder().tls_backend_preconfigured(tls).build().expect("nothing of it depends on the machine")
}

#[cfg(all(test, feature = "dev"))]
mod tests {
    use super::*;
    use crate::dev::notice_boards;

    #[test]
    fn a_list_page_is_read() {
        let page = read_page(&notice_boards::page("job", 2).unwrap());
        assert_eq!((page.total, page.notices.len()), (notice_boards::PAGES, notice_boards::PER_PAGE as usize));
        let first =
            Notice { id: "job-11".into(), title: "취업 공지 11".into(), url: "/sample-site/job/items/11".into() };
        assert_eq!(page.notices[0], first);
        assert_eq!(read_page("no html at all"), Page { total: 1, notices: Vec::new() });
    }

    #[tokio::test]
    async fn a_notice_is_saved_once() {
        let directory = tempfile::tempdir().unwrap();
        let seen = Seen { file: directory.path().join("deep/notices.json") };
        let notices = read_page(&notice_boards::page("job", 1).unwrap()).notices;
        assert_eq!(seen.remember("a", notices.clone()).await.unwrap(), 10);
        assert_eq!(seen.remember("a", notices.clone()).await.unwrap(), 0);
        assert_eq!(seen.remember("b", notices).await.unwrap(), 10);
    }
}
