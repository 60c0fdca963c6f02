//! Ensures that only one gateway uses a database file: two would publish every task twice, because SQLite cannot lock the rows of a pass.
//!
//! A gateway holds an exclusive lock on `<file>.lock` and writes its identity into it, for the error message of the next gateway. The
//! kernel frees the lock when the process ends in any way, so a leftover file does not lock anyone out. Commands that only read or write
//! a row (`token`, `migrate`, `check`) take no lock.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// Maximum length of a holder's identity that is shown.
const LONGEST: u64 = 512;

/// Why a gateway cannot use the file.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    #[error(
        "{} is in use by another gateway ({holder}): two on one SQLite file would publish tasks twice; stop that one, or \
         use PostgreSQL, which any number of gateways share",
        database.display()
    )]
    Taken { database: PathBuf, holder: String },
    #[error("{} cannot be locked", lock.display())]
    Lock {
        lock: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// Holds the lock until it is dropped.
#[derive(Debug)]
pub(super) struct Claim {
    _lock: File,
}

/// Takes the lock for `holder`, whose name is shown to the next gateway that tries.
pub(super) fn take(database: &Path, holder: &str) -> Result<Claim, ClaimError> {
    let path = lock_path(database);
    let failed = |source| ClaimError::Lock { lock: path.clone(), source };
    let mut lock =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(ClaimError::Taken { database: database.to_owned(), holder: named(&mut lock) });
        }
        Err(TryLockError::Error(source)) => return Err(failed(source)),
    }
    lock.set_len(0).and_then(|()| lock.write_all(holder.as_bytes())).map_err(failed)?;
    Ok(Claim { _lock: lock })
}

/// The lock file's path, beside the real file, whatever path or link was used.
fn lock_path(database: &Path) -> PathBuf {
    let mut path = database.canonicalize().unwrap_or_else(|_| database.to_owned()).into_os_string();
    path.push(".lock");
    path.into()
}

fn named(lock: &mut File) -> String {
    let mut text = Vec::new();
    match lock.take(LONGEST).read_to_end(&mut text) {
        Ok(count) if count > 0 => String::from_utf8_lossy(&text).trim().to_owned(),
        Ok(_) | Err(_) => "it has not written who it is yet".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_refused_and_told_who_the_first_is() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("ledger.db");
        let first = take(&database, "process 7 on h").unwrap();
        let refused = take(&database, "process 8 on h").unwrap_err().to_string();
        assert!(refused.contains("ledger.db") && refused.contains("process 7 on h"), "{refused}");
        drop(first);
        let next = take(&database, "process 9 on h").unwrap();
        assert!(take(&database, "x").unwrap_err().to_string().contains("process 9 on h"));
        drop(next);
    }

    #[test]
    fn a_link_to_the_file_is_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let (database, link) = (folder.path().join("ledger.db"), folder.path().join("other.db"));
        std::fs::write(&database, "").unwrap();
        std::os::unix::fs::symlink(&database, &link).unwrap();
        let _first = take(&database, "process 7 on h").unwrap();
        assert!(matches!(take(&link, "process 8 on h"), Err(ClaimError::Taken { .. })));
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named() {
        let error = take(Path::new("/nowhere/ledger.db"), "process 7 on h").unwrap_err();
        assert!(error.to_string().contains("/nowhere/ledger.db.lock"), "{error}");
    }
}
