"""Weights files: where they are searched for, and how they are downloaded from a real server."""

from __future__ import annotations

import errno
import gzip
import hashlib
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from napari_cfsr.cli import main
from napari_cfsr.core.engine.model import load_model
from napari_cfsr.core.network.cfsr import CFSR, CFSRConfig
from napari_cfsr.core.weights import weight_files
from napari_cfsr.errors import (
    CancelledError,
    DownloadError,
    OptionError,
    ScaleError,
    TamperedWeightsError,
    WeightsError,
    WeightsNotFoundError,
)
from tests.helpers.faults import full_disk


def files_below(folder: Path) -> list[str]:
    """Every file and link in a folder and below, hidden ones too."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir())


def tamper(path: Path) -> Path:
    """Change one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return path


pytestmark = pytest.mark.usefixtures("nothing_bundled")


@pytest.fixture
def cached(published: Path, home: Path) -> Path:
    """The official x2 file in the cache, with no folder named."""
    target = home / "cache" / "CFSR_x2.pth"
    target.parent.mkdir(parents=True)
    return Path(shutil.copy(published / "CFSR_x2.pth", target))


@pytest.fixture
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A backbone in place of the bundled one for x2."""
    path = tmp_path / "cfsr_x2.safetensors"
    torch.manual_seed(0)
    save_file(CFSR(CFSRConfig(scale=2)).state_dict(), path)
    monkeypatch.setattr(weight_files, "BUNDLED", tmp_path)
    return path


def test_the_home_variable_moves_cache_and_data_of_the_user(home, tmp_path, monkeypatch) -> None:
    """Which are not created by asking where they are."""
    assert weight_files.cache_folder() == home / "cache"
    assert weight_files.data_folder() == home / "data"
    monkeypatch.delenv(weight_files.HOME_VARIABLE)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert weight_files.cache_folder() != weight_files.data_folder()
    assert "napari-cfsr" in str(weight_files.cache_folder())
    assert not weight_files.cache_folder().exists()


def test_the_named_folder_is_searched_before_the_cache(
    cached, official, tmp_path, monkeypatch
) -> None:
    assert weight_files.official_path(2) == official / "CFSR_x2.pth"
    monkeypatch.setenv(weight_files.WEIGHTS_VARIABLE, str(tmp_path / "nowhere"))
    file, _ = weight_files.find_backbone(2, "auto", download=False)
    assert file.path == cached


def test_without_any_weights_the_message_says_what_to_do(home) -> None:
    with pytest.raises(WeightsNotFoundError) as caught:
        weight_files.find_backbone(3, "official", download=False)
    for part in ("napari-cfsr models fetch", "CFSR_x3.pth", weight_files.WEIGHTS_VARIABLE):
        assert part in str(caught.value)
    with pytest.raises(DownloadError, match=weight_files.WEIGHTS_VARIABLE):
        weight_files.find_backbone(2)
    assert files_below(home) == []


def test_a_tampered_file_in_the_first_folder_is_an_error_and_not_skipped(
    cached, published, tmp_path, monkeypatch
) -> None:
    folder = tmp_path / "named"
    folder.mkdir()
    tamper(Path(shutil.copy(published / "CFSR_x2.pth", folder)))
    monkeypatch.setenv(weight_files.WEIGHTS_VARIABLE, str(folder))
    for backbone in ("auto", "official"):
        with pytest.raises(TamperedWeightsError) as caught:
            weight_files.find_backbone(2, backbone)
        text = str(caught.value)
        assert str(folder / "CFSR_x2.pth") in text
        assert weight_files.OFFICIAL_SHA256[2] in text
        assert f"({(folder / 'CFSR_x2.pth').stat().st_size} bytes)" in text


def test_swapped_official_files_are_detected(published, tmp_path, monkeypatch) -> None:
    shutil.copy(published / "CFSR_x3.pth", tmp_path / "CFSR_x2.pth")
    monkeypatch.setenv(weight_files.WEIGHTS_VARIABLE, str(tmp_path))
    with pytest.raises(TamperedWeightsError, match=weight_files.OFFICIAL_SHA256[3]):
        weight_files.find_backbone(2)


@pytest.mark.parametrize("scale", [0, 1, 5, 8])
def test_other_scales_have_no_weights(scale) -> None:
    for call in (
        weight_files.find_backbone,
        weight_files.official_name,
        weight_files.official_path,
    ):
        with pytest.raises(ScaleError, match=f"2, 3 or 4, got {scale}"):
            call(scale)


def test_imported_backbones_are_found_by_name_and_by_stem(home) -> None:
    folder = home / "data" / "backbones"
    folder.mkdir(parents=True)
    for name in ("mine.pth", "Other.SAFETENSORS", "notes.txt", "mine.pth.partial"):
        (folder / name).write_bytes(name.encode())
    assert [p.name for p in weight_files.imported_backbones()] == ["Other.SAFETENSORS", "mine.pth"]
    for name in ("mine", "mine.pth"):
        file, notes = weight_files.find_backbone(2, name)
        assert (file.path, file.kind, notes) == (folder / "mine.pth", "imported", [])
        assert file.sha256 == hashlib.sha256(b"mine.pth").hexdigest()


def test_a_file_takes_precedence_over_an_imported_name(home, tmp_path, monkeypatch) -> None:
    (home / "data" / "backbones").mkdir(parents=True)
    (home / "data" / "backbones" / "mine.pth").write_bytes(b"imported")
    (tmp_path / "mine.pth").write_bytes(b"here")
    monkeypatch.chdir(tmp_path)
    assert weight_files.find_backbone(2, "mine.pth")[0].kind == "file"
    assert weight_files.find_backbone(2, tmp_path / "mine.pth")[0].kind == "file"
    assert weight_files.find_backbone(2, "mine")[0].kind == "imported"


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch) -> None:
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path))
    (tmp_path / "mine.pth").write_bytes(b"here")
    assert weight_files.find_backbone(2, "~/mine.pth")[0].path == tmp_path / "mine.pth"


@pytest.mark.parametrize(
    "backbone", ["nothing", "", "no/such/file.pth", "~nobody-here/x.pth", "x" * 5000]
)
def test_an_unknown_backbone_lists_what_is_possible(backbone) -> None:
    with pytest.raises(WeightsNotFoundError, match='"auto", "official", "bundled", an imported'):
        weight_files.find_backbone(2, backbone)


def test_a_bundled_backbone_is_found(ours) -> None:
    file, notes = weight_files.find_backbone(2, "bundled")
    assert (file.path, file.kind, notes) == (ours, "bundled", [])
    with pytest.raises(WeightsNotFoundError, match=r'x3 backbone .* use backbone="official"'):
        weight_files.find_backbone(3, "bundled")


@pytest.mark.parametrize("download", [True, False])
def test_auto_falls_back_to_the_bundled_one_and_says_so(ours, download) -> None:
    """Nobody agreed to a download, so none is tried."""
    file, notes = weight_files.find_backbone(2, "auto", download=download)
    assert (file.path, file.kind) == (ours, "bundled")
    assert notes == ["the official weights are not on this machine"]
    model = load_model(2, device="cpu", download=download)
    assert model.info.backbone == "bundled cfsr_x2.safetensors"
    assert model.info.notes == tuple(notes)
    with pytest.raises((DownloadError, WeightsNotFoundError)):
        weight_files.find_backbone(2, "official", download=download)
    assert not weight_files.agreed()  # nothing was downloaded


def test_auto_prefers_official_weights_and_reports_damage(ours, cached) -> None:
    assert weight_files.find_backbone(2)[0].path == cached
    tamper(cached)
    with pytest.raises(TamperedWeightsError):
        weight_files.find_backbone(2)


def test_an_official_file_is_imported_into_the_cache_under_its_name(
    published, tmp_path, home
) -> None:
    copy = Path(shutil.copy(published / "CFSR_x3.pth", tmp_path / "from a colleague.pth"))
    target = weight_files.import_file(copy, "backbones")
    assert target == home / "cache" / "CFSR_x3.pth"
    assert weight_files.find_backbone(3, download=False)[0].path == target
    assert weight_files.import_file(copy, "backbones") == target  # again: nothing to replace
    assert files_below(home) == ["cache/CFSR_x3.pth"]


def test_import_replaces_another_file_only_with_overwrite(tmp_path, home) -> None:
    path = tmp_path / "mine.pth"
    path.write_bytes(b"old")
    target = weight_files.import_file(path, "refiners")
    assert target == home / "data" / "refiners" / "mine.pth"
    path.write_bytes(b"new")
    with pytest.raises(OptionError, match=r"mine\.pth exists: pass overwrite=True to replace it"):
        weight_files.import_file(path, "refiners")
    assert target.read_bytes() == b"old"
    weight_files.import_file(path, "refiners", overwrite=True)
    assert target.read_bytes() == b"new"
    assert files_below(home) == ["data/refiners/mine.pth"]


def test_a_name_that_would_not_be_found_again_is_refused(tmp_path, home) -> None:
    """Only files with certain suffixes are listed, and some names have other meanings."""
    for name in ("mine.bin", "mine", "auto.pth", "none.safetensors"):
        path = tmp_path / name
        path.write_bytes(b"weights")
        with pytest.raises(OptionError, match="rename it"):
            weight_files.import_file(path, "backbones")
    assert files_below(home) == []


def test_an_import_that_cannot_be_written_leaves_nothing(tmp_path, home, monkeypatch) -> None:
    path = tmp_path / "mine.pth"
    path.write_bytes(b"weights")

    def full(source: BinaryIO, target: BinaryIO) -> None:
        target.write(b"wei")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(WeightsError, match="No space left on device"):
        weight_files.import_file(path, "backbones")
    assert files_below(home) == []
    shutil.rmtree(home)
    home.write_text("a file where the folder should be")
    with pytest.raises(WeightsError, match="can't be written"):
        weight_files.import_file(path, "backbones")


Answer = Callable[[BaseHTTPRequestHandler], None]
Serve = Callable[[Answer], list[str]]
LENGTH = 300_000  # bytes that a broken mirror announces
AGREED = "data/official-weights-agreed"


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Starts a mirror with the given answer; returns the list of requested paths."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    servers: list[tuple[ThreadingHTTPServer, threading.Thread]] = []

    def start(answer: Answer) -> list[str]:
        asked: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                answer(self)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        servers.append((server, thread))
        monkeypatch.setenv(weight_files.URL_VARIABLE, f"http://127.0.0.1:{server.server_port}/zoo")
        return asked

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


def sends(body: bytes, length: int | None = None, status: int = 200, **headers: str) -> Answer:
    """Answer with `body`, announced as `length` bytes; of unknown length if that is negative."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        if length is None or length >= 0:
            request.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(body)
        request.wfile.flush()

    return answer


