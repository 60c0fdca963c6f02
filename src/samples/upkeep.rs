//! The sample tasks of the nightly and weekly schedules: `tasks.daily_report`, `tasks.weekly_summary`, `tasks.cleanup_old_sessions`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use taskgate_worker::{Context, Registry, TaskError};

const DAY: Duration = Duration::from_hours(24);

#[derive(Debug, PartialEq, Serialize)]
struct Summary {
    /// Saved notices by category.
    categories: BTreeMap<String, usize>,
    total_items: usize,
}

#[derive(Debug, Serialize)]
struct Total {
    total_items: usize,
}

#[derive(Deserialize)]
struct Age {
    #[serde(default = "thirty")]
    max_age_days: u32,
}

#[derive(Debug, PartialEq, Serialize)]
struct Removed {
    removed: usize,
    kept: usize,
}

fn thirty() -> u32 {
    30
}

/// `notices` is the crawler's file, `sessions` a directory with a file for each session.
pub(super) fn register(registry: &mut Registry, notices: PathBuf, sessions: PathBuf) {
    let file = notices.clone();
    registry.task("tasks.daily_report", move |_: Context, (): ()| {
        let file = file.clone();
        async move { Ok::<_, TaskError>(Total { total_items: summary(&file).await?.total_items }) }
    });
    registry.task("tasks.weekly_summary", move |_: Context, (): ()| {
        let file = notices.clone();
        async move { summary(&file).await }
    });
    registry.task("tasks.cleanup_old_sessions", move |_: Context, age: Age| {
        let sessions = sessions.clone();
        async move { clean_up(&sessions, DAY * age.max_age_days).await }
    });
}

async fn summary(file: &Path) -> Result<Summary, TaskError> {
    let saved: BTreeMap<String, Vec<Value>> = match tokio::fs::read(file).await {
        Ok(bytes) => serde_json::from_slice(&bytes)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
        Err(error) => return Err(error.into()),
    };
    let categories: BTreeMap<String, usize> = saved.into_iter().map(|(name, items)| (name, items.len())).collect();
    Ok(Summary { total_items: categories.values().sum(), categories })
}

/// Removes the files that were last written longer ago than `age`.
async fn clean_up(directory: &Path, age: Duration) -> Result<Removed, TaskError> {
    let mut done = Removed { removed: 0, kept: 0 };
    let mut entries = match tokio::fs::read_dir(directory).await {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(done),
        Err(error) => return Err(error.into()),
    };
    while let Some(entry) = entries.next_entry().await? {
        let metadata = entry.metadata().await?;
        if metadata.is_file() && is_old(metadata.modified()?, age) {
            tokio::fs::remove_file(entry.path()).await?;
            done.removed += 1;
        } else {
            done.kept += 1;
        }
    }
    Ok(done)
}

fn is_old(written: SystemTime, age: Duration) -> bool {
    written.elapsed().is_ok_and(|elapsed| elapsed > age)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn notices_are_counted_by_category() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("notices.json");
        assert_eq!(summary(&file).await.unwrap().total_items, 0);
        std::fs::write(&file, r#"{"a": [{"id": 1}, {"id": 2}], "b": [{"id": 3}]}"#).unwrap();
        let found = summary(&file).await.unwrap();
        assert_eq!((found.total_items, found.categories["a"]), (3, 2));
    }

    #[tokio::test]
    async fn only_old_sessions_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(clean_up(&directory.path().join("none"), DAY).await.unwrap(), Removed { removed: 0, kept: 0 });
        for (name, days) in [("new", 1), ("old", 40)] {
            let file = std::fs::File::create(directory.path().join(name)).unwrap();
            let now = std::fs::metadata(directory.path()).unwrap().modified().unwrap();
            file.set_modified(now - DAY * days).unwrap();
        }
        assert_eq!(clean_up(directory.path(), DAY * 30).await.unwrap(), Removed { removed: 1, kept: 1 });
        assert!(directory.path().join("new").exists());
    }
}
