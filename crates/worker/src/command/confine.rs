//! Confines a command: an environment with the listed variables only, a directory of its own, and bounds on memory, output and
//! processes.
//!
//! Memory and file sizes are bounded twice: the kernel bounds each process (`RLIMIT_DATA`, `RLIMIT_FSIZE`), and [`super::share`] adds
//! up all processes of the command. The directory is removed when its [`Place`] is dropped, however the command ended.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use runtime::clock;
use tracing::warn;

/// Bounds of one run, all its processes together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of resident memory, and of any one file. Default 1 GiB.
    pub memory: u64,
    /// Bytes on both outputs. Default 16 MiB.
    pub output: u64,
    /// Processes at once. Default 64.
    pub processes: u32,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { memory: 1 << 30, output: 16 << 20, processes: 64 }
    }
}

/// What happens to a value that begins with `-`, which a program could take for an option.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Dashes {
    /// The run is refused.
    #[default]
    Refuse,
    /// `--` is put before the values: for programs that support it.
    Separate,
    /// The value is passed on: for programs that take no options after their first argument.
    Allow,
}

/// Where a command runs.
pub(super) struct Place {
    path: PathBuf,
    is_own: bool,
}

impl Place {
    /// The directory chosen for the command, or a new one that only this user can enter.
    pub fn make(chosen: Option<&Path>) -> std::io::Result<Self> {
        if let Some(path) = chosen {
            return Ok(Self { path: path.to_owned(), is_own: false });
        }
        // Not named after the task's id, because a client chooses that.
        let path = std::env::temp_dir().join(format!("taskgate-command-{}", clock::random_id()));
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self { path, is_own: true })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_own
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            warn!(%error, "the directory {} of a command stays: {error}", self.path.display());
        }
    }
}

/// Resolves a relative path against the directory in which the worker was started, not the one in which the command runs.
pub(super) fn absolute(program: &Path) -> PathBuf {
    if program.is_absolute() || program.components().count() < 2 {
        return program.to_owned();
    }
    std::env::current_dir().map_or_else(|_| program.to_owned(), |here| here.join(program))
}

/// Bounds each process that the command starts.
#[expect(unsafe_code, reason = "limits are set between fork and exec, which only pre_exec can")]
pub(super) fn bound(command: &mut tokio::process::Command, bounds: Bounds) {
    let limits = [(libc::RLIMIT_DATA, bounds.memory), (libc::RLIMIT_FSIZE, bounds.memory), (libc::RLIMIT_CORE, 0)];
    let set = move || {
        for (resource, most) in limits {
            let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
            // SAFETY: setrlimit(2) reads one struct that lives here, and may be called between fork and exec.
            if unsafe { libc::setrlimit(resource, &raw const limit) } != 0 {
                return Err(std::io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: between fork and exec nothing is allocated and no lock is taken: the closure makes system calls only.
    unsafe {
        command.pre_exec(set);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_directory_is_its_owners_and_goes_with_its_run() {
        let place = Place::make(None).unwrap();
        let path = place.path().to_owned();
        std::fs::create_dir_all(path.join("a/b")).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        drop(place);
        assert!(!path.exists());
        let chosen = std::env::temp_dir();
        drop(Place::make(Some(&chosen)).unwrap());
        assert!(chosen.exists());
    }

    #[test]
    fn a_path_is_the_workers_and_a_name_is_looked_for() {
        assert_eq!(absolute(Path::new("./run.sh")), std::env::current_dir().unwrap().join("./run.sh"));
        assert_eq!(absolute(Path::new("tar")), Path::new("tar"));
        assert_eq!(absolute(Path::new("/bin/sh")), Path::new("/bin/sh"));
    }
}
