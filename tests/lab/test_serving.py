import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fopro_lab.errors import InputError
from fopro_lab.reports import serving
from fopro_lab.reports.serving import explorer_notebook, free_port, page_notebook

ROOT = Path(__file__).parents[2]
SOME_KERNEL = "00000000-0000-0000-0000-000000000000"


def test_page_runs_the_given_values_after_the_declared_ones():
    page = page_notebook(explorer_notebook(), {"rings": 4, "dataset": "phantom"})
    sources = [cell["source"] for cell in page["cells"]]
    place = sources.index("rings = 4\ndataset = 'phantom'")
    assert "parameters" in page["cells"][place - 1]["metadata"]["tags"]
    assert sources[-1].rstrip().endswith("\nchooser")


def test_page_refuses_a_misspelt_knob_a_wrong_value_and_a_missing_data_set():
    with pytest.raises(InputError, match=r"ring: the explorer has no such knob.*'rings'\?"):
        page_notebook(explorer_notebook(), {"ring": 4})
    with pytest.raises(InputError, match="rings: expected a whole number like 8, got 'many'"):
        page_notebook(explorer_notebook(), {"rings": "many"})
    with pytest.raises(InputError, match="data set no/such: not at no/such"):
        page_notebook(explorer_notebook(), {"dataset": "no/such"})


def test_a_port_that_is_taken_is_one_clear_line(fopro):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        code, out, told = fopro("explore", "--no-browser", "--port", port)
    assert (code, out) == (2, "")
    assert re.fullmatch(rf"fopro: port: {port} cannot be taken \(.+\); choose another: .+\n", told)


def test_only_the_loopback_is_listened_at():
    (taken,) = free_port(0)
    with taken:
        assert taken.getsockname()[0] == "127.0.0.1"


@pytest.mark.parametrize(("given", "pins"), [({}, "pins"), ({"pins_dir": "mine"}, "mine")])
def test_pins_and_figures_go_where_the_command_was_started(
    tmp_path, monkeypatch, capsys, given, pins
):
    monkeypatch.chdir(tmp_path)
    seen = []
    monkeypatch.setattr(serving, "_run", lambda served, *_, **__: seen.append(served.read_text()))
    serving.serve_explorer(given, port=0, out="figures")
    (source,) = [c["source"] for c in json.loads(seen[0])["cells"] if c.get("id") == "given"]
    assert f"pins_dir = {pins!r}" in source
    assert f"out_dir = {str(tmp_path / 'figures')!r}" in source


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The page of a small explorer, started as a user would: process, port, token, folder."""
    folder, temporary = tmp_path_factory.mktemp("start"), tmp_path_factory.mktemp("t")
    (folder / "secret.png").write_bytes(b"an image of the folder that it was started in")
    words = ["explore", "--port", "0", "--no-browser", "--set", "images=40", "--set", "rings=2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)}
    process = subprocess.Popen(
        [sys.executable, "-m", "fopro_lab", *words],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        # A shell's background process ignores Ctrl-C, and so would this one in such a test run.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    guard = threading.Timer(240, process.kill)  # a hang, not a slow machine
    guard.start()
    address = process.stdout.readline().strip()
    found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/\?token=([\w-]{43})", address)
    assert found, address
    yield process, int(found[1]), found[2], folder, temporary
    guard.cancel()
    if process.poll() is None:
        process.terminate()
        process.wait(timeout=30)
    process.stdout.close()


def ask(port, path, *, token="", method="GET"):
    """Ask for a path as it is written: a client that tidies it up would hide what is tested."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=180)
    headers = {"Authorization": f"token {token}"} if token else {}
    connection.putrequest(method, path, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read().decode(errors="replace")
    connection.close()
    return answer.status, body, dict(answer.getheaders())


@pytest.mark.slow
def test_page_is_for_who_has_the_token(served):
    _, port, token, _, _ = served
    for wrong in ("", "?token=wrong", f"?token={token[:-1]}"):
        status, body, headers = ask(port, f"/{wrong}")
        assert status in (302, 401, 403) and "Bands" not in body
        assert token not in body and token not in str(headers)
    for method, path in (
        ("GET", f"/api/kernels/{SOME_KERNEL}"),
        ("DELETE", f"/api/kernels/{SOME_KERNEL}"),
        ("GET", f"/api/kernels/{SOME_KERNEL}/channels"),
        ("POST", f"/voila/api/shutdown/{SOME_KERNEL}"),
    ):
        assert ask(port, path, method=method)[0] in (401, 403), path


@pytest.mark.slow
def test_no_file_is_handed_out_even_with_the_token(served):
    _, port, token, folder, temporary = served
    (private,) = temporary.glob("fopro-explore-*")
    climb, coded = ("../" * 12).removesuffix("/"), "%2e%2e%2f" * 12
    bases = ("/voila/files/", "/files/", "/voila/static/", "/voila/templates/lab/static/",
             "/voila/labextensions/", "/voila/api/themes/", "/api/contents/", "/")  # fmt: skip
    targets = [
        "secret.png", "explore.ipynb", "page/explore.ipynb", "06_band_explorer.ipynb",
        f"{climb}/etc/passwd", f"{coded}etc/passwd", f"{climb}{folder}/secret.png",
        f"/{folder}/secret.png", f"{climb}{private}/page/explore.ipynb",
    ]  # fmt: skip
    told = ("an image of the folder", "root:", "BandExplorer(")
    for base in bases:
        for target in targets:
            for name in (token, ""):
                status, body, _ = ask(port, f"{base}{target}", token=name)
                assert status != 200, (base, target)
                assert not any(word in body for word in told), (base, target)
    for path in ("/api/contents", "/voila/tree", "/voila/api/contents", "/api/kernels", "/api"):
        status, body, _ = ask(port, path, token=token)
        assert status != 200 and "ipynb" not in body, path


@pytest.mark.slow
def test_page_shows_no_code_and_asks_nothing_of_others_then_ends_clean(served):
    process, port, token, folder, temporary = served
    status, body, headers = ask(port, f"/?token={token}")
    assert status == 200 and "Bands" in body and "widget-view+json" in body
    for code in ("BandExplorer(", "from fopro_lab", "import ", "rings = 2"):
        assert code not in re.sub(r"<(script|style)[^>]*>.*?</\1>", "", body, flags=re.DOTALL)
    assert not re.findall(r"https?://[^\"' ]*(?:cdn|jsdelivr|unpkg|cloudflare)[^\"' ]*", body)
    assert not re.findall(r"""(?:src|href)=["'](?:https?:)?//[^"']*""", body)
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True
    ).stdout.split()
    assert children, "a kernel of the page"
    assert list(temporary.glob("fopro-explore-*"))
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 0
    end = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in children) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)
    assert not list(temporary.glob("fopro-explore-*")) and not list(temporary.glob("voila*"))
    assert [path.name for path in folder.iterdir()] == ["secret.png"]
