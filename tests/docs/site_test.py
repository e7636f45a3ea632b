#!/usr/bin/env python3
"""docs/build.sh builds the whole site without a warning and without a dead link."""
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Site(unittest.TestCase):
    def build(self, folder):
        return subprocess.run([str(ROOT / "docs/build.sh"), str(folder)], capture_output=True,
                              text=True, check=False)

    def test_it_builds_and_leads_from_the_index_to_pages_and_headers(self):
        with tempfile.TemporaryDirectory() as folder:
            done = self.build(folder)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            site = pathlib.Path(folder)
            index = (site / "index.html").read_text("utf-8")
            version, = re.findall(r"^project\(tessera VERSION (\S+) ",
                                  (ROOT / "CMakeLists.txt").read_text("utf-8"), re.M)
            self.assertIn(f'<span id="projectnumber">&#160;{version}</span>', index)
            for page in ("page_readme", "page_deploy_readme", "page_engine_readme",
                         "page_proto_tessera_v1_inference", "policy_8h"):
                self.assertRegex(index, rf'href="{page}\w*\.html')
            # The plain comments of a header describe its members, and the protocol is shown.
            policy = (site / "classtessera_1_1Policy.html").read_text("utf-8")
            self.assertTrue('class="mdescRight"' in policy)
            protocol = (site / "page_proto_tessera_v1_inference.html").read_text("utf-8")
            self.assertTrue("message GenerateRequest" in protocol)

    def test_it_does_not_remove_a_folder_of_something_else(self):
        with tempfile.TemporaryDirectory() as folder:
            (pathlib.Path(folder) / "precious").write_text("x")
            self.assertEqual(self.build(folder).returncode, 1)
            self.assertTrue((pathlib.Path(folder) / "precious").exists())


if __name__ == "__main__":
    for tool in ("doxygen", "lychee"):
        if shutil.which(tool) is None:
            print(f"skipped: {tool} is not installed")
            sys.exit(77)
    unittest.main(verbosity=2)
