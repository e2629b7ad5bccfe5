"""`qd prometheus`: printed once, or served to whoever scrapes."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from typing import Any

import pytest

from console.cli.prometheus import Exporter
from console.client import Client
from jobs.base.errors import Unreachable
from tests.console.fake_controller import FakeController, Reply

TEXT = b"# HELP qd_info The version.\n# TYPE qd_info gauge\nqd_info 1\n"


def test_it_is_printed_as_it_is(qd: Any, controller: FakeController) -> None:
    controller.on("GET /v1/metrics", Reply(TEXT))
    assert qd("prometheus").out == TEXT.decode()


@pytest.mark.parametrize("listen", ["9464", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:70000"])
def test_what_is_no_address_is_refused(qd: Any, controller: FakeController, listen: str) -> None:
    assert qd("prometheus", "--listen", listen).code == 2


def test_each_scrape_asks_anew(qd: Any, controller: FakeController) -> None:
    controller.on("GET /v1/metrics", Reply(TEXT))
    with Exporter(("127.0.0.1", 0), Client.from_environment()) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}"
            with urllib.request.urlopen(f"{url}/metrics") as answer:
                assert answer.read() == TEXT
            controller.on("GET /v1/metrics", Unreachable("it starts"))
            for path, status in (("/metrics", 503), ("/v1/jobs", 404)):
                with pytest.raises(urllib.error.HTTPError) as refused:
                    urllib.request.urlopen(url + path)
                assert refused.value.code == status
                refused.value.close()
        finally:
            server.shutdown()
            thread.join()
