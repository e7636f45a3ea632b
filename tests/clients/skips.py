#!/usr/bin/env python3
"""Prints a table of what ctest skipped and why.

usage: skips.py [--strict] BUILD...

BUILD is a build folder with tests.log (what ctest printed) and Testing/Temporary/LastTest.log.

A test that was skipped must have said why: "Skipped" and the reason on the next line (GTest), or
"skipped: reason" or unittest's "skipped 'reason'" (Python). --strict: exits with 1 if a reason is
missing, or is not in allowed_skips.txt.
"""
import collections
import pathlib
import re
import sys

ALLOWED = pathlib.Path(__file__).with_name("allowed_skips.txt")
NO_REASON = "(no reason given)"


def tests(build):
    """(name, output, skipped) of each test of a build folder's last run."""
    printed = (build / "tests.log").read_text(errors="replace")
    skipped = set(re.findall(r"Test +#\d+: (\S+) \.*\*\*\*Skipped", printed))
    log = (build / "Testing/Temporary/LastTest.log").read_text(errors="replace")
    for block in re.split(r"^(?=\d+/\d+ Testing: )", log, flags=re.M)[1:]:
        name = block.partition("\n")[0].partition(" Testing: ")[2]
        yield name, block, name in skipped


def reasons(output):
    """Why parts of a test, or all of it, were skipped."""
    found = re.findall(r": Skipped\n([^\[\n].*)", output)
    found += re.findall(r"^skipped: (.+)$", output, re.M)
    found += [reason for _, reason in re.findall(r"\.\.\. skipped (['\"])(.+)\1$", output, re.M)]
    return found


def main():
    arguments = sys.argv[1:]
    strict = "--strict" in arguments
    builds = [pathlib.Path(a) for a in arguments if a != "--strict"]
    allowed = [re.compile(line) for line in ALLOWED.read_text().splitlines()
               if line and not line.startswith("#")]
    by_reason = collections.defaultdict(list)
    for build in builds:
        for name, output, skipped in tests(build):
            found = reasons(output)
            if skipped and not found:
                found = [NO_REASON]
            for reason in found:
                by_reason[reason].append(name)
    if not by_reason:
        print("Nothing was skipped.")
        return 0
    bad = [r for r in by_reason if not any(a.fullmatch(r) for a in allowed)]
    print("Skipped:\n  count  reason")
    for reason, names in sorted(by_reason.items(), key=lambda item: -len(item[1])):
        mark = "  NOT ALLOWED" if reason in bad else ""
        print(f"  {len(names):5}  {reason}{mark}\n         such as {names[0]}")
    if strict and bad:
        print(f"{len(bad)} reasons are not in {ALLOWED.name}: install what is missing")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
