//! The sample tasks, the same as those of `examples/celery-python`: a client sees no difference.

mod arithmetic;
mod bulk;
mod crawl;
mod document;
mod image;
mod info;
mod upkeep;

use std::path::PathBuf;
use std::time::Duration;

use taskgate_worker::Registry;

/// The directory of dev and the sample tasks, unless another one is named.
pub const DATA: &str = "taskgate-data";

/// Settings of the sample tasks.
#[derive(Debug, Clone)]
pub struct Samples {
    /// Base address of the notice boards, such as `http://127.0.0.1:8000/sample-site`.
    pub site: String,
    /// Where the tasks keep their files.
    pub directory: PathBuf,
    /// Pause after each page, so that the crawler does not overload the site. Default 200 ms.
    pub page_pause: Duration,
}

impl Samples {
    pub fn new(site: impl Into<String>, directory: impl Into<PathBuf>) -> Self {
        Self { site: site.into(), directory: directory.into(), page_pause: Duration::from_millis(200) }
    }

    /// Adds the sample tasks.
    pub fn register(self, registry: &mut Registry) {
        arithmetic::register(registry);
        bulk::register(registry);
        info::register(registry);
        document::register(registry, self.directory.join("sample-documents"));
        let (notices, sessions) = (self.directory.join(crawl::NOTICES), self.directory.join("sample-sessions"));
        upkeep::register(registry, notices, sessions);
        image::register(registry, crawl::client());
        crawl::register(registry, self);
    }
}
