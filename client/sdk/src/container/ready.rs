//! Ready is not the same as started: waits that look at what the container really serves.

use std::time::Duration;

use futures::StreamExt as _;
use teu_protocol::message::{Channel, ContainerState, LogStart, RefusalCode};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{Instant, sleep_until, timeout_at},
};

use super::Container;
use crate::error::{Error, Result};

/// First pause between two looks; grows to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// Longest status line that is read, in bytes.
const MAX_STATUS_LINE: u64 = 1024;

impl Container {
    /// Waits until something accepts TCP connections on `port`. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::NotReady`] after `timeout`, [`Error::Ended`] if the container ends first,
    /// [`Error::Gone`].
    pub async fn wait_tcp(&self, port: u16, timeout: Duration) -> Result<()> {
        self.wait_ready("accepting connections", timeout, async || {
            self.connect(port).await.map(drop).map_err(Look::Error)
        })
        .await
    }

    /// Waits until `GET path` on `port` is answered with status 200. Cancel-safe.
    ///
    /// # Errors
    /// As [`Container::wait_tcp`].
    pub async fn wait_http_200(&self, port: u16, path: &str, timeout: Duration) -> Result<()> {
        self.wait_ready("answering 200", timeout, async || {
            let line = self.status_line(port, path).await?;
            let is_200 = line.split(' ').nth(1) == Some("200");
            if is_200 {
                Ok(())
            } else {
                Err(Look::Saw(format!("it answered `{}`", line.trim())))
            }
        })
        .await
    }

    /// Waits until its first process has written `text`, to either channel, now or earlier.
    /// Cancel-safe.
    ///
    /// # Errors
    /// As [`Container::wait_tcp`]; [`Error::Refused`] with `WrongState` if it is asleep.
    pub async fn wait_log(&self, text: &str, timeout: Duration) -> Result<()> {
        const WAITING_FOR: &str = "writing what was waited for";
        let read = async {
            let mut logs = self.logs(LogStart::Oldest, true).await?;
            let mut sought = [Sought::new(text), Sought::new(text)];
            while let Some(chunk) = logs.next().await {
                let chunk = chunk?;
                let [stdout, stderr] = &mut sought;
                let channel = match chunk.channel {
                    Channel::Stderr => stderr,
                    _ => stdout,
                };
                if channel.is_in(&chunk.bytes) {
                    return Ok(());
                }
            }
            let status = self.wait_exit().await?.status;
            let (container, waiting_for) = (self.id(), WAITING_FOR);
            Err(Error::Ended {
                container,
                status,
                waiting_for,
            })
        };
        let outcome = tokio::time::timeout(timeout, read).await;
        outcome.unwrap_or_else(|_| {
            Err(Error::NotReady {
                container: self.id(),
                waiting_for: WAITING_FOR,
                waited: timeout,
                last: "its output does not have it".to_owned(),
            })
        })
    }

    /// Runs a check in the container (program and arguments) again and again, until it exits with 0.
    /// Cancel-safe in that a check under way may go on until it ends, or this program does.
    ///
    /// # Errors
    /// As [`Container::wait_tcp`]; [`Error::Refused`] if the check cannot be run at all.
    pub async fn wait_exec(
        &self,
        check: impl IntoIterator<Item = impl Into<String>>,
        timeout: Duration,
    ) -> Result<()> {
        let check: Vec<String> = check.into_iter().map(Into::into).collect();
        self.wait_ready("passing its check", timeout, async || {
            let output = self.run(check.iter().cloned()).output().await;
            let output = output.map_err(Look::Error)?;
            let status = output.termination.status;
            if status.is_success() {
                return Ok(());
            }
            let said = String::from_utf8_lossy(&output.stderr);
            let line = said.lines().last().unwrap_or_default();
            Err(Look::Saw(format!("{status} {line}").trim().to_owned()))
        })
        .await
    }

    async fn status_line(&self, port: u16, path: &str) -> Result<String, Look> {
        let io = |error: std::io::Error| Look::Saw(error.to_string());
        let mut connection = self.connect(port).await.map_err(Look::Error)?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).await.map_err(io)?;
        let mut head = Vec::new();
        let mut connection = connection.take(MAX_STATUS_LINE);
        while !head.contains(&b'\n') {
            if connection.read_buf(&mut head).await.map_err(io)? == 0 {
                break;
            }
        }
        let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
        Ok(String::from_utf8_lossy(line).into_owned())
    }

    async fn wait_ready<F>(
        &self,
        waiting_for: &'static str,
        timeout: Duration,
        mut look: F,
    ) -> Result<()>
    where
        F: AsyncFnMut() -> Result<(), Look>,
    {
        let deadline = Instant::now() + timeout;
        let mut pause = FIRST_PAUSE;
        let mut last = "no answer".to_owned();
        loop {
            match timeout_at(deadline, look()).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(Look::Saw(what))) => last = what,
                Ok(Err(Look::Error(error))) if is_not_yet(&error) => last = error.to_string(),
                Ok(Err(Look::Error(error))) => return Err(error),
                Err(_) => {}
            }
            if let Some(error) = self.ended(waiting_for) {
                return Err(error);
            }
            let next = Instant::now() + pause;
            if next >= deadline {
                let (container, waited) = (self.id(), timeout);
                return Err(Error::NotReady {
                    container,
                    waiting_for,
                    waited,
                    last,
                });
            }
            sleep_until(next).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn ended(&self, waiting_for: &'static str) -> Option<Error> {
        let info = self.info();
        match info.state {
            ContainerState::Exited { termination, .. } => Some(Error::Ended {
                container: info.id,
                status: termination.status,
                waiting_for,
            }),
            _ if self.is_gone() => Some(self.view.borrow().why_gone()),
            _ => None,
        }
    }
}

/// A text in a channel that arrives in pieces.
struct Sought<'a> {
    text: &'a [u8],
    /// The end of what came, where the text may have begun.
    tail: Vec<u8>,
}

impl<'a> Sought<'a> {
    const fn new(text: &'a str) -> Self {
        Self {
            text: text.as_bytes(),
            tail: Vec::new(),
        }
    }

    /// Whether these bytes, after those before, have the text.
    fn is_in(&mut self, bytes: &[u8]) -> bool {
        self.tail.extend_from_slice(bytes);
        let width = self.text.len().max(1);
        let found =
            self.text.is_empty() || self.tail.windows(width).any(|window| window == self.text);
        self.tail.drain(..self.tail.len().saturating_sub(width - 1));
        found
    }
}

/// Why one look did not see it ready.
enum Look {
    Saw(String),
    Error(Error),
}

fn is_not_yet(error: &Error) -> bool {
    let closed = |code| matches!(code, RefusalCode::PortClosed | RefusalCode::WrongState);
    error.is_retryable() || error.refusal().is_some_and(|refusal| closed(refusal.code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_over_the_edges_of_chunks() {
        let mut sought = Sought::new("ready");
        assert!(!sought.is_in(b"not re"));
        assert!(!sought.is_in(b""));
        assert!(!sought.is_in(b"a"));
        assert!(sought.is_in(b"dy\n"));
        assert!(!sought.is_in(b"ready".get(1..).unwrap()));
        assert!(Sought::new("").is_in(b""));
        assert!(sought.tail.len() < 5);
    }
}
