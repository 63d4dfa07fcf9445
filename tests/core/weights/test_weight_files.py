"""Weights files: where they are looked for, and how they are fetched from a real server."""

from __future__ import annotations

import errno
import gzip
import hashlib
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

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

SIZES = {2: 1_252_602, 3: 1_278_586, 4: 1_315_002}  # bytes of the published files


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
def cached(official_folder: Path, home: Path) -> Path:
    """The official x2 file in the cache, and no folder named."""
    target = home / "cache" / "CFSR_x2.pth"
    target.parent.mkdir(parents=True)
    return Path(shutil.copy(official_folder / "CFSR_x2.pth", target))


@pytest.fixture
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A backbone that stands for the bundled one of x2."""
    path = tmp_path / "cfsr_x2.safetensors"
    torch.manual_seed(0)
    save_file(CFSR(CFSRConfig(scale=2)).state_dict(), path)
    monkeypatch.setattr(weight_files, "BUNDLED", tmp_path)
    return path


# where weights are looked for


def test_the_home_variable_moves_cache_and_data(home: Path) -> None:
    assert weight_files.cache_folder() == home / "cache"
    assert weight_files.data_folder() == home / "data"


def test_without_the_home_variable_the_users_own_folders_are_named_and_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(weight_files.HOME_VARIABLE)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert weight_files.cache_folder() != weight_files.data_folder()
    assert "napari-cfsr" in str(weight_files.cache_folder())
    assert not weight_files.cache_folder().exists()


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_official_files_are_the_published_ones(official: Path, scale: int) -> None:
    file, notes = weight_files.find_backbone(scale, "official", download=False)
    assert file.path == official / f"CFSR_x{scale}.pth"
    assert file.sha256 == hashlib.sha256(file.path.read_bytes()).hexdigest()
    assert file.sha256 == weight_files.OFFICIAL_SHA256[scale]
    assert (file.kind, file.name, notes) == ("official", f"official CFSR_x{scale}.pth", [])


def test_the_named_folder_comes_before_the_cache(cached: Path, official: Path) -> None:
    assert weight_files.official_path(2) == official / "CFSR_x2.pth"


def test_the_cache_is_next_where_the_named_folder_lacks_the_file(
    cached: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(weight_files.WEIGHTS_VARIABLE, str(tmp_path / "nowhere"))
    file, _ = weight_files.find_backbone(2, "auto", download=False)
    assert file.path == cached


def test_with_neither_and_no_download_the_message_says_what_to_do() -> None:
    with pytest.raises(WeightsNotFoundError) as caught:
        weight_files.find_backbone(3, "official", download=False)
    for part in ("models fetch --scale 3", "CFSR_x3.pth", weight_files.WEIGHTS_VARIABLE):
        assert part in str(caught.value)


def test_a_tampered_file_in_the_first_folder_is_an_error_and_not_passed_over(
    cached: Path, official_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "named"
    folder.mkdir()
    tamper(Path(shutil.copy(official_folder / "CFSR_x2.pth", folder)))
    monkeypatch.setenv(weight_files.WEIGHTS_VARIABLE, str(folder))
    for backbone in ("auto", "official"):
        with pytest.raises(TamperedWeightsError) as caught:
            weight_files.find_backbone(2, backbone)
        text = str(caught.value)
        assert str(folder / "CFSR_x2.pth") in text
        assert weight_files.OFFICIAL_SHA256[2] in text
        assert str(SIZES[2]) in text


def test_official_files_of_two_scales_swapped_are_told_apart(
    official_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(official_folder / "CFSR_x3.pth", tmp_path / "CFSR_x2.pth")
    monkeypatch.setenv(weight_files.WEIGHTS_VARIABLE, str(tmp_path))
    with pytest.raises(TamperedWeightsError, match=weight_files.OFFICIAL_SHA256[3]):
        weight_files.find_backbone(2)


@pytest.mark.parametrize("scale", [0, 1, 5, 8])
def test_other_scales_have_no_weights(scale: int) -> None:
    for call in (
        weight_files.find_backbone,
        weight_files.official_name,
        weight_files.official_path,
    ):
        with pytest.raises(ScaleError, match=f"2, 3 or 4, got {scale}"):
            call(scale)


def test_imported_backbones_are_found_by_name_and_by_stem(home: Path) -> None:
    folder = home / "data" / "backbones"
    folder.mkdir(parents=True)
    for name in ("mine.pth", "Other.SAFETENSORS", "notes.txt", "mine.pth.partial"):
        (folder / name).write_bytes(name.encode())
    assert [p.name for p in weight_files.imported_backbones()] == ["Other.SAFETENSORS", "mine.pth"]
    for name in ("mine", "mine.pth"):
        file, notes = weight_files.find_backbone(2, name)
        assert (file.path, file.kind, notes) == (folder / "mine.pth", "imported", [])
        assert file.sha256 == hashlib.sha256(b"mine.pth").hexdigest()


def test_a_file_comes_before_an_imported_name(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "data" / "backbones").mkdir(parents=True)
    (home / "data" / "backbones" / "mine.pth").write_bytes(b"imported")
    (tmp_path / "mine.pth").write_bytes(b"here")
    monkeypatch.chdir(tmp_path)
    assert weight_files.find_backbone(2, "mine.pth")[0].kind == "file"
    assert weight_files.find_backbone(2, tmp_path / "mine.pth")[0].kind == "file"
    assert weight_files.find_backbone(2, "mine")[0].kind == "imported"


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path))
    (tmp_path / "mine.pth").write_bytes(b"here")
    assert weight_files.find_backbone(2, "~/mine.pth")[0].path == tmp_path / "mine.pth"


@pytest.mark.parametrize(
    "backbone", ["nothing", "", "no/such/file.pth", "~nobody-here/x.pth", "x" * 5000]
)
def test_an_unknown_backbone_says_what_is_known(backbone: str) -> None:
    with pytest.raises(WeightsNotFoundError, match='"auto", "official", "bundled", an imported'):
        weight_files.find_backbone(2, backbone)


def test_a_bundled_backbone_is_found(ours: Path) -> None:
    file, notes = weight_files.find_backbone(2, "bundled")
    assert (file.path, file.kind, notes) == (ours, "bundled", [])
    with pytest.raises(WeightsNotFoundError, match=r'x3 backbone .* use backbone="official"'):
        weight_files.find_backbone(3, "bundled")


@pytest.mark.parametrize("download", [True, False])
def test_auto_falls_back_to_the_bundled_one_and_says_so(ours: Path, download: bool) -> None:
    """Nobody agreed to a download, so none is tried."""
    file, notes = weight_files.find_backbone(2, "auto", download=download)
    assert (file.path, file.kind) == (ours, "bundled")
    assert notes == ["the official weights are not on this machine"]
    model = load_model(2, device="cpu", download=download)
    assert model.info.backbone == "bundled cfsr_x2.safetensors"
    assert model.info.notes == tuple(notes)
    with pytest.raises((DownloadError, WeightsNotFoundError)):
        weight_files.find_backbone(2, "official", download=download)
    assert not weight_files.agreed()  # nothing came


def test_auto_prefers_official_weights_and_never_hides_that_they_are_damaged(
    ours: Path, cached: Path
) -> None:
    assert weight_files.find_backbone(2)[0].path == cached
    tamper(cached)
    with pytest.raises(TamperedWeightsError):
        weight_files.find_backbone(2)


def test_auto_without_any_names_both_reasons(home: Path) -> None:
    with pytest.raises(DownloadError, match=weight_files.WEIGHTS_VARIABLE):
        weight_files.find_backbone(2)
    assert files_below(home) == []


# import


def test_an_official_file_is_imported_into_the_cache_under_its_name(
    official_folder: Path, tmp_path: Path, home: Path
) -> None:
    copy = Path(shutil.copy(official_folder / "CFSR_x3.pth", tmp_path / "from a colleague.pth"))
    target = weight_files.import_file(copy, "backbones")
    assert target == home / "cache" / "CFSR_x3.pth"
    assert weight_files.find_backbone(3, download=False)[0].path == target
    assert weight_files.import_file(copy, "backbones") == target  # again: nothing to replace
    assert files_below(home) == ["cache/CFSR_x3.pth"]


def test_import_replaces_another_file_only_if_told_to(tmp_path: Path, home: Path) -> None:
    path = tmp_path / "mine.pth"
    path.write_bytes(b"old")
    target = weight_files.import_file(path, "refiners")
    assert target == home / "data" / "refiners" / "mine.pth"
    path.write_bytes(b"new")
    with pytest.raises(OptionError, match="exists and differs: pass --overwrite"):
        weight_files.import_file(path, "refiners")
    assert target.read_bytes() == b"old"
    weight_files.import_file(path, "refiners", overwrite=True)
    assert target.read_bytes() == b"new"
    assert files_below(home) == ["data/refiners/mine.pth"]


def test_a_name_that_would_not_be_found_again_is_refused(tmp_path: Path, home: Path) -> None:
    """Only files with these suffixes are listed, and some names mean something else."""
    for name in ("mine.bin", "mine", "auto.pth", "none.safetensors"):
        path = tmp_path / name
        path.write_bytes(b"weights")
        with pytest.raises(OptionError, match="rename it"):
            weight_files.import_file(path, "backbones")
    assert files_below(home) == []


def test_an_import_onto_a_full_disk_leaves_nothing(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mine.pth"
    path.write_bytes(b"weights")

    def full(source: Path, target: Path) -> None:
        Path(target).write_bytes(b"wei")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(WeightsError, match="No space left on device"):
        weight_files.import_file(path, "backbones")
    assert files_below(home) == []


def test_an_import_into_a_folder_that_cannot_be_made_is_one_clear_error(
    tmp_path: Path, home: Path
) -> None:
    path = tmp_path / "mine.pth"
    path.write_bytes(b"weights")
    home.write_text("a file where the folder should be")
    with pytest.raises(WeightsError, match="can't be written"):
        weight_files.import_file(path, "backbones")


# download

TaskResult = Callable[[BaseHTTPRequestHandler], None]
AGREED = "data/official-weights-agreed"


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[TaskResult], list[str]]]:
    """Starts a mirror that answers as told; gives the list of paths asked for."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    servers: list[tuple[ThreadingHTTPServer, threading.Thread]] = []

    def start(answer: TaskResult) -> list[str]:
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


