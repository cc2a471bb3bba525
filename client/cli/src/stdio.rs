//! A process at the caller's standard input and output, until it ends.
//!
//! Output is written in the order in which it came; the exit code comes after the last byte.
//! Writing blocks on purpose: a slow reader of ours slows the process, as a pipe would.

use std::{
    io::{self, Read as _, Write as _},
    process::ExitCode,
    thread,
};

use teu::{Channel, Error, OutputChunk, Process, TermSize, Termination};
use tokio::{
    io::AsyncWriteExt as _,
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    task::JoinHandle,
};

use crate::{
    failure::Failure,
    output,
    signals::{Interrupts, Seen},
    terminal::{self, RawMode},
};

/// Blocks of input that wait for the process: few, so that it feels our slowness.
const INPUT_BLOCKS: usize = 4;

/// Connects the caller's terminal or pipes with `process`; its exit code becomes ours.
pub(crate) async fn converse(
    mut process: Process,
    interactive: bool,
    tty: bool,
    mut interrupts: Interrupts,
) -> Result<ExitCode, Failure> {
    let raw = if tty && interactive {
        RawMode::enter()?
    } else {
        None
    };
    let mut input = Input::forward(&mut process, interactive);
    let mut lost = 0;
    let mut resized = signal(SignalKind::window_change()).map_err(Failure::Terminal)?;
    let mut size = terminal::size();
    if tty {
        // The window may have changed while the container was made.
        let _ = process.resize(size).await;
    }
    let outcome = loop {
        tokio::select! {
            chunk = process.next_output() => match chunk {
                Some(Ok(chunk)) => write(&chunk)?,
                Some(Err(Error::OutputLost { bytes })) => lost += bytes,
                Some(Err(error)) => return Err(error.into()),
                None => break process.wait().await,
            },
            failure = input.failed() => return Err(failure),
            () = window_changed(&mut resized, tty) => {
                resize(&process, &mut size).await;
            }
            seen = interrupts.next() => {
                if seen.is_first_interrupt() {
                    output::note("teu: forwarded; press Ctrl-C again to kill");
                }
                end(&process, seen);
            }
        }
    };
    drop((raw, input));
    let termination = outcome?;
    explain(&termination);
    if lost > 0 {
        // What was printed is not what the program wrote: its exit code would say that all is well.
        return Err(Error::OutputLost { bytes: lost }.into());
    }
    Ok(ExitCode::from(shell_code(&termination)))
}

/// Writes to our own stdout or stderr.
fn write(chunk: &OutputChunk) -> Result<(), Failure> {
    let written = match chunk.channel {
        Channel::Stderr => io::stderr().write_all(&chunk.bytes),
        _ => {
            let mut stdout = io::stdout().lock();
            stdout.write_all(&chunk.bytes).and_then(|()| stdout.flush())
        }
    };
    written.map_err(Failure::Output)
}

async fn window_changed(resized: &mut Signal, tty: bool) {
    if !tty || resized.recv().await.is_none() {
        std::future::pending::<()>().await;
    }
}

async fn resize(process: &Process, size: &mut TermSize) {
    let now = terminal::size();
    if now != *size {
        *size = now;
        let _ = process.resize(now).await;
    }
}

/// The first signal is passed on, and the process killed if it has not ended after the grace; the
/// second kills at once. A first process ignores signals that it does not handle, so passing on alone
/// would leave people stuck.
fn end(process: &Process, seen: Seen) {
    let signals = process.signals();
    tokio::spawn(async move {
        if seen.count == 1 {
            if let Some(signal) = seen.signal {
                let _ = signals.send(signal).await;
            }
            tokio::time::sleep(Interrupts::GRACE).await;
        }
        let _ = signals.send(teu::Signal::KILL).await;
    });
}

/// As timeout(1) has it, so that a script can tell it from the program's own codes.
const TIMED_OUT: u8 = 124;

const fn shell_code(termination: &Termination) -> u8 {
    match termination.cause {
        teu::Cause::TimedOut => TIMED_OUT,
        _ => termination.status.shell_code(),
    }
}

/// Says why, where the exit code alone would puzzle.
fn explain(termination: &Termination) {
    match termination.cause {
        teu::Cause::OutOfMemory => {
            output::note("teu: the program was killed: it went over its memory limit (--memory)");
        }
        teu::Cause::TimedOut => {
            output::note("teu: the program was killed: its time was over (--timeout)");
        }
        teu::Cause::NodeLost => output::note("teu: the node lost the container"),
        teu::Cause::SessionEnded => output::note("teu: the session was ended"),
        teu::Cause::Exited | teu::Cause::Stopped => {}
    }
}

/// Our standard input on its way to the process.
struct Input {
    /// Ends with what went wrong, if something did.
    task: Option<JoinHandle<Result<(), Failure>>>,
}

impl Input {
    /// Reads our standard input on a thread of its own (a blocked read cannot be cancelled) and sends
    /// it on; its end is the process's end of input.
    fn forward(process: &mut Process, interactive: bool) -> Self {
        let stdin = process.stdin().filter(|_| interactive);
        let task = stdin.map(|stdin| tokio::spawn(send(stdin, read_blocks())));
        Self { task }
    }

    /// Waits until input goes wrong: for ever, if it does not.
    async fn failed(&mut self) -> Failure {
        if let Some(task) = &mut self.task {
            let outcome = task.await;
            self.task = None;
            if let Ok(Err(failure)) = outcome {
                return failure;
            }
        }
        std::future::pending().await
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

fn read_blocks() -> mpsc::Receiver<io::Result<Vec<u8>>> {
    let (blocks, read) = mpsc::channel(INPUT_BLOCKS);
    thread::spawn(move || {
        let mut buffer = vec![0; 32 * 1024];
        loop {
            let block = match io::stdin().lock().read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => Ok(buffer[..count].to_vec()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let failed = block.is_err();
            if blocks.blocking_send(block).is_err() || failed {
                return;
            }
        }
    });
    read
}

async fn send(
    mut stdin: teu::Stdin,
    mut blocks: mpsc::Receiver<io::Result<Vec<u8>>>,
) -> Result<(), Failure> {
    while let Some(block) = blocks.recv().await {
        let block = block.map_err(Failure::Input)?;
        if let Err(error) = stdin.write_all(&block).await {
            return not_taken(&error);
        }
    }
    match stdin.shutdown().await {
        Ok(()) => Ok(()),
        Err(error) => not_taken(&error),
    }
}

/// A process that has ended takes no more, and how it ended says all.
fn not_taken(error: &io::Error) -> Result<(), Failure> {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Ok(());
    }
    Err(Error::InputLost.into())
}
