//! A real mail server (PyPI `aiosmtpd`), which prints what it is sent.

use std::process::Command;
use std::time::Duration;

use crate::harness::celery::root;
use crate::harness::ports;
use crate::harness::process::Process;
use crate::harness::wait;

pub struct MailServer {
    pub url: String,
    process: Process,
}

impl MailServer {
    /// # Panics
    /// When it does not listen in time; `tests/setup.sh` installs it.
    pub fn start() -> Self {
        let port = ports::free();
        let mut command = Command::new(root().join(".venv/smtp/bin/python"));
        command.args(["-u", "-m", "aiosmtpd", "-n", "-l", &format!("127.0.0.1:{port}")]);
        command.args(["-c", "aiosmtpd.handlers.Debugging", "stdout"]);
        let process = Process::start("aiosmtpd", command);
        wait::blocking(Duration::from_secs(60), "the mail server listens", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).ok()
        });
        Self { url: format!("smtp://127.0.0.1:{port}"), process }
    }

    /// The letters that came, as they were sent.
    pub fn letters(&self) -> Vec<String> {
        let log = self.process.log();
        log.split("MESSAGE FOLLOWS").skip(1).filter(|text| text.contains("END MESSAGE")).map(str::to_owned).collect()
    }
}
