"""Shared parts of the tests of deploy/: paths, tools, a running tesserad and its own reports.

Each test file is a program. It exits with SKIPPED, and says why, when a tool that all of it needs
is not installed.
"""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import unittest
import urllib.request

try:
    import yaml  # noqa: F401  (the tests that import this file use it)
except ImportError:
    print("skipped: the Python package PyYAML is not installed")
    sys.exit(77)

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
SKIPPED = 77  # ctest's SKIP_RETURN_CODE

# A sanitizer's build on a busy machine is slow; nothing waits this long otherwise.
START_LIMIT_SECONDS = 60


def main(*needed_tools):
    """Runs the calling file's tests, or exits with SKIPPED when a tool is missing."""
    for tool in needed_tools:
        if shutil.which(tool) is None:
            print(f"skipped: {tool} is not installed")
            sys.exit(SKIPPED)
    unittest.main(module="__main__", verbosity=2)  # which says why a test was skipped


def binary(name):
    """tesserad or tessera of the build under test."""
    folder = os.environ.get("TESSERA_BINARY_DIR", str(ROOT / "build/release/bin"))
    return str(pathlib.Path(folder) / name)


def run(*command, **more):
    """The finished process; its output as text."""
    return subprocess.run(command, capture_output=True, text=True, check=False, **more)


def kubectl_version():
    """Returns the version text of kubectl; empty without one."""
    return "" if shutil.which("kubectl") is None else run("kubectl", "version", "--client").stdout


def server_flags():
    """Names of tesserad's flags."""
    return set(re.findall(r"^ +--(\w+) \(", run(binary("tesserad"), "--help").stdout, re.M))


def client_options():
    """Names of the options of all of the client's commands."""
    commands = re.findall(r"^  (\w+) {2,}", run(binary("tessera"), "--help").stdout, re.M)
    text = "".join(run(binary("tessera"), command, "--help").stdout for command in commands)
    return set(re.findall(r"^ +--(\w+)", text, re.M))


def read_flagfile(text):
    """[(name, value or None)] of a flag file, comments left out."""
    lines = [line.strip() for line in text.splitlines()]
    pairs = [line.removeprefix("--").partition("=") for line in lines if line.startswith("--")]
    strange = [line for line in lines if line and not line.startswith(("#", "--"))]
    assert not strange, strange
    return [(name, value if equals else None) for name, equals, value in pairs]


def filled(query):
    """A dashboard's query with values in place of Grafana's variables."""
    for variable, value in (("__rate_interval", "1m"), ("__range", "1h"), (r"\w+", ".*")):
        query = re.sub(rf"\${variable}\b", value, query)
    return query


def seconds(text):
    """Returns the seconds of a duration as flags and systemd write it."""
    units = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600}
    parts = re.findall(r"([\d.]+)(ms|min|s|m|h)", text)
    assert "".join(number + unit for number, unit in parts) == text, text
    return sum(float(number) * units[unit] for number, unit in parts)


def num_bytes(text):
    """Returns the bytes of a size as flags (1GiB) and Kubernetes (1Gi) write it."""
    number, unit = re.fullmatch(r"(\d+)(?:([KMGT])iB?)?", text).groups()
    return int(number) << {None: 0, "K": 10, "M": 20, "G": 30, "T": 40}[unit]


class Server:
    """A tesserad with the demo model on free ports of loopback, for a `with` statement."""

    def __init__(self, *flags, environment=None):
        # Later flags win: whatever the caller's say of device, sizes and addresses, this machine
        # can do.
        self.command = [
            binary("tesserad"), *flags, f"--model={ROOT}/models/demo", "--device=cpu",
            "--cpu_threads=1", "--kv_cache_bytes=64MiB", "--listen=127.0.0.1:0",
            "--admin_listen=127.0.0.1:0", "--metrics_listen=127.0.0.1:0", "--http_listen=127.0.0.1:0",
            "--log_format=json",
            "--log_file="]
        self.environment = os.environ | (environment or {})
        self.process = None
        self.log = []

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stderr=subprocess.PIPE, text=True,
                                        env=self.environment)
        for line in self.process.stderr:
            entry = json.loads(line) if line.startswith("{") else {"msg": line}
            self.log.append(entry)
            if entry["msg"] == "serving":
                return self
        self.process.wait()
        raise AssertionError(f"{self.command} ended: {self.log[-1:]}")

    def __exit__(self, *_):
        self.process.kill()  # how it ends by itself is what tests/e2e is about
        self.process.communicate()

    def entry(self, message):
        """The first log entry with that message."""
        return next(entry for entry in self.log if entry["msg"] == message)

    def metrics_text(self):
        address = self.entry("listening")["metrics_listen"]
        with urllib.request.urlopen(f"http://{address}/metrics",
                                    timeout=START_LIMIT_SECONDS) as reply:
            return reply.read().decode()


class MetricTable:
    """The metrics in a scrape: kinds by name, and values by name and label."""

    def __init__(self, text):
        self.kinds = dict(re.findall(r"^# TYPE (\S+) (\w+)$", text, re.M))
        self.labels = {}
        for name, labels in re.findall(r"^([a-zA-Z_]\w*)(?:\{(.*)\})? ", text, re.M):
            known = self.labels.setdefault(name, {})
            for label, value in re.findall(r'(\w+)="([^"]*)"', labels):
                known.setdefault(label, set()).add(value)
