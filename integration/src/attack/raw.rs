//! A peer that may send anything: ZMTP by hand, the handshake message by message.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use serde::Serialize;
use teu_protocol::{
    message::{self, MasterToClient},
    noise::{ClientHandshake, ClientStep, Opener, Sealer, StaticKey, Suite, Welcomed},
    zmtp::{self, Decoder, Event, Limits, SocketRole},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use super::{Target, key};

/// How long a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// A TCP connection to the master.
#[derive(Debug)]
pub struct RawPeer {
    stream: TcpStream,
    decoder: Decoder,
    buffer: BytesMut,
}

impl RawPeer {
    /// Connects from the loopback address `127.0.0.<from>`, and says nothing.
    ///
    /// # Errors
    /// Those of `connect`.
    pub async fn connect(target: &Target, from: u8) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::new(
            IpAddr::V4(Ipv4Addr::new(127, 0, 0, from)),
            0,
        ))?;
        let stream = socket.connect(target.address()).await?;
        let decoder = Decoder::new(SocketRole::Dealer, Limits::AUTHENTICATED);
        Ok(Self {
            stream,
            decoder,
            buffer: BytesMut::new(),
        })
    }

    /// Connects and exchanges greeting and READY, with this ZMTP identity.
    ///
    /// # Errors
    /// Those of the socket.
    pub async fn greeted(target: &Target, from: u8, identity: &[u8]) -> io::Result<Self> {
        let mut peer = Self::connect(target, from).await?;
        peer.send_raw(&zmtp::greeting()).await?;
        peer.send_raw(&ready(identity)).await?;
        loop {
            match peer.event().await? {
                Some(Event::Ready) => return Ok(peer),
                Some(_) => {}
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// Those of the socket.
    pub async fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Sends a message.
    ///
    /// # Errors
    /// Those of the socket.
    pub async fn send(&mut self, parts: &[Bytes]) -> io::Result<()> {
        let mut bytes = BytesMut::new();
        zmtp::encode_message(parts, &mut bytes);
        self.send_raw(&bytes).await
    }

    /// The next message; `None` if the master closed the connection.
    ///
    /// # Errors
    /// Those of the socket, and a timeout.
    pub async fn receive(&mut self) -> io::Result<Option<Vec<Bytes>>> {
        loop {
            match self.event().await? {
                Some(Event::Message(parts)) => return Ok(Some(parts)),
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }

    async fn event(&mut self) -> io::Result<Option<Event>> {
        loop {
            if let Some(event) = self
                .decoder
                .decode(&mut self.buffer)
                .map_err(io::Error::other)?
            {
                return Ok(Some(event));
            }
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await;
            match read.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))? {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether the master closes the connection, having sent no further message.
    pub async fn is_closed_silently(&mut self) -> bool {
        matches!(self.receive().await, Ok(None))
    }

    /// HELLO with this key: the state and the message.
    #[must_use]
    #[allow(clippy::expect_used, reason = "a handshake begins with any key")]
    pub fn hello(target: &Target, key: &StaticKey, seed: u8) -> (ClientHandshake, Vec<Bytes>) {
        ClientHandshake::new(target.location(), key, Suite::fastest(), [seed; 32]).expect("HELLO")
    }

    /// HELLO and WELCOME (and COOKIE, if asked).
    ///
    /// # Errors
    /// Those of the socket; `InvalidData` if the master refuses or closes.
    pub async fn welcomed(
        &mut self,
        (mut state, mut hello): (ClientHandshake, Vec<Bytes>),
    ) -> io::Result<Welcomed> {
        loop {
            self.send(&hello).await?;
            let answer = self.receive().await?.ok_or(io::ErrorKind::InvalidData)?;
            match state
                .on_message(&answer)
                .map_err(|_| io::ErrorKind::InvalidData)?
            {
                ClientStep::Welcomed(welcomed) => return Ok(welcomed),
                ClientStep::SendHello(next, again) => (state, hello) = (next, again),
            }
        }
    }

    /// The whole handshake as the key of that byte, until READY.
    ///
    /// # Errors
    /// Those of the socket; `InvalidData` if the master refuses or closes.
    pub async fn into_sealed(
        mut self,
        who: u8,
        initiate: &[u8],
        target: &Target,
    ) -> io::Result<Sealed> {
        let seed = self.stream.local_addr()?.port().to_be_bytes()[1];
        let welcomed = self.welcomed(Self::hello(target, &key(who), seed)).await?;
        let (initiate, sealer, opener) = welcomed
            .initiate(initiate, Duration::ZERO)
            .map_err(io::Error::other)?;
        self.send(&initiate).await?;
        let mut sealed = Sealed {
            peer: self,
            sealer,
            opener,
        };
        match sealed.receive().await? {
            Some(MasterToClient::Ready(_)) => Ok(sealed),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// A peer after READY, as a client.
#[derive(Debug)]
pub struct Sealed {
    /// The connection, for whatever a test wants to send on it.
    pub peer: RawPeer,
    sealer: Sealer,
    opener: Opener,
}

impl Sealed {
    /// Seals without sending.
    #[allow(clippy::expect_used, reason = "the tests' messages are small")]
    pub fn seal<M: Serialize>(&mut self, message: &M) -> Vec<Bytes> {
        let control = message::encode(message).expect("a message");
        self.sealer
            .seal(&control, &[], Duration::ZERO)
            .expect("a sealed message")
    }

    /// Seals and sends.
    ///
    /// # Errors
    /// Those of the socket.
    pub async fn send<M: Serialize>(&mut self, message: &M) -> io::Result<()> {
        let parts = self.seal(message);
        self.peer.send(&parts).await
    }

    /// The next message that is no event; `None` if the connection was closed.
    ///
    /// # Errors
    /// Those of the socket; `InvalidData` for an ERROR or what cannot be opened.
    pub async fn receive(&mut self) -> io::Result<Option<MasterToClient>> {
        loop {
            let Some(parts) = self.peer.receive().await? else {
                return Ok(None);
            };
            let opened = self
                .opener
                .open(parts)
                .map_err(|_| io::ErrorKind::InvalidData)?;
            match message::decode(&opened.control).map_err(|_| io::ErrorKind::InvalidData)? {
                MasterToClient::Event(_) => {}
                message => return Ok(Some(message)),
            }
        }
    }
}

/// READY of a DEALER with an identity.
fn ready(identity: &[u8]) -> Vec<u8> {
    let mut body = b"\x05READY".to_vec();
    for (name, value) in [
        (b"Socket-Type".as_slice(), b"DEALER".as_slice()),
        (b"Identity", identity),
    ] {
        body.push(u8::try_from(name.len()).unwrap_or_default());
        body.extend_from_slice(name);
        body.extend_from_slice(&u32::try_from(value.len()).unwrap_or_default().to_be_bytes());
        body.extend_from_slice(value);
    }
    let mut frame = vec![0x04, u8::try_from(body.len()).unwrap_or_default()];
    frame.extend_from_slice(&body);
    frame
}
