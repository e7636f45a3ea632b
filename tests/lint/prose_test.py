#!/usr/bin/env python3
"""tests/lint/prose.py finds what it should in every kind of file, and nothing more."""
import pathlib
import subprocess
import sys
import unittest

import prose


def findings(name, source):
    return prose.check(pathlib.Path(name), source)


def errors(name, source):
    return [line for line, is_error, _ in findings(name, source) if is_error]


def warnings(name, source):
    return [line for line, is_error, _ in findings(name, source) if not is_error]


class Openings(unittest.TestCase):
    def test_each_opening_is_an_error(self):
        for opening in prose.OPENINGS:
            self.assertEqual(errors("cache/a.h", f"int a;\n// {opening} the page.\n"), [2])

    def test_kinds_of_comments(self):
        self.assertEqual(errors("cache/a.cc", "int a;  // What it is.\n"), [1])
        self.assertEqual(errors("cache/a.cc", "/* What it is. */\n/** Of\n * a page. */\n"), [1, 2])
        self.assertEqual(errors("cache/a.cc", "/// What it is.\n//! Of it.\nint b; ///< Of b\n"),
                         [1, 3])
        self.assertEqual(errors("proto/a.proto", "message A {}  // Of a page.\n"), [1])
        self.assertEqual(errors("a.sh", "#!/bin/sh\n# What it is.\necho '# Of'  # Of it\n"), [2, 3])
        self.assertEqual(errors("deploy/a.yaml", 'a: "# What"\nb: x#What\nc: 1  # Where d\n'), [3])
        self.assertEqual(errors("x/CMakeLists.txt", "# Those here.\n"), [1])

    def test_aligned_comments_after_code_are_one_each(self):
        self.assertEqual(errors("cache/a.h", "int a;  // Rows.\nint b;  // Of b.\n"), [2])
        self.assertEqual(errors("cache/a.h", "int a;  // Rows\n        // Of b.\n"), [])

    def test_python(self):
        source = ('"""What it is.\n\nWhere not.\n"""\nx = "What a text"  # Of it\n'
                  'def f():\n    "Of f."\n')
        self.assertEqual(errors("tests/a.py", source), [1, 3, 5, 7])
        self.assertEqual(errors("tests/a.py", 'f(\n    "What a text",\n    "Of it")\n'), [])

    def test_a_paragraph_starts_again_after_an_empty_line_and_at_a_bullet(self):
        self.assertEqual(errors("cache/a.h", "// A page.\n//\n// What it is.\n"), [3])
        self.assertEqual(errors("cache/a.h", "// A page:\n// - What it is.\n"), [2])

    def test_a_line_that_goes_on_is_no_opening(self):
        self.assertEqual(errors("cache/a.h", "// Returns the size\n// Of Pages, in bytes.\n"), [])
        self.assertEqual(errors("cache/a.h", "// What's more, Office and Whatever pass.\n"), [])

    def test_code_is_no_comment(self):
        source = 'f("// What");\nf(R"(// Of)");\nx = \'"\'; // Fine\n'
        self.assertEqual(findings("cache/a.cc", source), [])
        self.assertEqual(errors("cache/a.cc", "int n = 1'000'000;  // Of n\n"), [1])

    def test_a_later_sentence_is_a_warning(self):
        source = "// A page. What it holds\n// is bytes.\n"
        self.assertEqual(warnings("cache/a.h", source), [1])
        self.assertEqual(errors("cache/a.h", source), [])

    def test_markdown_may_open_freely(self):
        self.assertEqual(findings("a.md", "# What it is\n\nWhere it is.\n"), [])


class Words(unittest.TestCase):
    def test_each_word_is_a_warning(self):
        for word in prose.WORDS:
            self.assertEqual(warnings("cache/a.h", f"// Says {word} here.\n"), [1], word)
            self.assertEqual(warnings("a.md", f"Says {word.upper()} here.\n"), [1], word)

    def test_a_phrase_may_span_lines(self):
        self.assertEqual(warnings("cache/a.h", "// It goes by\n// way of a page.\n"), [1])

    def test_parts_of_words_and_code_pass(self):
        self.assertEqual(findings("cache/a.h", "// Renewed aneweth wildlest.\nint beside;\n"), [])
        self.assertEqual(findings("a.md", "Run `beside`.\n```\nlest\n```\n"), [])

    def test_strings_of_the_product_count_and_those_of_tests_do_not(self):
        source = 'return Error("nobody asked");\n'
        self.assertEqual(warnings("server/a.cc", source), [1])
        self.assertEqual(findings("tests/server/a.cc", source), [])


class Program(unittest.TestCase):
    def run_it(self, *arguments):
        return subprocess.run([sys.executable, "-B", prose.__file__, *arguments],
                              capture_output=True, text=True, check=False)

    def test_checks_the_files_of_the_tree(self):
        checked = {str(path) for path in prose.tracked_files([prose.ROOT])}
        self.assertLessEqual({"README.md", "CMakeLists.txt", "proto/tessera/v1/inference.proto",
                              "test.sh", "tests/deploy/deploy_testing.py"}, checked)
        self.assertEqual(checked & prose.EXEMPT, set())

    def test_exit_codes(self):
        self.assertEqual(self.run_it("--list").returncode, 0)
        self.assertEqual(self.run_it("no/such/file").returncode, 2)
        self.assertIn("1 files, 0 errors", self.run_it(str(prose.ROOT / "LICENSE"),
                                                       str(prose.ROOT / "CMakeLists.txt")).stdout)


if __name__ == "__main__":
    unittest.main(verbosity=2)
