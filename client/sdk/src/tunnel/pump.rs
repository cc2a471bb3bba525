//! Carries bytes between a local TCP connection and a stream, both ways, until both are done.
//!
//! ```text
//! local end of input ──▶ Eof      Eof ──▶ local write side shut down
//! local RST          ──▶ Close(Reset)      Close(Reset), Failed, link lost ──▶ local RST
//! both ends of input ──▶ Close(Done)
//! ```

use std::{collections::VecDeque, io};

use bytes::{Buf as _, Bytes, BytesMut};
use teu_protocol::{
    limits::MAX_PART_CONTENT_BYTES,
    message::{Channel, StreamEnd},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
};

use crate::stream::{Chunk, Stream, StreamItem, StreamOver, StreamReader, StreamWriter};

/// One read from TCP: four full parts, which make one message.
const READ_BYTES: usize = 4 * MAX_PART_CONTENT_BYTES;

/// Slices in one vectored write: as many as a message has parts, usually.
const WRITE_SLICES: usize = 8;

/// How a direction, or the whole, came to its end.
enum Outcome {
    /// The far end closed this direction.
    HalfClosed,
    /// The far end closed both.
    Closed,
    /// Either side was cut off.
    Broken,
}

pub(super) async fn run(stream: Stream, mut tcp: TcpStream) {
    let Stream {
        mut reader,
        mut writer,
    } = stream;
    let outcome = both(&mut reader, &mut writer, &mut tcp).await;
    if matches!(outcome, Outcome::Broken) {
        super::reset(&tcp);
        // Dropping the stream says Close(Reset), if that is still to be said.
    }
}

async fn both(
    reader: &mut StreamReader,
    writer: &mut StreamWriter,
    tcp: &mut TcpStream,
) -> Outcome {
    let (read, write) = tcp.split();
    let result = {
        let up = up(read, writer);
        let down = down(reader, write);
        tokio::pin!(up, down);
        let mut up_done = false;
        loop {
            tokio::select! {
                sent = &mut up, if !up_done => match sent {
                    // If the stream is over, `down` is about to hear why.
                    Ok(()) | Err(Stopped::Stream(_)) => up_done = true,
                    Err(Stopped::Tcp) => break Outcome::Broken,
                },
                outcome = &mut down => {
                    if matches!(outcome, Outcome::HalfClosed) && !up_done {
                        match up.await {
                            Ok(()) => {}
                            Err(_) => break Outcome::Broken,
                        }
                    }
                    break outcome;
                }
            }
        }
    };
    if matches!(result, Outcome::HalfClosed) {
        // Both directions are done. If the link is gone by now, there is nobody to tell.
        let _ = writer.close(StreamEnd::Done).await;
    }
    result
}

/// Why nothing more goes up.
enum Stopped {
    Tcp,
    Stream(#[expect(dead_code, reason = "tells in a debugger")] StreamOver),
}

async fn up(mut tcp: ReadHalf<'_>, writer: &mut StreamWriter) -> Result<(), Stopped> {
    let mut buffer = BytesMut::new();
    let mut parts = VecDeque::new();
    loop {
        buffer.reserve(READ_BYTES);
        let length = tcp.read_buf(&mut buffer).await.map_err(|_| Stopped::Tcp)?;
        if length == 0 {
            return writer.eof(Channel::Main).await.map_err(Stopped::Stream);
        }
        let mut read = buffer.split().freeze();
        while !read.is_empty() {
            parts.push_back(read.split_to(read.len().min(MAX_PART_CONTENT_BYTES)));
        }
        writer
            .send(Channel::Main, &mut parts)
            .await
            .map_err(Stopped::Stream)?;
    }
}

async fn down(reader: &mut StreamReader, mut tcp: WriteHalf<'_>) -> Outcome {
    loop {
        match reader.next().await {
            StreamItem::Data(chunk) => {
                if write_all(&mut tcp, chunk).await.is_err() {
                    return Outcome::Broken;
                }
            }
            StreamItem::Eof => {
                return match tcp.shutdown().await {
                    Ok(()) => Outcome::HalfClosed,
                    Err(_) => Outcome::Broken,
                };
            }
            StreamItem::End(StreamEnd::Done | StreamEnd::Exited(_)) => {
                let _ = tcp.shutdown().await;
                return Outcome::Closed;
            }
            StreamItem::End(StreamEnd::Reset | StreamEnd::Failed(_)) | StreamItem::Lost => {
                return Outcome::Broken;
            }
        }
    }
}

/// Writes the chunk without copying it, and only then lets go of it: that is what grants credit.
async fn write_all(tcp: &mut WriteHalf<'_>, mut chunk: Chunk) -> io::Result<()> {
    let mut parts: VecDeque<Bytes> = std::iter::from_fn(|| chunk.next_part()).collect();
    while !parts.is_empty() {
        let mut slices = [io::IoSlice::new(&[]); WRITE_SLICES];
        let count = slices
            .iter_mut()
            .zip(&parts)
            .map(|(slice, part)| *slice = io::IoSlice::new(part))
            .count();
        let written = tcp
            .write_vectored(slices.get(..count).unwrap_or_default())
            .await?;
        if written == 0 && parts.iter().any(|part| !part.is_empty()) {
            return Err(io::ErrorKind::WriteZero.into());
        }
        advance(&mut parts, written);
    }
    drop(chunk);
    Ok(())
}

fn advance(parts: &mut VecDeque<Bytes>, mut by: usize) {
    while let Some(first) = parts.front_mut() {
        let now = first.len().min(by);
        first.advance(now);
        by -= now;
        if !first.is_empty() {
            return;
        }
        parts.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_taken_off_the_front_and_empty_parts_vanish() {
        let parts = |texts: &[&'static str]| -> VecDeque<Bytes> {
            texts
                .iter()
                .map(|text| Bytes::from_static(text.as_bytes()))
                .collect()
        };
        let mut some = parts(&["abc", "", "de"]);
        advance(&mut some, 2);
        assert_eq!(some, parts(&["c", "", "de"]));
        advance(&mut some, 2);
        assert_eq!(some, parts(&["e"]));
        let mut empty = parts(&["", ""]);
        advance(&mut empty, 0);
        assert!(empty.is_empty());
    }
}
