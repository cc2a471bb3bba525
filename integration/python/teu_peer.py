"""A TEU client in Python, written from docs/protocol.md alone: pyzmq, msgpack, noiseprotocol.

It exists to prove that the page is exact. It connects, keeps the sealed conversation (rekey included), opens
streams with credit, and nothing more: programs use the Rust SDK.
"""

import hashlib
import os
import struct
import time

import msgpack
import zmq
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from noise.connection import Keypair, NoiseConnection

HELLO, COOKIE, WELCOME, INITIATE, READY, DATA, ERROR = range(1, 8)
SUITES = {1: b"Noise_XK_25519_AESGCM_SHA256", 2: b"Noise_XK_25519_ChaChaPoly_BLAKE2s"}
BULK, REKEY, LAST = 0x01, 0x02, 0x80
CONTENT = 65_518


class Refused(Exception):
    """The location said no, with a stable code."""

    def __init__(self, refusal):
        super().__init__(refusal["message"])
        self.code = refusal["code"]


def request_id():
    """A UUIDv7, as 16 bytes."""
    milliseconds = int(time.time() * 1000).to_bytes(6, "big")
    random = bytearray(os.urandom(10))
    random[0] = 0x70 | random[0] & 0x0F
    random[2] = 0x80 | random[2] & 0x3F
    return milliseconds + bytes(random)


