import http.client
import json
import re
import shutil
import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import psutil
import pytest
import torch
import websocket

from fopro_lab.config import ExploreConfig, TrainConfig
from fopro_lab.training import distill
from fopro_lab.widgets import open_explorer
from fopro_lab.widgets.explorer import run_options
from fopro_lab.widgets.serving import _record, free_port, page_notebook, serve_explorer
from tests.conftest import complaint
from tests.data.toys import write_images
from tests.widgets import conftest
from tests.widgets.conftest import OPTIONS, serve_page

KERNEL = "00000000-0000-0000-0000-000000000000"


def test_page_runs_the_given_options_and_wrong_ones_are_refused():
    (cell,) = page_notebook(ExploreConfig(rings=4))["cells"]
    assert "'rings': 4" in "".join(cell["source"])
    told = complaint(serve_explorer, {"ring": 4})
    assert told == "ring: no such option; did you mean 'rings'?"
    told = complaint(serve_explorer, {"rings": "many"})
    assert told.startswith("rings: expected ") and told.endswith("'many'")
    told = complaint(serve_explorer, {"dataset": "no/such"})
    assert told.startswith("dataset: expected 'phantom' or a path that exists")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on half of the generated images whose prompt was trained."""
    options = {**OPTIONS, "teacher_size": 32, "epochs": 1, "threads": 1, "prompt_steps": 1}
    config = TrainConfig(method="random", **options)
    return distill(config, out=tmp_path_factory.mktemp("runs") / "random", verbose=False)


def test_a_run_brings_its_data_teacher_and_prompt_and_what_does_not_fit_is_named(
    run, fopro, tmp_path
):
    options = run_options(run.path, {"rings": 4})
    config = ExploreConfig(**options)
    assert (config.images, config.image_size, config.teacher_size) == (160, 32, 32)
    explorer = open_explorer(config)
    assert explorer.controls.student.value == run.name and explorer.controls.mode.value == "prompt"
    gain = run.prompt().mean_gain(size=(32, 32))
    torch.testing.assert_close(explorer.bands.change().gain, gain)
    words = ("explore", run.path, "--no-browser", "--port", 0)
    code, out, err = fopro(*words, "--set", "images=80")
    assert (code, out) == (2, "") and err.startswith("fopro: images: ")
    assert "was trained with 160, got 80; use --set images=160" in err
    code, out, err = fopro("explore", "--set", f"student_run={run.path}", "--set", "images=160")
    assert (code, out) == (2, "") and "image_size: " in err and "with 32, got 64" in err
    assert complaint(run_options, tmp_path, {}).startswith(f"{tmp_path}: expected a run folder")


def test_a_line_is_printed_before_what_takes_long(monkeypatch, fopro):
    monkeypatch.setattr("fopro_lab.widgets.explorer.load_from", lambda _: 1 / 0)
    code, out, err = fopro("explore", "--no-browser", "--port", 0)
    assert (code, out) == (1, "")
    assert err.startswith("fopro: opening images and networks; the address comes next\n")


def test_runs_of_one_name_are_all_offered_and_one_of_other_images_is_not(run, tmp_path):
    for place in ("a", "b", "c"):
        shutil.copytree(run.path, tmp_path / place / run.name)
    manifest = json.loads((tmp_path / "c" / run.name / "manifest.json").read_text())
    manifest["config"]["interpolation"] = "lanczos"
    (tmp_path / "c" / run.name / "manifest.json").write_text(json.dumps(manifest))
    options = {**run_options(run.path, {"rings": 2}), "student_run": str(tmp_path)}
    explorer = open_explorer(ExploreConfig(**options))
    names = [name for name, _ in explorer.controls.student.options]
    assert names[:2] == [str(tmp_path / place / run.name) for place in ("a", "b")]
    assert str(tmp_path / "c") not in " ".join(names)
    assert "1 run left out; the first: interpolation: " in explorer.message.value


def test_a_port_that_is_taken_is_one_clear_line(fopro):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, out, err = fopro("explore", "--no-browser", "--port", port)
    assert (code, out) == (2, "")
    assert re.fullmatch(rf"fopro: port: {port} cannot be taken \(.+\); choose another: .+\n", err)
    assert complaint(free_port, -1) == "port: expected 0 (any) to 65535, got -1"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A page whose images are gone once it is served: process, port, token and two folders."""
    folder, temporary = tmp_path_factory.mktemp("start"), tmp_path_factory.mktemp("t")
    (folder / "secret.png").write_bytes(b"an image of the folder that it was started in")
    images = write_images(temporary / "images", each=12, side=32)
    page = (folder, f"dataset={images}")
    with (
        (temporary / "log").open("w") as log,
        serve_page(*page, log=log, TMPDIR=str(temporary)) as (process, address),
    ):
        shutil.rmtree(images)
        found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/login\?token=([\w-]{43})", address)
        assert found, address
        yield process, int(found[1]), found[2], folder, temporary


