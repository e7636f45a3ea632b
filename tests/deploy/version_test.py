"""The version is one number: CMakeLists.txt has it, and everything else agrees."""
import json
import pathlib
import re
import unittest
import urllib.request

import deploy_testing as dt

# Files that must repeat the number, because their format cannot read it from CMake, and where.
PLACES = {
    "CHANGELOG.md": r"^## \[([\d.]+)\]",  # the newest release comes first
    "deploy/docker/cpu.Dockerfile": r"^ARG VERSION=(\S+)$",
    "deploy/docker/gpu.Dockerfile": r"^ARG VERSION=(\S+)$",
    "deploy/kustomize/overlays/cpu/kustomization.yaml": r"^ +newTag: (\S+)-cpu$",
    "deploy/kustomize/overlays/gpu/kustomization.yaml": r"^ +newTag: (\S+)-gpu$",
}
SOURCE = "CMakeLists.txt"
# Measured figures name the version that was measured, and numbers in them can look like one.
RECORDS = ("tests/bench/plots/", "tests/bench/results/")


def version():
    """The project's version."""
    found, = re.findall(r"^project\(tessera VERSION (\S+) ", (dt.ROOT / SOURCE).read_text(), re.M)
    return found


def mentions(text, number):
    """Whether `text` names exactly this version, and not a longer number that contains it."""
    return re.search(rf"(?<![\d.]){re.escape(number)}(?!\.?\d)", text) is not None


class Files(unittest.TestCase):
    def test_the_number_has_three_parts(self):
        self.assertRegex(version(), r"^(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}$")

    def test_each_place_repeats_it(self):
        for path, pattern in PLACES.items():
            found = re.findall(pattern, (dt.ROOT / path).read_text(), re.M)
            self.assertEqual(found[:1], [version()], path)

    def test_no_other_file_repeats_it(self):
        listed = dt.run("git", "-C", str(dt.ROOT), "ls-files", "-z")
        if listed.returncode != 0:
            self.skipTest("not a git checkout")
        strangers = []
        for path in filter(None, listed.stdout.split("\0")):
            repeats = path == SOURCE or path in PLACES or path.startswith(RECORDS)
            if repeats or not (dt.ROOT / path).is_file():
                continue
            content = (dt.ROOT / path).read_bytes()
            if b"\0" not in content and mentions(content.decode("utf-8", "replace"), version()):
                strangers.append(path)
        self.assertEqual(strangers, [], "use Version() or list the place in this test")

    def test_mentions_are_told_from_other_numbers(self):
        self.assertTrue(mentions('tag: "7.8.9-cpu"', "7.8.9"))
        self.assertTrue(mentions("It is 7.8.9.", "7.8.9"))
        for text in ("192.7.8.9", "7.8.9.1", "7.8.91", "17.8.9", "7x8.9"):
            self.assertFalse(mentions(text, "7.8.9"), text)


class Programs(unittest.TestCase):
    def test_both_programs_say_it(self):
        for program in ("tesserad", "tessera"):
            done = dt.run(dt.binary(program), "--version")
            self.assertEqual((done.returncode, done.stdout.strip()), (0, f"{program} {version()}"))

    def test_a_running_server_says_it_everywhere(self):
        with dt.Server() as server:
            self.assertEqual(server.entry("starting")["version"], version())
            addresses = server.entry("listening")
            labels = dt.MetricTable(server.metrics_text()).labels["tessera_build_info"]
            self.assertEqual(labels["version"], {version()})
            url = f"http://{addresses['http_listen']}/version"
            with urllib.request.urlopen(url, timeout=dt.START_LIMIT_SECONDS) as reply:
                self.assertEqual(json.load(reply), {"version": version()})
            done = dt.run(dt.binary("tessera"), "info", "--json",
                          f"--address={addresses['admin_listen']}")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(json.loads(done.stdout)["server"]["version"], version())

    def test_the_package_is_named_after_it(self):
        config = pathlib.Path(dt.binary("..")) / "CPackConfig.cmake"
        if not config.is_file():
            self.skipTest("not a build folder: no CPackConfig.cmake")
        name, = re.findall(r'^set\(CPACK_PACKAGE_FILE_NAME "(.*)"\)$', config.read_text(), re.M)
        self.assertRegex(name, rf"^tesserad-{re.escape(version())}-\w+$")


if __name__ == "__main__":
    dt.main()
