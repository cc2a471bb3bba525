"""Starts a location, and does with the Python peer what a client does. Usage: check.py DIRECTORY-OF-PROGRAMS"""

import base64
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import tomllib

import teu_peer


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class World:
    """A location of its own, ended and purged at exit."""

    def __init__(self, programs):
        self.teu = str(pathlib.Path(programs) / "teu")
        self.directory = tempfile.TemporaryDirectory(prefix="teu-python-", dir="/var/tmp")
        root = pathlib.Path(self.directory.name)
        self.environment = {**os.environ, "TEU_HOME": str(root / "home")}
        self.options = ["--port", str(free_port()), "--data", str(root / "data")]
        self.options += ["--instance", f"p{os.getpid() % 65536:x}", "--range", "10.201.0.0/16"]

    def run(self, *arguments):
        done = subprocess.run(
            [self.teu, *arguments], env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"teu {arguments}: {done.stderr}"
        return done.stdout.strip()

    def __enter__(self):
        self.run("dev", "--detach", *self.options)
        return self

    def __exit__(self, *_):
        subprocess.run([self.teu, "dev", "--purge", "--yes", *self.options], env=self.environment, check=False)
        self.directory.cleanup()

    def client(self, **options):
        home = pathlib.Path(self.environment["TEU_HOME"])
        config = tomllib.loads((home / "locations.toml").read_text())
        location = config["location"][config["default"]]
        secret = base64.b64decode((home / "account.key").read_text().strip())
        return teu_peer.Client(
            location["endpoint"],
            location["fqdn"],
            base64.b64decode(location["key"]),
            location["serial"],
            options.pop("secret", secret),
            **options,
        )


def check(world):
    archive = pathlib.Path(world.directory.name) / "busybox.tar"
    script = pathlib.Path(__file__).parent.parent.parent / "deploy/lib/busybox-image"
    subprocess.run([script, archive], check=True)
    world.run("image", "import", str(archive))

    for suite in (1, 2):
        client = world.client(suite=suite)
        assert client.welcome["version"] == 1
        nodes = client.ready["offer"]["nodes"]
        assert len(nodes) == 1 and nodes[0]["state"] == "Up", nodes
        print(f"suite {suite}: connected, the offer has {nodes[0]['name']}")

        image = client.request({"FindImage": "busybox"})["Image"]
        script = "echo hello from Python; echo oops >&2; seq 1 100000; exit 3"
        spawned = client.request(teu_peer.spawn(image["id"], ["sh", "-c", script]))["Spawned"]
        stdout, stderr, end = client.read_output(spawned["id"])
        expected = "hello from Python\n" + "".join(f"{n}\n" for n in range(1, 100_001))
        assert stdout.decode() == expected, f"{len(stdout)} bytes"
        assert stderr == b"oops\n", stderr
        assert end["Exited"]["status"] == {"Code": 3}, end
        print(f"suite {suite}: spawned, {len(stdout)} bytes read, exit code 3")

        for number in range(5):
            listed = client.request("List", rekey=True)["Containers"]
            assert [one["id"] for one in listed] == [spawned["id"]], number
        print(f"suite {suite}: five rekeys")

        try:
            client.request({"Destroy": bytes(16)})
            raise AssertionError("nobody's container was destroyed")
        except teu_peer.Refused as refused:
            assert refused.code == "NotFound", refused.code
        client.request({"Destroy": spawned["id"]})
        client.close()

    started = time.monotonic()
    try:
        world.client(secret=os.urandom(32))
        raise AssertionError("an unknown key was let in")
    except ConnectionRefusedError as refused:
        print(f"an unknown key: ERROR {refused.args[0]} after {time.monotonic() - started:.2f} s")


if __name__ == "__main__":
    with World(sys.argv[1]) as world:
        check(world)
    print("the Python peer speaks TEU")