def ask(port, path, *, token="", method="GET", host="", cookie=""):
    """Request a path exactly as it is written: a client that tidies it up would hide faults."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.putrequest(method, path, skip_accept_encoding=True, skip_host=bool(host))
    if host:  # as of a foreign page whose name leads here
        connection.putheader("Host", host)
    if token:
        connection.putheader("Authorization", f"token {token}")
    if cookie:
        connection.putheader("Cookie", cookie)
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read().decode(errors="replace")
    connection.close()
    return answer.status, body, dict(answer.getheaders())


@pytest.mark.slow
def test_page_is_for_who_has_the_token_and_on_the_loopback_alone(served):
    process, port, token, _, _ = served
    for wrong in ("", "?token=wrong", f"?token={token[:-1]}"):
        status, body, headers = ask(port, f"/{wrong}")
        assert status in (302, 401, 403) and "Band explorer" not in body
        assert token not in body and token not in str(headers)
    assert ask(port, "/", token=token, host="elsewhere.example")[0] == 403
    for method, path in (
        ("GET", f"/api/kernels/{KERNEL}"),
        ("DELETE", f"/api/kernels/{KERNEL}"),
        ("GET", f"/api/kernels/{KERNEL}/channels"),
        ("POST", f"/voila/api/shutdown/{KERNEL}"),
    ):
        assert ask(port, path, method=method)[0] in (401, 403), path
    listening = [c for c in psutil.Process(process.pid).net_connections() if c.status == "LISTEN"]
    assert {connection.laddr.ip for connection in listening} == {"127.0.0.1"}


def log_in(port, token):
    """Follow the printed address as a browser does: where it leads, and the cookie."""
    status, _, headers = ask(port, f"/login?token={token}")
    assert status == 302
    return headers["Location"], headers["Set-Cookie"]


@pytest.mark.slow
def test_the_token_leaves_the_address_for_a_cookie(served):
    _, port, token, _, _ = served
    place, cookie = log_in(port, token)
    assert place == "/" and {"HttpOnly", "SameSite=Lax"} <= set(cookie.split("; "))
    assert token not in place + cookie
    assert ask(port, "/voila/static/voila.js", cookie=cookie.split(";")[0])[0] == 200
    assert ask(port, f"/login?token={token[:-1]}")[0] == 200  # the form, which nobody can fill in


@pytest.mark.slow
def test_odd_requests_are_answered_and_logged_in_a_line(served):
    _, port, token, _, temporary = served
    cookie = log_in(port, token)[1].split(";")[0]
    odd = [("BREW", "/"), ("BREW", "/login"), ("TRACE", "/nothing"), ("DELETE", "/")]
    odd += [("GET", "/" + "x" * 30_000), ("GET", "/%ff%00"), ("GET", "/login?token=%ff")]
    odd += [("GET", path) for path in ("/logout", "/%00", "/%0a", "/a%7F", "/voila/static/%00")]
    for method, path in odd:
        status, body, _ = ask(port, path, method=method, cookie=cookie)
        assert 400 <= status < 500 or (status == 302 and path != "/"), (method, status)
        assert "Traceback" not in body
    with socket.create_connection(("127.0.0.1", port)) as plain:  # more than a header may hold
        with suppress(ConnectionError):  # refused before all of it was sent
            plain.sendall(b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\n\r\n")
            assert plain.recv(100) in (b"", b"HTTP/1.1 400 Bad Request\r\n\r\n")
    address = f"ws://127.0.0.1:{port}/api/kernels/{KERNEL}/channels"
    for known in (cookie, None):  # with a user and without, of a kernel that is not there
        with pytest.raises(websocket.WebSocketBadStatusException, match=r"40[34]"):
            websocket.create_connection(address, cookie=known)
    lines = (temporary / "log").read_text().splitlines()
    assert sum("BREW" in line for line in lines) == 2
    assert not any(re.match(r"\s|$|Traceback", line) for line in lines), lines
    assert max(map(len, lines)) < 2100


def test_an_error_is_logged_in_a_line_without_its_traceback():
    try:
        raise ValueError("two\nlines")
    except ValueError:
        made = _record("voila", 40, "file.py", 1, "no %s", ("page",), sys.exc_info())
    assert made.getMessage() == "no page: ValueError: two\\nlines" and made.exc_info is None


def kernels(process):
    """List the kernels of a server."""
    found = []
    for each in psutil.Process(process.pid).children():
        with suppress(psutil.NoSuchProcess):  # it has just ended
            found += [each] if "ipykernel" in str(each.cmdline()) else []
    return found


def wait_until_closed(process, *, seconds):
    """Wait for the kernels of closed pages to end."""
    end = time.monotonic() + seconds
    while kernels(process):
        assert time.monotonic() < end, kernels(process)
        time.sleep(0.2)


@pytest.mark.nightly
def test_pages_are_few_and_end_when_closed(tmp_path, monkeypatch):
    monkeypatch.setattr(conftest, "COMMAND", "from fopro_lab import cli; cli.main()")
    with serve_page(tmp_path, "images=80") as (process, address):
        port, token = re.fullmatch(r".*:(\d+)/login\?token=(.+)", address).groups()
        cookie = log_in(int(port), token)[1].split(";")[0]
        with ThreadPoolExecutor(12) as pool:
            pages = list(pool.map(lambda _: ask(int(port), "/", cookie=cookie), range(12)))
        assert sorted(status for status, *_ in pages) == [200] * 8 + [503] * 4
        assert len(kernels(process)) == 8
        assert all(
            "8 pages are open; close one" in body for status, body, _ in pages if status == 503
        )
        wait_until_closed(process, seconds=30)


@pytest.mark.nightly
def test_fifty_pages_opened_and_closed_leave_no_file_open(tmp_path, monkeypatch):
    monkeypatch.setattr(conftest, "COMMAND", conftest.LIGHT)
    with serve_page(tmp_path, "images=80") as (process, address):
        port, token = re.fullmatch(r".*:(\d+)/login\?token=(.+)", address).groups()
        server, cookie = psutil.Process(process.pid), log_in(int(port), token)[1].split(";")[0]

        def visit(number):
            """Open a page and its socket as a browser does; one in four says no goodbye."""
            status, body, _ = ask(int(port), "/", cookie=cookie)
            assert status == 200, body
            kernel = re.search(r'"kernelId": ?"([^"]+)"', body)[1]
            place = f"ws://127.0.0.1:{port}/api/kernels/{kernel}/channels?session_id={number}"
            page = websocket.create_connection(place, cookie=cookie, timeout=60)
            header = {"msg_id": "1", "msg_type": "kernel_info_request", "session": str(number)}
            parts = {"parent_header": {}, "metadata": {}, "content": {}, "buffers": []}
            page.send(json.dumps({"channel": "shell", "header": header, **parts}))
            while '"kernel_info_reply"' not in page.recv():
                pass
            page.close()
            if number % 4:
                shut = ask(int(port), f"/voila/api/shutdown/{kernel}", method="POST", token=token)
                assert shut[0] == 204, shut

        opened = []
        with ThreadPoolExecutor(4) as pool:
            for first in range(0, 52, 4):
                list(pool.map(visit, range(first, first + 4)))
                if first in (4, 48):  # the first pages import, and open what stays open
                    wait_until_closed(process, seconds=30)
                    opened.append(server.num_fds())
        assert opened[1] <= opened[0] + 3, (
            opened
        )  # of 44 pages: one handle in ten would be too many


@pytest.mark.slow
def test_no_file_is_handed_out_even_with_the_token(served):
    _, port, token, folder, temporary = served
    (private,) = temporary.glob("fopro-*")
    up = ("../" * 12).removesuffix("/")
    bases = ("/voila/files/", "/voila/static/", "/voila/templates/lab/static/", "/")
    targets = [
        "secret.png", "explorer.ipynb", "page/explorer.ipynb", f"{up}/etc/passwd",
        f"{'%2e%2e%2f' * 12}etc/passwd", f"{up}{folder}/secret.png", f"/{folder}/secret.png",
        f"{up}{private}/page/explorer.ipynb",
    ]  # fmt: skip
    for path in [f"{base}{target}" for base in bases for target in targets]:
        status, body, _ = ask(port, path, token=token)
        assert status != 200, path
        assert not any(
            text in body for text in ("an image of the folder", "root:", "open_explorer")
        )
    for path in ("/api/contents", "/voila/tree", "/voila/api/contents", "/api/kernels"):
        status, body, _ = ask(port, path, token=token)
        assert status != 200 and "ipynb" not in body, path


@pytest.mark.slow
def test_page_shows_errors_of_one_line_no_code_and_no_remote_parts_then_ends_clean(served):
    process, port, token, folder, temporary = served
    status, body, headers = ask(port, f"/?token={token}")
    assert status == 200 and "Band explorer" in body
    text = re.sub(r"<(script|style)[^>]*>.*?</\1>|<[^>]+>", "", body, flags=re.DOTALL)
    assert "InputError: dataset: expected " in text
    hidden = ("open_explorer", "import ", "options = ", "Traceback", "site-packages")
    assert not any(word in text for word in hidden)
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    kernels = psutil.Process(process.pid).children(recursive=True)
    assert kernels
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 0
    assert not psutil.wait_procs(kernels, timeout=10)[1]
    assert not list(temporary.glob("fopro-*")) and not list(temporary.glob("voila*"))
    assert [path.name for path in folder.iterdir()] == ["secret.png"]