def resets(request: BaseHTTPRequestHandler) -> None:
    request.connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def stalling(serve: Serve, body: bytes, length: int) -> Iterator[None]:
    """A mirror that sends a part and then nothing until the block ends."""
    released = threading.Event()

    def answer(request: BaseHTTPRequestHandler) -> None:
        sends(body, length)(request)
        released.wait(10)

    serve(answer)
    try:
        yield
    finally:
        released.set()


def publishes(folder: Path) -> Answer:
    """Answer with the requested file."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        sends((folder / Path(request.path).name).read_bytes())(request)

    return answer


def test_once_agreed_auto_fetches_the_official_weights(
    ours, serve, published, home, monkeypatch
) -> None:
    """For other scales, too; where the download fails, the bundled one is used."""
    asked = serve(publishes(published))
    assert weight_files.find_backbone(2, "auto")[0].kind == "bundled"
    assert asked == []
    assert weight_files.find_backbone(3, "auto")[0].kind == "official"  # there is no bundled one
    assert not weight_files.agreed()
    assert weight_files.find_backbone(4, "official")[0].kind == "official"
    assert weight_files.agreed()
    assert "no licence" in (home / AGREED).read_text(encoding="utf-8")
    assert weight_files.find_backbone(2, "auto", download=False)[0].kind == "bundled"
    assert asked == ["/zoo/CFSR_x3.pth", "/zoo/CFSR_x4.pth"]
    file, notes = weight_files.find_backbone(2, "auto")
    assert (file.kind, notes) == ("official", [])
    file.path.unlink()
    monkeypatch.setenv(weight_files.URL_VARIABLE, "http://127.0.0.1:9/")  # refuses connections
    file, notes = weight_files.find_backbone(2, "auto")
    assert file.kind == "bundled"
    assert notes[0].startswith("the official weights are not available (")


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_download_is_kept_in_the_cache_and_not_repeated(serve, published, home, scale) -> None:
    content = (published / f"CFSR_x{scale}.pth").read_bytes()
    asked = serve(sends(content))
    steps: list[tuple[int, int]] = []
    file, notes = weight_files.find_backbone(scale, progress=lambda *step: steps.append(step))
    assert file.path == home / "cache" / f"CFSR_x{scale}.pth"
    assert file.path.read_bytes() == content
    assert (file.kind, file.sha256, notes) == ("official", weight_files.OFFICIAL_SHA256[scale], [])
    assert files_below(home) == [f"cache/CFSR_x{scale}.pth"]

    assert {total for _, total in steps} == {len(content)}
    done = [n for n, _ in steps]
    assert len(done) > 10
    assert done == sorted(set(done)), "byte counts only grow"
    assert done[-1] == len(content)

    assert weight_files.find_backbone(scale)[0] == file
    assert asked == [f"/zoo/CFSR_x{scale}.pth"]


def test_a_download_without_a_length_reports_an_unknown_total(serve, published) -> None:
    content = (published / "CFSR_x2.pth").read_bytes()
    serve(sends(content, length=-1))
    steps: list[tuple[int, int]] = []
    weight_files.fetch_official(2, lambda *step: steps.append(step))
    done = [n for n, _ in steps]
    assert {total for _, total in steps} == {0}
    assert done == sorted(set(done))
    assert done[-1] == len(content)


def test_a_damaged_file_of_the_same_name_is_replaced_in_silence(
    serve, published, home, capfd
) -> None:
    """Output of the download library would mix with that of the command line."""
    (home / "cache").mkdir(parents=True)
    (home / "cache" / "CFSR_x2.pth").write_bytes(b"damaged")
    serve(sends((published / "CFSR_x2.pth").read_bytes()))
    assert weight_files.fetch_official(2).sha256 == weight_files.OFFICIAL_SHA256[2]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (sends(b"not here", status=404), "404"),
        (sends(b"later", status=503), "503"),
        (sends(b"x" * 5000, length=LENGTH), "IncompleteRead"),
        (sends(b"", length=LENGTH), "IncompleteRead"),
        (sends(b"x" * LENGTH), "not the published file"),
        (sends(b"<html>Please log in</html>"), "not the published file"),
        (sends(b""), "not the published file"),
        (resets, "ConnectionError"),
    ],
    ids=["404", "503", "cut", "cut at once", "wrong content", "login page", "empty", "reset"],
)
def test_a_failed_download_leaves_nothing(serve, published, home, answer, reason) -> None:
    asked = serve(answer)
    with pytest.raises(DownloadError) as caught:
        weight_files.fetch_official(2)
    text = str(caught.value)
    assert text.startswith("CFSR_x2.pth could not be downloaded from http://127.0.0.1:")
    assert reason in text
    assert "Nothing was kept" in text
    assert weight_files.WEIGHTS_VARIABLE in text
    assert files_below(home) == []
    assert len(asked) == 1

    serve(sends((published / "CFSR_x2.pth").read_bytes()))
    assert weight_files.fetch_official(2).sha256 == weight_files.OFFICIAL_SHA256[2]


def test_a_silent_server_times_out(serve, home, monkeypatch) -> None:
    monkeypatch.setattr(weight_files, "TIMEOUT", 0.2)
    with stalling(serve, b"x" * 100, LENGTH), pytest.raises(DownloadError, match="timed out"):
        weight_files.fetch_official(2)
    assert files_below(home) == []


def test_a_mirror_that_never_stops(serve, published, home, monkeypatch) -> None:
    monkeypatch.setattr(weight_files, "LARGEST_DOWNLOAD", 10_000)
    serve(sends(b"x" * LENGTH))
    steps: list[int] = []
    with pytest.raises(DownloadError, match="not the published file"):
        weight_files.fetch_official(2, lambda done, _: steps.append(done))
    assert steps == [weight_files.CHUNK]
    assert files_below(home) == []


def test_a_mirror_that_compresses_the_file(serve, published) -> None:
    content = (published / "CFSR_x2.pth").read_bytes()
    serve(sends(gzip.compress(content, 1), Content_Encoding="gzip"))
    steps: list[tuple[int, int]] = []
    weight_files.fetch_official(2, lambda *step: steps.append(step))
    assert steps[-1] == (len(content), 0)


@pytest.mark.parametrize(
    ("address", "reason"),
    [("http://127.0.0.1:9", r"http://127\.0\.0\.1:9/CFSR_x4\.pth: Connection"),
     ("some/folder", r"some/folder/CFSR_x4\.pth: MissingSchema")],
    ids=["refused", "not an address"],
)  # fmt: skip
def test_a_mirror_that_can_not_be_reached(home, monkeypatch, address, reason) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv(weight_files.URL_VARIABLE, address)
    with pytest.raises(DownloadError, match=reason):
        weight_files.fetch_official(4)
    assert files_below(home) == []


def test_a_slow_download_can_be_cancelled(serve, published, home) -> None:
    content = (published / "CFSR_x2.pth").read_bytes()
    steps: list[int] = []

    def cancel(done: int, total: int) -> None:
        steps.append(done)
        if done >= 2 * weight_files.CHUNK:
            raise CancelledError("cancelled")

    part = content[: 3 * weight_files.CHUNK]
    with stalling(serve, part, len(content)), pytest.raises(CancelledError):
        weight_files.fetch_official(2, cancel)
    assert steps == [weight_files.CHUNK, 2 * weight_files.CHUNK]
    assert files_below(home) == []


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt, RuntimeError])
def test_errors_of_progress_end_the_download_unchanged(serve, published, home, error) -> None:
    serve(sends((published / "CFSR_x2.pth").read_bytes()))

    def stop(done: int, total: int) -> None:
        raise error("enough")

    with pytest.raises(error, match=r"^enough$"):
        weight_files.fetch_official(2, stop)
    assert files_below(home) == []


def test_a_full_disk_and_an_impossible_folder_are_download_errors(
    serve, published, home, monkeypatch
) -> None:
    serve(sends((published / "CFSR_x2.pth").read_bytes()))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full_disk)
        with pytest.raises(DownloadError, match=r"can't be written .*No space left"):
            weight_files.fetch_official(2)
    assert files_below(home) == []
    shutil.rmtree(home)
    home.write_text("a file where the folder should be")
    with pytest.raises(DownloadError, match="can't be written"):
        weight_files.fetch_official(2)


def test_fetching_all_on_the_command_line(serve, published, home, capsys) -> None:
    asked = serve(publishes(published))
    assert main(["models", "fetch"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [f"x{s} {home / 'cache' / f'CFSR_x{s}.pth'}" for s in (2, 3, 4)]
    assert set(err.splitlines()) == {f"napari-cfsr: {weight_files.OFFICIAL_NOTICE}"}
    assert len(asked) == 3

    assert main(["models", "fetch", "--scale", "2", "4"]) == 0  # there already
    assert capsys.readouterr().err == ""
    assert len(asked) == 3


def test_a_failed_fetch_on_the_command_line_is_one_line(serve, home, capsys) -> None:
    serve(sends(b"not here", status=404))
    assert main(["models", "fetch", "--scale", "2"]) == 2
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert err.startswith("napari-cfsr: CFSR_x2.pth could not be downloaded from http://127.0.0.1")
    assert "404" in err
    assert files_below(home) == []


def test_upscaling_fetches_weights_on_first_use(serve, published, home, tmp_path, capsys) -> None:
    asked = serve(sends((published / "CFSR_x2.pth").read_bytes()))
    Image.new("L", (5, 4), 99).save(tmp_path / "a.png")
    assert main(["upscale", str(tmp_path / "a.png"), "--scale", "2", "--device", "cpu"]) == 0
    out, err = capsys.readouterr()
    assert "x2 with official CFSR_x2.pth" in out
    assert err == f"napari-cfsr: {weight_files.OFFICIAL_NOTICE}\n"
    assert asked == ["/zoo/CFSR_x2.pth"]
    kept = [name for name in files_below(home) if not name.startswith("cache/engines/")]
    assert kept == ["cache/CFSR_x2.pth"]
