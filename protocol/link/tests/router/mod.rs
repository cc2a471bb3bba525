//! A tiny ROUTER on TEU's own codec: the other end of a link, in the test's process, over real TCP.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::panic)]

use std::{net::SocketAddr, time::Duration};

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use teu_protocol::{
    heartbeat::{Heartbeat, LinkMessage},
    noise::{
        Accepted, ConnectionOrigin, CookieJar, HelloCheck, LocationIdentity, Opened, Opener,
        Sealer, ServerHandshake, StaticKey, encode_refusal,
    },
    zmtp::{Decoder, Event, Limits, SocketRole, encode_message, greeting},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Both directions' messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Said {
    Text(String),
    Number(u64),
    Ping(u64),
    Pong(u64),
}

impl LinkMessage for Said {
    fn ping(nonce: u64) -> Self {
        Self::Ping(nonce)
    }

    fn pong(nonce: u64) -> Self {
        Self::Pong(nonce)
    }

    fn heartbeat(&self) -> Option<Heartbeat> {
        match self {
            Self::Ping(nonce) => Some(Heartbeat::Ping(*nonce)),
            Self::Pong(nonce) => Some(Heartbeat::Pong(*nonce)),
            Self::Text(_) | Self::Number(_) => None,
        }
    }
}

pub fn key(byte: u8) -> StaticKey {
    StaticKey::from_bytes([byte; 32]).unwrap()
}

/// The location that the router is.
pub fn location() -> LocationIdentity {
    LocationIdentity::new("test.example.org", key(1).public(), 1).unwrap()
}

pub struct Router {
    listener: TcpListener,
    check: HelloCheck,
    jar: CookieJar,
    /// Whether to ask for a cookie first.
    pub under_load: bool,
}

impl Router {
    pub async fn bind() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let check = HelloCheck::new(vec![(location(), key(1))]);
        let jar = CookieJar::new([5; 32], Duration::ZERO);
        Self {
            listener,
            check,
            jar,
            under_load: false,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// A peer up to ZMTP's READY.
    pub async fn accept_zmtp(&self) -> Wire {
        let (stream, peer) = self.listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let decoder = Decoder::new(SocketRole::Router, Limits::AUTHENTICATED);
        let mut wire = Wire {
            stream,
            peer,
            decoder,
            received: BytesMut::new(),
            frames: BytesMut::new(),
        };
        wire.stream.write_all(&greeting()).await.unwrap();
        wire
    }

    /// A peer up to INITIATE: who it is, and what it said.
    pub async fn accept_initiate(&self) -> (Wire, Accepted) {
        let mut wire = self.accept_zmtp().await;
        let mut hello = self.check.check(&wire.recv().await.unwrap()).unwrap();
        let origin = ConnectionOrigin {
            connection: 1,
            address: wire.peer.ip(),
        };
        if self.under_load {
            assert!(!self.jar.admits(&hello, origin));
            wire.send(&self.jar.issue(&hello, origin, [6; 12]).unwrap())
                .await;
            hello = self.check.check(&wire.recv().await.unwrap()).unwrap();
            assert!(self.jar.admits(&hello, origin));
        }
        let (server, welcome) = ServerHandshake::accept(&hello, [7; 32], b"welcome").unwrap();
        wire.send(&welcome).await;
        let initiate = wire.recv().await.unwrap();
        let accepted = server.on_initiate(&initiate, Duration::ZERO).unwrap();
        (wire, accepted)
    }

    /// A peer that got READY.
    pub async fn accept(&self) -> Peer {
        let (wire, accepted) = self.accept_initiate().await;
        let Accepted { sealer, opener, .. } = accepted;
        let mut peer = Peer {
            wire,
            sealer,
            opener,
        };
        peer.send(&Said::Text("ready".into()), &[]).await;
        peer
    }

    /// A peer that is refused after INITIATE.
    pub async fn refuse(&self, code: u16) {
        let (mut wire, _) = self.accept_initiate().await;
        wire.send(&encode_refusal(teu_protocol::noise::Suite::fastest(), code))
            .await;
    }
}

/// ZMTP to one peer.
pub struct Wire {
    pub stream: TcpStream,
    peer: SocketAddr,
    decoder: Decoder,
    received: BytesMut,
    frames: BytesMut,
}

impl Wire {
    /// The next message; `None` if the peer hung up.
    pub async fn recv(&mut self) -> Option<Vec<Bytes>> {
        let parts = self.recv_mut().await?;
        Some(parts.into_iter().map(BytesMut::freeze).collect())
    }

    /// The next message, in parts that can be opened in place.
    pub async fn recv_mut(&mut self) -> Option<Vec<BytesMut>> {
        loop {
            while let Some(event) = self.decoder.decode_mut(&mut self.received).unwrap() {
                match event {
                    Event::Message(parts) => return Some(parts),
                    Event::Reply(bytes) => self.stream.write_all(&bytes).await.unwrap(),
                    Event::Ready => {}
                }
            }
            if self.received.capacity() - self.received.len() < 128 * 1024 {
                self.received.reserve(512 * 1024 - self.received.len());
            }
            if self.stream.read_buf(&mut self.received).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    pub async fn send(&mut self, parts: &[Bytes]) {
        let mut bytes = BytesMut::new();
        encode_message(parts, &mut bytes);
        self.stream.write_all(&bytes).await.unwrap();
    }
}

/// A peer with a sealed link.
pub struct Peer {
    pub wire: Wire,
    pub sealer: Sealer,
    pub opener: Opener,
}

impl Peer {
    pub async fn send(&mut self, said: &Said, bulk: &[Bytes]) {
        self.queue(said, bulk);
        self.flush().await;
    }

    /// Seals a message; [`Peer::flush`] sends it.
    pub fn queue(&mut self, said: &Said, bulk: &[Bytes]) -> usize {
        let control = rmp_serde::to_vec_named(said).unwrap();
        let frames = &mut self.wire.frames;
        self.sealer
            .seal_framed(&control, bulk, Duration::ZERO, frames)
            .unwrap();
        frames.len()
    }

    pub async fn flush(&mut self) {
        self.wire.stream.write_all(&self.wire.frames).await.unwrap();
        self.wire.frames.clear();
    }

    pub async fn recv(&mut self) -> Option<(Said, Bytes)> {
        let Opened { control, bulk } = self.opener.open(self.wire.recv_mut().await?).unwrap();
        Some((
            rmp_serde::from_slice(&control).unwrap(),
            bulk.concat().into(),
        ))
    }
}
