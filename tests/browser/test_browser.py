"""The alarms of the browser tests go off, so that a quiet page means something."""

import pytest

pytestmark = pytest.mark.slow


def test_alarms_go_off_for_a_missing_file_and_a_broken_script(open_offline, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(
        '<img src="gone.png"><script>nonsense()</script><script>console.error("x")</script>'
    )
    _, alarms = open_offline(path)
    assert [url.rpartition("/")[2] for url in alarms.requests] == ["gone.png"]
    assert any("nonsense" in text for text in alarms.errors) and "x" in alarms.errors


def test_no_page_reaches_the_network(open_offline, tmp_path):
    path = tmp_path / "page.html"
    path.write_text('<script src="http://127.0.0.1:9/require.js"></script>')
    _, alarms = open_offline(path)
    assert alarms.requests == ["http://127.0.0.1:9/require.js"] and not alarms.quiet()
