#!/usr/bin/env python3
"""The Markdown files lead only to files, headings and paths that exist, as read on a forge."""
import os
import pathlib
import re
import subprocess
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "docs"))
import doxygen_filter as df  # noqa: E402  (it knows the identifiers of headings)

# Records of the past name files as they were then.
RECORDS = ("tests/bench/history/",)


def tracked():
    """The repository's files, relative to its root."""
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                            cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        names = set(listed.stdout.split("\0")) - {""}
        return sorted(name for name in names if (ROOT / name).is_file())
    return sorted(str(path.relative_to(ROOT)) for path in ROOT.rglob("*")
                  if path.is_file() and path.relative_to(ROOT).parts[0] not in {"build", ".git"})


FILES = tracked()
MARKDOWN = [name for name in FILES if name.endswith(".md")]
FOLDERS = {str(parent) for name in FILES for parent in pathlib.PurePath(name).parents} - {"."}
TOP_FOLDERS = {name.split("/")[0] for name in FILES if "/" in name}


def prose(source):
    """[(line, text)] of a Markdown file outside of fenced code."""
    lines, fenced = [], False
    for number, line in enumerate(source.splitlines(), 1):
        fence = line.lstrip().startswith("```")
        fenced ^= fence
        if not fenced and not fence:
            lines.append((number, line))
    return lines


def problems(path, source):
    """Returns the faults in the links and paths of one Markdown file."""
    found = []
    for number, line in prose(source):
        without_code = re.sub(r"`[^`]*`", "``", line)
        for _, _, target in df.LINK.findall(without_code):
            problem = dead(path, target)
            if problem:
                found.append(f"{path}:{number}: {target}: {problem}")
        for code in re.findall(r"`([^`]+)`", line):
            if named_path_is_missing(code):
                found.append(f"{path}:{number}: `{code}`: no such path")
    return found


def dead(path, target):
    """Why a link's target does not exist; None if it does or lies on another host."""
    if re.match(r"\w+:", target):
        return None
    name, _, slug = target.partition("#")
    if name.startswith("/"):
        return "begins at the host's root"
    name = os.path.normpath(os.path.join(os.path.dirname(path), name)) if name else path
    if name not in FILES and name not in FOLDERS:
        return "no such file"
    if slug and (not name.endswith(".md") or slug not in df.slugs(name).values()):
        return "no such heading"
    return None


def named_path_is_missing(code):
    """Whether `code` looks like a path from the root and is none; patterns are left alone."""
    words = code.split()
    path = words[0].rstrip("/") if words else ""
    if "/" not in path or path.split("/")[0] not in TOP_FOLDERS or re.search(r"[^\w./-]", path):
        return False
    # A unit is named without its suffix: `kernels/ops` is ops.h and ops.cc.
    return not (path in FILES or path in FOLDERS or any(f"{path}{suffix}" in FILES
                                                        for suffix in (".h", ".cc", ".cu")))


class Links(unittest.TestCase):
    def test_no_dead_link_and_no_missing_path(self):
        self.assertIn("README.md", MARKDOWN)
        found = []
        for path in MARKDOWN:
            if not path.startswith(RECORDS):
                found += problems(path, (ROOT / path).read_text("utf-8"))
        self.assertEqual(found, [], "\n" + "\n".join(found))

    def test_the_index_leads_to_every_page(self):
        reached, waiting = set(), ["docs/index.md"]
        while waiting:
            path = waiting.pop()
            reached.add(path)
            for _, _, target in df.LINK.findall((ROOT / path).read_text("utf-8")):
                name = os.path.normpath(os.path.join(os.path.dirname(path), target.split("#")[0]))
                if name in MARKDOWN and name not in reached:
                    waiting.append(name)
        self.assertEqual(sorted(set(MARKDOWN) - reached), [])


class Checker(unittest.TestCase):
    """Each kind of dead link is found, next to its nearest living neighbour."""

    def test_links(self):
        for target, reason in (("../README.md", None), ("../README.md#limits", None),
                               ("#researchers", None), ("../deploy", None),
                               ("https://no.such.host/x", None), ("mailto:a@b.c", None),
                               ("../READYOU.md", "no such file"), ("README.md", "no such file"),
                               ("../README.md#limit", "no such heading"),
                               ("#no-such", "no such heading"),
                               ("../CMakeLists.txt#x", "no such heading"),
                               ("/README.md", "begins at the host's root")):
            self.assertEqual(dead("docs/index.md", target), reason, target)

    def test_paths(self):
        for code in ("kernels/ops.h", "cache/policies/", "kernels/ops", "tests/fuzz/fuzz_<name>.cc",
                     "a/b", "tests/lint/prose.py PATH...", "docs/"):
            self.assertFalse(named_path_is_missing(code), code)
        for code in ("kernels/opps.h", "cache/no_such/", "tests/lint/gone.py PATH"):
            self.assertTrue(named_path_is_missing(code), code)

    def test_code_is_no_link(self):
        self.assertEqual(problems("README.md", "`[a](b.md)`\n```\n[a](b.md)\n```\n"), [])
        self.assertEqual(problems("README.md", "x\n[a](b.md)\n"),
                         ["README.md:2: b.md: no such file"])

    def test_identifiers_of_headings(self):
        self.assertIn("platform-teams", df.slugs("docs/index.md").values())
        self.assertIn("openais-http-api", [df.slug_of("OpenAI's HTTP API")])
        self.assertEqual(df.slug_of("`Ops` is [one](x.md) class, not 2"), "ops-is-one-class-not-2")


if __name__ == "__main__":
    unittest.main(verbosity=2)
