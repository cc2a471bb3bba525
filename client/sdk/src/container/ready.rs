//! Ready is not the same as started: waits that look at what the container really serves.

use std::time::Duration;

use teu_protocol::message::{ContainerState, RefusalCode};
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
            _ if self.is_gone() => Some(Error::Gone(info.id)),
            _ => None,
        }
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
