#!/usr/bin/env python3
"""Holds the checkable rules of CONTRIBUTING.md's section "Prose" over comments and Markdown.

    tests/lint/prose.py                 every tracked file; exits 1 if an error was found
    tests/lint/prose.py PATH...         these files and folders
    tests/lint/prose.py --list PATH...  prints the same findings and exits 0
    tests/lint/prose.py --strict        warnings count as errors

Errors: a comment, a paragraph of a comment or a docstring starts with one of OPENINGS.
Warnings: a later sentence of a comment starts with one of them, or a comment, a string of the
product's code or Markdown prose contains one of WORDS.
"""
import argparse
import bisect
import io
import pathlib
import re
import subprocess
import sys
import tokenize

ROOT = pathlib.Path(__file__).resolve().parents[2]
SLASH_SUFFIXES = {".h", ".cc", ".cu", ".cuh", ".proto"}
HASH_SUFFIXES = {".cmake", ".conf", ".flags", ".service", ".sh", ".yaml", ".yml"}
HASH_NAMES = {"CMakeLists.txt", ".clang-format", ".clang-tidy", ".gitattributes", ".gitignore",
              "run"}
# These files quote the rules, or cases that break them on purpose.
EXEMPT = {"CONTRIBUTING.md", "tests/lint/prose.py", "tests/lint/prose_test.py"}
# Other projects wrote these files.
FOREIGN_FOLDERS = ("proto/google/", "models/", "tests/golden/tokenizer/", "tests/fuzz/corpus/")

OPENINGS = ("Of", "What", "Those", "Whose", "Where")
WORDS = {
    "anew": "again",
    "nobody": "no caller, no thread",
    "lest": "so that ... does not",
    "thereof": "of it",
    "by way of": "through",
    "so many": "a number",
    "beside": "next to, alongside",
    "besides": "in addition to",
}
OPENING = re.compile(rf"(?:[-*] )?({'|'.join(OPENINGS)})\s")
LATER_OPENING = re.compile(rf"[.;:!?)] +({'|'.join(OPENINGS)})\s")
# The longest word comes first, because a match takes the first alternative that fits.
WORD = re.compile(r"(?<![\w-])(%s)(?![\w-])" % "|".join(
    word.replace(" ", r"\s+") for word in sorted(WORDS, key=len, reverse=True)), re.I)

# One match is a comment, a string or a character of C++; a digit's apostrophe is no character.
CPP_TOKEN = re.compile(
    r"""(?P<line>//[^\n]*)
      | (?P<block>/\*.*?\*/)
      | (?P<raw>R"(?P<mark>[^()\\\s]{0,16})\(.*?\)(?P=mark)")
      | (?P<string>"(?:[^"\\\n]|\\.)*")
      | (?P<character>(?<![0-9a-fA-F])'(?:[^'\\\n]|\\.)+')""", re.X | re.S)
# One match is a comment of a shell script, YAML or CMake: "#" at the start or after a blank.
HASH_TOKEN = re.compile(
    r"""(?P<string>"(?:[^"\\\n]|\\.)*"|(?<!\w)'[^'\n]*')
      | (?P<line>(?:^|(?<=[ \t]))\#[^\n]*)""", re.X | re.M)


class Text:
    """Prose with the line of the file that each of its lines comes from."""

    def __init__(self):
        self.lines = []  # (number, words)

    def joined(self):
        """The prose as one line, and a function from an offset in it to a line's number."""
        starts, parts, length = [], [], 0
        for _, words in self.lines:
            starts.append(length)
            parts.append(words)
            length += len(words) + 1
        return " ".join(parts), lambda at: self.lines[bisect.bisect_right(starts, at) - 1][0]


class Comments:
    """Gathers comment lines into paragraphs.

    A line goes on with the paragraph of the line above if it starts in the same column and no code
    stands before it.
    """

    def __init__(self, source):
        self.paragraphs = []
        self._lines = source.splitlines()
        self._next = None  # (line, column) that would continue the last paragraph

    def add(self, number, column, words, alone=False):
        """Adds a line of a comment; `alone` keeps it apart from the line above."""
        if not words:
            self._next = None
            return
        apart = alone or self._lines[number - 1][:column].strip() or re.match(r"[-*] ", words)
        if apart or self._next != (number, column):
            self.paragraphs.append(Text())
        self.paragraphs[-1].lines.append((number, words))
        self._next = (number + 1, column)


def cpp_texts(source):
    """Paragraphs of comments, and strings as texts of one line."""
    newlines = [at for at, letter in enumerate(source) if letter == "\n"]
    comments, strings = Comments(source), []
    for token in CPP_TOKEN.finditer(source):
        number = bisect.bisect_left(newlines, token.start()) + 1
        column = token.start() - (newlines[number - 2] + 1 if number > 1 else 0)
        if token["line"]:
            comments.add(number, column, token["line"].lstrip("/!<").strip())
        elif token["block"]:
            for offset, line in enumerate(token["block"][2:-2].splitlines()):
                comments.add(number + offset, 0, line.strip().lstrip("*!").strip(), not offset)
        elif token["string"] or token["raw"]:
            text = Text()
            text.lines.append((number, token[0]))
            strings.append(text)
    return comments.paragraphs, strings


