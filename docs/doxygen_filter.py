#!/usr/bin/env python3
"""Prints a header, a Markdown or a proto file as Doxygen wants it; docs/Doxyfile calls it.

Headers: comments become Doxygen's ("///"), and no word of theirs is read as a command or as HTML.
Markdown: headings get the identifiers that forges give them, links lead to those, and the name of
a header becomes a link to its page. Each line stays where it is, so that warnings name the right
one. Proto files: they become a page that shows the file.
"""
import functools
import itertools
import os
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
CODE_SPAN = re.compile(r"(`[^`]*`)")
COMMENT = re.compile(r"^(\s*)//(?!/)(.*)$")
# A declaration that ends on this line, and the comment after it; "//" within a string is neither.
TRAILING = re.compile(
    r"""^((?:[^"'/]|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)+'|/(?!/))*[;,])\s+//(.*)$""")
SENTENCE_END = re.compile(r"[.](?=\s|$)")
DIVIDER = re.compile(r"\s*-{3,}.*-{3,}\s*$")
HEADING = re.compile(r"^(#{1,6}) +(.*?)\s*$")
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
FILE_NAME = re.compile(r"(?<!\[)`((?:\w+/)+\w+\.(?:h|md|proto))`")


def escape(text):
    """`text` in which nothing is a command, HTML or a link."""
    text = re.sub(r"[\\@#%]|::", r"\\\g<0>", text)
    text = text.replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"https?://(?![\w\[])", r"<code>\g<0></code>", text)  # An address without a host.


def protect(text):
    """The same, but `code` stays code."""
    parts = CODE_SPAN.split(text)
    parts[::2] = map(escape, parts[::2])
    return "".join(parts)


def mark_brief(texts):
    """`texts`, the lines of a comment, with its first sentence marked as the brief description."""
    texts = texts.copy()
    for i, text in enumerate(texts):
        if not text.strip():
            break  # Doxygen ends the brief at an empty line too.
        ends = [part.end() for part in SENTENCE_END.finditer(text) if not inside_code(text, part)]
        if ends:
            rest = text[ends[0]:].strip()
            if rest:
                texts[i] = f"{text[:ends[0]]} @details {rest}"
            elif i + 1 < len(texts) and texts[i + 1].strip():
                texts[i + 1] = " @details" + texts[i + 1]
            break
    texts[0] = " @brief" + texts[0]
    return texts


def inside_code(text, match):
    """Whether a match lies within a code span."""
    return any(span.start() < match.start() < span.end() for span in CODE_SPAN.finditer(text))


def filter_header(source):
    """`source` with Doxygen's comments; the block that starts the file describes the file."""
    lines = source.splitlines()
    i = 0
    while i < len(lines):
        trailing = TRAILING.match(lines[i])
        if trailing:
            lines[i] = f"{trailing[1]}  ///<{protect(trailing[2])}"
        comments = list(itertools.takewhile(bool, map(COMMENT.match, lines[i:])))
        if comments:
            texts = mark_brief(["" if DIVIDER.match(comment[2]) else protect(comment[2])
                                for comment in comments])
            if i == 0:
                texts[-1] += " @file"
            for comment, text in zip(comments, texts):
                lines[i] = f"{comment[1]}///{text}"
                i += 1
        else:
            i += 1
    return "\n".join(lines) + "\n"


def page(path):
    """The identifier of a Markdown file's page; `path` is relative to the root."""
    return "page_" + re.sub(r"\W", "_", re.sub(r"\.(md|proto)$", "", path)).lower()


def anchor(path, slug):
    """The identifier of a heading, unique in the whole site."""
    return f"{page(path)}-{slug}"


def slug_of(heading):
    """The identifier that GitHub gives a heading."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
    return re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")


@functools.cache
def slugs(path):
    """{line: identifier} of the headings of a Markdown file; lines count from 0."""
    found, seen, fenced = {}, {}, False
    for number, line in enumerate((ROOT / path).read_text("utf-8").splitlines()):
        fenced ^= line.lstrip().startswith("```")
        heading = HEADING.match(line)
        if fenced or not heading:
            continue
        slug = slug_of(heading[2])
        seen[slug] = seen.get(slug, -1) + 1
        found[number] = f"{slug}-{seen[slug]}" if seen[slug] else slug
    return found


def reference(text, path, slug=""):
    """A link to what the site shows of a file; `text` alone if it shows nothing."""
    if not (ROOT / path).is_file():
        return text
    if path.endswith(".h"):
        return f"[{text}](@ref {path})"
    if path.endswith((".md", ".proto")):
        return f"[{text}](@ref {anchor(path, slug) if slug else page(path)})"
    return text


def rewritten(path, match):
    """A Markdown link with Doxygen's reference in place of a path."""
    image, text, target = match.groups()
    if re.match(r"\w+:", target):
        return match[0]
    name, _, slug = target.partition("#")
    if image:  # Doxygen looks for it in IMAGE_PATH.
        return f"![{text}]({os.path.basename(name)})"
    name = os.path.normpath(os.path.join(os.path.dirname(path), name)) if name else path
    return reference(text, name, slug)


def filter_markdown(path, source):
    """`source` with identifiers; `path` is relative to the root."""
    lines, fenced = source.splitlines(), False
    for i, line in enumerate(lines):
        fenced ^= line.lstrip().startswith("```")
        if fenced:
            continue
        heading = HEADING.match(line)
        if heading:
            title = heading[1] == "#"
            name = page(path) if title else anchor(path, slugs(path)[i])
            lines[i] = f"{line} {{#{name}}}"
            continue
        line = LINK.sub(functools.partial(rewritten, path), line)
        lines[i] = FILE_NAME.sub(lambda name: reference(name[0], name[1]), line)
    return "\n".join(lines) + "\n"


def filter_proto(path, source):
    """A page that shows the file."""
    return f"# {path} {{#{page(path)}}}\n```\n{source}```\n"


def main():
    path = pathlib.Path(sys.argv[1]).resolve()
    source = path.read_text("utf-8")
    relative = str(path.relative_to(ROOT))
    if path.suffix == ".md":
        sys.stdout.write(filter_markdown(relative, source))
    elif path.suffix == ".proto":
        sys.stdout.write(filter_proto(relative, source))
    else:
        sys.stdout.write(filter_header(source))


if __name__ == "__main__":
    main()
