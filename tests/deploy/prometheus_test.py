"""A real Prometheus scrapes a live tesserad with the shipped rules; every query works on what it has.

Skipped, with the reason, where the server is not installed (package prometheus).
"""
import base64
import json
import pathlib
import socket
import subprocess
import tempfile
import time
import unittest
import urllib.parse
import urllib.request

import yaml

import deploy_testing as dt
import names_test

# Scrapes that rate() needs two of, and the time to look at them.
SCRAPE_SECONDS = 1
PICTURE = dt.ROOT / "models/demo/pictures"
# Gauges and counters that have values once a request is answered.
LIVE = ("tessera_requests_total", "tessera_kv_cache_bytes", "tessera_prompt_tokens_total")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Prometheus:
    """A server of its own folder and port that scrapes one address, for a `with` statement."""

    def __init__(self, target):
        self.folder = tempfile.TemporaryDirectory()
        self.port = free_port()
        config = yaml.safe_load((dt.DEPLOY / "prometheus/prometheus.yaml").read_text())
        config["global"] = {"scrape_interval": f"{SCRAPE_SECONDS}s",
                            "evaluation_interval": f"{SCRAPE_SECONDS}s"}
        config["rule_files"] = [str(dt.DEPLOY / "prometheus/rules.yaml")]
        config["scrape_configs"][0]["static_configs"] = [{"targets": [target]}]
        self.config = pathlib.Path(self.folder.name) / "prometheus.yaml"
        self.config.write_text(yaml.safe_dump(config))

    def __enter__(self):
        self.process = subprocess.Popen(
            ["prometheus", f"--config.file={self.config}", f"--storage.tsdb.path={self.folder.name}",
             f"--web.listen-address=127.0.0.1:{self.port}"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.folder.cleanup()

    def get(self, path, **arguments):
        """The data of an API call; its error as AssertionError."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(arguments)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as reply:
                return json.load(reply)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{arguments}: {error.read().decode()}") from error

    def wait(self, what, good):
        """Waits until good() is true, and returns its value."""
        end = time.monotonic() + dt.START_LIMIT_SECONDS
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise AssertionError("prometheus ended")
            try:
                found = good()
            except OSError:  # not listening yet
                found = None
            if found:
                return found
            time.sleep(0.2)
        raise AssertionError(f"waited for {what}")


def ask(server):
    """One question about a picture, over HTTP."""
    picture = sorted(PICTURE.glob("*.png"))[0].read_bytes()
    url = "data:image/png;base64," + base64.b64encode(picture).decode()
    body = {"model": "demo", "max_tokens": 4,
            "messages": [{"role": "user", "content": [
                {"type": "image_url", "image_url": {"url": url}},
                {"type": "text", "text": "What is in the picture?"}]}]}
    address = server.entry("listening")["http_listen"]
    request = urllib.request.Request(f"http://{address}/v1/chat/completions",
                                     json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=dt.START_LIMIT_SECONDS) as reply:
        return json.load(reply)["usage"]


class ScrapedByPrometheus(unittest.TestCase):
    def test_numbers_rules_and_queries(self):
        with dt.Server("--model_name=demo") as server:
            usage = ask(server)
            target = server.entry("listening")["metrics_listen"]
            with Prometheus(target) as prometheus:
                prometheus.wait("the first scrape", lambda: [
                    t for t in prometheus.get("targets")["activeTargets"] if t["health"] == "up"])
                self.values(prometheus, usage)
                self.rules(prometheus)
                self.queries(prometheus)

    def values(self, prometheus, usage):
        for name in LIVE:
            prometheus.wait(name, lambda name=name: prometheus.get("query", query=name)["result"])
        asked = prometheus.get("query", query="sum(tessera_prompt_tokens_total)")["result"]
        self.assertEqual(int(asked[0]["value"][1]), usage["prompt_tokens"])

    def rules(self, prometheus):
        def evaluated():
            rules = [r for g in prometheus.get("rules")["groups"] for r in g["rules"]]
            return rules if rules and all(r["health"] != "unknown" for r in rules) else None
        rules = prometheus.wait("rules", evaluated)
        self.assertEqual(len(rules), len(names_test.rules()))
        self.assertEqual([r["name"] for r in rules if r["health"] != "ok"], [])
        self.assertEqual([r["name"] for r in rules if r.get("state") == "firing"], [])

    def queries(self, prometheus):
        for _, query in names_test.dashboard_queries() + names_test.scaler_queries():
            prometheus.get("query", query=dt.filled(query))


if __name__ == "__main__":
    dt.main("prometheus")