def hash_texts(source):
    """Paragraphs of comments; YAML's and shell's strings are data."""
    newlines = [at for at, letter in enumerate(source) if letter == "\n"]
    comments = Comments(source)
    for token in HASH_TOKEN.finditer(source):
        if not token["line"] or token.start() == 0 and token["line"].startswith("#!"):
            continue
        number = bisect.bisect_left(newlines, token.start()) + 1
        column = token.start() - (newlines[number - 2] + 1 if number > 1 else 0)
        comments.add(number, column, token["line"].lstrip("#").strip())
    return comments.paragraphs, []


def python_texts(source):
    """Paragraphs of comments and docstrings, and the other strings."""
    comments, strings = Comments(source), []
    fresh = True  # A string that starts a logical line is a docstring.
    layout = {tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        number, column = token.start
        if token.type == tokenize.COMMENT:
            comments.add(number, column, token.string.lstrip("#!").strip())
        elif token.type == tokenize.STRING:
            if fresh:
                for offset, line in enumerate(token.string.strip("rRbBuU\"'").splitlines()):
                    comments.add(number + offset, 0, line.strip(), not offset)
            else:
                text = Text()
                text.lines.append((number, token.string))
                strings.append(text)
            fresh = False
        elif token.type != tokenize.NL:  # An NL also ends a line within brackets.
            fresh = token.type in layout
    return comments.paragraphs, strings


def markdown_texts(source):
    """Paragraphs without fenced code and `code` spans."""
    comments, fenced = Comments(source), False
    for number, line in enumerate(source.splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
            line = ""
        comments.add(number, 0, "" if fenced else re.sub(r"`[^`]*`", "``", line).strip())
    return comments.paragraphs, []


def reader_of(path):
    """The function that reads this kind of file; None for data."""
    if path.suffix in SLASH_SUFFIXES:
        return cpp_texts
    if path.suffix == ".py":
        return python_texts
    if path.suffix == ".md":
        return markdown_texts
    if path.suffix in HASH_SUFFIXES or path.name in HASH_NAMES or "Dockerfile" in path.name:
        return hash_texts
    return None


def check(path, source):
    """[(line, is_error, message)] of one file; `path` is relative to the root."""
    paragraphs, strings = reader_of(path)(source)
    findings = []
    for text in paragraphs:
        words, line_of = text.joined()
        if path.suffix != ".md":
            opening = OPENING.match(words)
            if opening:
                findings.append((line_of(0), True, f'comment starts with "{opening[1]}"'))
            for later in LATER_OPENING.finditer(words):
                findings.append((line_of(later.start(1)), False,
                                 f'sentence of a comment starts with "{later[1]}"'))
    product = path.parts[0] != "tests"
    for text in paragraphs + (strings if product else []):
        words, line_of = text.joined()
        for word in WORD.finditer(words):
            plain = re.sub(r"\s+", " ", word[1]).lower()
            findings.append((line_of(word.start(1)), False,
                             f'"{plain}": say {WORDS[plain]}, or recast the sentence'))
    return sorted(findings)


def tracked_files(paths):
    """Files of git below `paths`, relative to the root, without exempt and foreign ones."""
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard",
                             "--", *map(str, paths)],
                            cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [pathlib.Path(name) for name in sorted(set(listed.split("\0")) - {""})
            if name not in EXEMPT and not name.startswith(FOREIGN_FOLDERS)
            and reader_of(pathlib.Path(name)) and (ROOT / name).is_file()]


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", type=pathlib.Path, help="files or folders; default all")
    parser.add_argument("--list", action="store_true", help="print the findings and exit 0")
    parser.add_argument("--strict", action="store_true", help="warnings count as errors")
    options = parser.parse_args()
    missing = [str(path) for path in options.paths if not path.exists()]
    if missing:
        parser.error(f"no such file or folder: {' '.join(missing)}")
    files = tracked_files([path.resolve() for path in options.paths] or [ROOT])
    errors = warnings = 0
    for path in files:
        for line, is_error, message in check(path, (ROOT / path).read_text("utf-8")):
            errors += is_error
            warnings += not is_error
            print(f"{path}:{line}: {'error' if is_error else 'warning'}: {message}")
    print(f"prose: {len(files)} files, {errors} errors, {warnings} warnings")
    failed = errors or options.strict and warnings
    return 1 if failed and not options.list else 0


if __name__ == "__main__":
    sys.exit(main())