def sends(body: bytes, length: int | None = None, status: int = 200) -> TaskResult:
    """TaskResult with `body`, saying that it is `length` bytes long."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Content-Length", str(len(body) if length is None else length))
        request.end_headers()
        request.wfile.write(body)

    return answer


def publishes(folder: Path) -> TaskResult:
    """TaskResult with the file that is asked for."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        sends((folder / Path(request.path).name).read_bytes())(request)

    return answer


def test_once_agreed_auto_fetches_the_official_weights(
    ours: Path,
    serve: Callable[[TaskResult], list[str]],
    official_folder: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of other scales too; where they are not to be had, the bundled one does."""
    asked = serve(publishes(official_folder))
    assert weight_files.find_backbone(2, "auto")[0].kind == "bundled"
    assert asked == []
    assert weight_files.find_backbone(3, "auto")[0].kind == "official"  # there is no other
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
    assert notes[0].startswith("official weights are not to be had here (")


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_download_is_kept_in_the_cache_and_not_repeated(
    serve: Callable[[TaskResult], list[str]], official_folder: Path, home: Path, scale: int
) -> None:
    published = (official_folder / f"CFSR_x{scale}.pth").read_bytes()
    asked = serve(sends(published))
    steps: list[tuple[int, int]] = []
    file, notes = weight_files.find_backbone(scale, progress=lambda *step: steps.append(step))
    assert file.path == home / "cache" / f"CFSR_x{scale}.pth"
    assert file.path.read_bytes() == published
    assert (file.kind, file.sha256, notes) == ("official", weight_files.OFFICIAL_SHA256[scale], [])
    assert files_below(home) == [f"cache/CFSR_x{scale}.pth"]

    assert {total for _, total in steps} == {SIZES[scale]}
    done = [n for n, _ in steps]
    assert len(done) > 10
    assert done == sorted(set(done)), "byte counts only grow"
    assert done[-1] == SIZES[scale]

    assert weight_files.find_backbone(scale)[0] == file
    assert asked == [f"/zoo/CFSR_x{scale}.pth"]


def test_a_download_without_a_length_reports_an_unknown_total(
    serve: Callable[[TaskResult], list[str]], official_folder: Path
) -> None:
    published = (official_folder / "CFSR_x2.pth").read_bytes()

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        request.wfile.write(published)

    serve(answer)
    steps: list[tuple[int, int]] = []
    weight_files.fetch_official(2, lambda *step: steps.append(step))
    done = [n for n, _ in steps]
    assert {total for _, total in steps} == {0}
    assert done == sorted(set(done))
    assert done[-1] == SIZES[2]


def test_a_download_without_progress(
    serve: Callable[[TaskResult], list[str]], official_folder: Path
) -> None:
    serve(sends((official_folder / "CFSR_x2.pth").read_bytes()))
    assert weight_files.fetch_official(2).sha256 == weight_files.OFFICIAL_SHA256[2]


def test_a_download_replaces_a_damaged_file_of_the_same_name(
    serve: Callable[[TaskResult], list[str]], official_folder: Path, home: Path
) -> None:
    (home / "cache").mkdir(parents=True)
    (home / "cache" / "CFSR_x2.pth").write_bytes(b"damaged")
    serve(sends((official_folder / "CFSR_x2.pth").read_bytes()))
    assert weight_files.fetch_official(2).sha256 == weight_files.OFFICIAL_SHA256[2]


@pytest.mark.parametrize("with_progress", [False, True])
@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (sends(b"not here", status=404), "404"),
        (sends(b"later", status=503), "503"),
        (sends(b"x" * 5000, length=SIZES[2]), "IncompleteRead"),
        (sends(b"", length=SIZES[2]), "IncompleteRead"),
        (sends(b"x" * SIZES[2]), "not the published file"),
        (sends(b"<html>Please log in</html>"), "not the published file"),
        (sends(b""), "not the published file"),
    ],
    ids=["404", "503", "cut", "cut at once", "wrong content", "login page", "empty"],
)
def test_a_failed_download_leaves_nothing(
    serve: Callable[[TaskResult], list[str]],
    official_folder: Path,
    home: Path,
    answer: TaskResult,
    reason: str,
    with_progress: bool,
) -> None:
    asked = serve(answer)
    steps: list[tuple[int, int]] = []
    progress = (lambda *step: steps.append(step)) if with_progress else None
    with pytest.raises(DownloadError) as caught:
        weight_files.fetch_official(2, progress)
    text = str(caught.value)
    assert text.startswith("CFSR_x2.pth could not be downloaded from http://127.0.0.1:")
    assert reason in text
    assert "Nothing was kept" in text
    assert weight_files.WEIGHTS_VARIABLE in text
    assert files_below(home) == []
    assert len(asked) == 1

    serve(sends((official_folder / "CFSR_x2.pth").read_bytes()))
    assert weight_files.fetch_official(2, progress).sha256 == weight_files.OFFICIAL_SHA256[2]


def test_a_connection_that_is_reset_leaves_nothing(
    serve: Callable[[TaskResult], list[str]], home: Path
) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.connection.shutdown(socket.SHUT_RDWR)

    serve(answer)
    with pytest.raises(DownloadError, match="ConnectionError"):
        weight_files.fetch_official(2)
    assert files_below(home) == []


def test_a_server_that_falls_silent_is_given_up(
    serve: Callable[[TaskResult], list[str]], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weight_files, "TIMEOUT", 0.2)
    gone_on = threading.Event()

    def answer(request: BaseHTTPRequestHandler) -> None:
        sends(b"x" * 100, length=SIZES[2])(request)
        request.wfile.flush()
        gone_on.wait(10)

    serve(answer)
    try:
        with pytest.raises(DownloadError, match="timed out"):
            weight_files.fetch_official(2)
    finally:
        gone_on.set()
    assert files_below(home) == []


def test_a_mirror_that_packs_the_file(
    serve: Callable[[TaskResult], list[str]], official_folder: Path
) -> None:
    packed = gzip.compress((official_folder / "CFSR_x2.pth").read_bytes(), 1)

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Encoding", "gzip")
        request.send_header("Content-Length", str(len(packed)))
        request.end_headers()
        request.wfile.write(packed)

    serve(answer)
    steps: list[tuple[int, int]] = []
    weight_files.fetch_official(2, lambda *step: steps.append(step))
    assert steps[-1] == (SIZES[2], 0)


def test_a_refused_connection_leaves_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:  # a port that nothing listens on
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv(weight_files.URL_VARIABLE, f"http://127.0.0.1:{port}")
    with pytest.raises(DownloadError, match=f"http://127.0.0.1:{port}/CFSR_x4.pth: Connection"):
        weight_files.fetch_official(4)
    assert files_below(home) == []


def test_a_mirror_that_is_no_address_is_a_download_error(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(weight_files.URL_VARIABLE, "some/folder")
    with pytest.raises(DownloadError, match=r"some/folder/CFSR_x2\.pth"):
        weight_files.fetch_official(2)
    assert files_below(home) == []


def test_a_slow_download_can_be_cancelled(
    serve: Callable[[TaskResult], list[str]], official_folder: Path, home: Path
) -> None:
    published = (official_folder / "CFSR_x2.pth").read_bytes()
    gone_on = threading.Event()

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(published)))
        request.end_headers()
        request.wfile.write(published[: 3 * weight_files.CHUNK])
        request.wfile.flush()
        gone_on.wait(10)  # a stalled server; the test ends it

    serve(answer)
    steps: list[int] = []

    def cancel(done: int, total: int) -> None:
        steps.append(done)
        if done >= 2 * weight_files.CHUNK:
            raise CancelledError("cancelled")

    try:
        with pytest.raises(CancelledError):
            weight_files.fetch_official(2, cancel)
    finally:
        gone_on.set()
    assert steps == [weight_files.CHUNK, 2 * weight_files.CHUNK]
    assert files_below(home) == []


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt, RuntimeError])
def test_whatever_progress_raises_ends_the_download_as_it_is(
    serve: Callable[[TaskResult], list[str]],
    official_folder: Path,
    home: Path,
    error: type[BaseException],
) -> None:
    serve(sends((official_folder / "CFSR_x2.pth").read_bytes()))

    def stop(done: int, total: int) -> None:
        raise error("enough")

    with pytest.raises(error, match=r"^enough$"):
        weight_files.fetch_official(2, stop)
    assert files_below(home) == []


def test_a_full_disk_during_a_download_is_a_download_error(
    serve: Callable[[TaskResult], list[str]],
    official_folder: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    serve(sends((official_folder / "CFSR_x2.pth").read_bytes()))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "move", full)
    with pytest.raises(DownloadError, match=r"can't be written to .*No space left"):
        weight_files.fetch_official(2)
    assert files_below(home) == []


def test_a_cache_that_cannot_be_made_is_a_download_error(
    serve: Callable[[TaskResult], list[str]], official_folder: Path, home: Path
) -> None:
    serve(sends((official_folder / "CFSR_x2.pth").read_bytes()))
    home.write_text("a file where the folder should be")
    with pytest.raises(DownloadError, match="can't be written"):
        weight_files.fetch_official(2)


def test_a_download_says_nothing_of_its_own(
    serve: Callable[[TaskResult], list[str]],
    official_folder: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Lines of the download library would mix with those of the command line."""
    serve(sends((official_folder / "CFSR_x2.pth").read_bytes()))
    weight_files.fetch_official(2)
    assert capfd.readouterr() == ("", "")


# the same from the command line


def test_fetching_all_on_the_command_line(
    serve: Callable[[TaskResult], list[str]],
    official_folder: Path,
    home: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        sends((official_folder / Path(request.path).name).read_bytes())(request)

    asked = serve(answer)
    assert main(["models", "fetch"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [f"x{s} {home / 'cache' / f'CFSR_x{s}.pth'}" for s in (2, 3, 4)]
    assert set(err.splitlines()) == {f"napari-cfsr: {weight_files.OFFICIAL_NOTICE}"}
    assert len(asked) == 3

    assert main(["models", "fetch", "--scale", "2", "4"]) == 0  # there already
    assert capsys.readouterr().err == ""
    assert len(asked) == 3


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (sends(b"not here", status=404), "404"),
        (sends(b"", length=99), "IncompleteRead"),
    ],
    ids=["404", "cut"],
)
def test_a_failed_fetch_on_the_command_line_is_one_line(
    serve: Callable[[TaskResult], list[str]],
    home: Path,
    capsys: pytest.CaptureFixture[str],
    answer: TaskResult,
    reason: str,
) -> None:
    serve(answer)
    assert main(["models", "fetch", "--scale", "2"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("napari-cfsr: CFSR_x2.pth could not be downloaded from http://127.0.0.1")
    assert reason in err
    assert files_below(home) == []


def test_upscaling_fetches_weights_on_first_use(
    serve: Callable[[TaskResult], list[str]],
    official_folder: Path,
    home: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = serve(sends((official_folder / "CFSR_x2.pth").read_bytes()))
    Image.new("L", (5, 4), 99).save(tmp_path / "a.png")
    assert main(["upscale", str(tmp_path / "a.png"), "--scale", "2", "--device", "cpu"]) == 0
    out, err = capsys.readouterr()
    assert "x2 with official CFSR_x2.pth" in out
    assert err == f"napari-cfsr: {weight_files.OFFICIAL_NOTICE}\n"
    assert asked == ["/zoo/CFSR_x2.pth"]
    kept = [name for name in files_below(home) if not name.startswith("cache/engines/")]
    assert kept == ["cache/CFSR_x2.pth"]