class Client:
    def __init__(self, endpoint, fqdn, key, serial, secret, suite=1, session="New"):
        self.suite, self.key = suite, key
        self.socket = zmq.Context.instance().socket(zmq.DEALER)
        # No new connection in the middle of this one. (With -1, libzmq may drop the last message before an
        # end, which is where ERROR comes.)
        self.socket.setsockopt(zmq.RECONNECT_IVL, 3_600_000)
        self.socket.setsockopt(zmq.LINGER, 1000)
        self.socket.setsockopt(zmq.RCVTIMEO, 30_000)
        self.socket.connect(f"tcp://{endpoint}")
        self.streams = 0
        self.events = []
        self.frames = []
        self.sent_under_key = 0
        self._handshake(fqdn.lower(), serial, secret, session)

    def _f0(self, kind):
        return b"TEU1" + bytes([kind, self.suite, 0, 0])

    def _handshake(self, fqdn, serial, secret, session):
        noise = NoiseConnection.from_name(SUITES[self.suite])
        noise.set_as_initiator()
        noise.set_keypair_from_private_bytes(Keypair.STATIC, secret)
        noise.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, self.key)
        name = fqdn.encode()
        prologue = self._f0(HELLO) + bytes([len(name)]) + name + self.key + struct.pack(">Q", serial)
        noise.set_prologue(prologue)
        noise.start_handshake()
        noise1 = bytes(noise.write_message())
        mac1_key = hashlib.blake2s(b"teu mac1" + self.key).digest()
        mac1 = hashlib.blake2s(prologue + noise1, key=mac1_key, digest_size=16).digest()
        self._hello(noise1, mac1, b"")
        kind, parts = self._receive_raw()
        if kind == COOKIE:
            nonce, sealed = parts
            cookie_key = hashlib.blake2s(b"teu cookie key" + self.key).digest()
            cookie = ChaCha20Poly1305(cookie_key).decrypt(nonce, sealed, mac1)
            mac2 = hashlib.blake2s(prologue + noise1 + mac1, key=cookie, digest_size=16).digest()
            self._hello(noise1, mac1, mac2)
            kind, parts = self._receive_raw()
        assert kind == WELCOME, kind
        self.welcome = msgpack.unpackb(bytes(noise.read_message(parts[0])))
        initiate = {
            "role": "Client",
            "features": [],
            "name": "python",
            "session": session,
            "attachment": os.urandom(16),
        }
        noise3 = bytes(noise.write_message(msgpack.packb(initiate)))
        self.socket.send_multipart([self._f0(INITIATE), noise3])
        self.noise = noise
        message, _ = self._receive(READY)
        self.ready = message["Ready"]

    def _hello(self, noise1, mac1, mac2):
        parts = [self._f0(HELLO), noise1, mac1, mac2]
        padding = max(0, 1024 - sum(len(part) for part in parts))
        self.socket.send_multipart(parts + [bytes(padding)])

    def _receive_raw(self):
        parts = self.socket.recv_multipart()
        f0 = parts[0]
        assert len(f0) == 8 and f0[:4] == b"TEU1" and f0[5] == self.suite and f0[6:] == b"\0\0"
        if f0[4] == ERROR:
            raise ConnectionRefusedError(int.from_bytes(parts[1], "big"))
        return f0[4], parts[1:]

    def _receive(self, expected=DATA):
        kind, parts = self._receive_raw()
        assert kind == expected, kind
        control, bulk, flags = b"", b"", 0
        for number, part in enumerate(parts):
            plain = bytes(self.noise.decrypt(part))
            content, flags = plain[:-1], plain[-1]
            assert bool(flags & LAST) == (number == len(parts) - 1)
            if flags & BULK:
                bulk += content
            else:
                assert not bulk
                control += content
        if flags & REKEY:
            self.noise.noise_protocol.cipher_state_decrypt.rekey()
        return msgpack.unpackb(control), bulk

    def send(self, message, bulk=b"", rekey=False):
        control = msgpack.packb(message)
        pieces = [(0, control[at : at + CONTENT]) for at in range(0, len(control), CONTENT)]
        pieces += [(BULK, bulk[at : at + CONTENT]) for at in range(0, len(bulk), CONTENT)]
        self.sent_under_key += 1
        rekey = rekey or self.sent_under_key >= 1 << 16
        last = len(pieces) - 1
        parts = [self._f0(DATA)]
        for number, (flags, content) in enumerate(pieces):
            if number == last:
                flags |= LAST | (REKEY if rekey else 0)
            parts.append(bytes(self.noise.encrypt(content + bytes([flags]))))
        self.socket.send_multipart(parts)
        if rekey:
            self.noise.noise_protocol.cipher_state_encrypt.rekey()
            self.sent_under_key = 0

    def _next(self):
        """The next message that is not a heartbeat; events and stream frames are kept aside."""
        message, bulk = self._receive()
        kind, content = next(iter(message.items())) if isinstance(message, dict) else (message, None)
        if kind == "Ping":
            self.send({"Pong": content})
        elif kind == "Event":
            self.events.append(content)
        elif kind == "Stream":
            self.frames.append((content, bulk))
        elif kind == "Closing":
            raise Refused(content)
        return kind, content

    def request(self, body, bulk=b"", rekey=False):
        own = request_id()
        self.send({"Request": {"id": own, "body": body}}, bulk, rekey)
        while True:
            kind, content = self._next()
            if kind == "Reply" and content["id"] == own:
                if "Err" in content["result"]:
                    raise Refused(content["result"]["Err"])
                return content["result"]["Ok"]

    def frame(self):
        """The next stream frame: its kind, its content, its bytes."""
        while not self.frames:
            self._next()
        frame, bulk = self.frames.pop(0)
        kind, content = next(iter(frame.items()))
        return kind, content, bulk

    def read_output(self, container):
        """All that the first process writes, and how it ends."""
        self.streams += 1
        stream = self.streams
        self.request({
            "Attach": {
                "container": container,
                "process": None,
                "from": "Oldest",
                "lossless": True,
                "stream": stream,
                "window": 1 << 16,
            }
        })
        output = {"Stdout": b"", "Stderr": b""}
        while True:
            kind, content, bulk = self.frame()
            assert content["stream"] == stream
            if kind == "Data":
                output[content["channel"]] += bulk
                self.send({"Stream": {"Credit": {"stream": stream, "bytes": len(bulk)}}})
            elif kind == "Close":
                return output["Stdout"], output["Stderr"], content["end"]

    def close(self):
        self.send("Goodbye")
        self.socket.close()


def spawn(image, args, name="python"):
    """The body of a Spawn request with nothing but an image and a command."""
    return {
        "Spawn": {
            "image": image,
            "node": None,
            "tag": None,
            "labels": {},
            "process": {
                "args": args,
                "env": [],
                "user": None,
                "workdir": None,
                "tty": None,
                "stdin": False,
            },
            "entrypoint": None,
            "files": [],
            "limits": {"memory_bytes": None, "cpu_millis": None, "pids": None},
            "asleep": False,
            "lifetime": "Session",
            "hostname": None,
            "image_name": name,
        }
    }
