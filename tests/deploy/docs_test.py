"""The documents of deploy/ and what they speak of agree: alerts and runbook, flags, paths, and the
two forms of the rules."""
import re
import unittest

import deploy_testing as dt  # first: it says what is missing
import yaml
import names_test

# Flags of other programs that the documents run.
FOREIGN_FLAGS = {
    "read-only", "cap-drop", "security-opt", "gpus", "tmpfs", "env", "stop-timeout", "rm",
    "health-cmd",  # docker
    "install", "prefix", "strip",  # cmake
    "now", "previous", "config-file", "pool-name", "pool-namespace", "model-server-metrics-port",
    "config.file", "web.listen-address", "gtest_filter",
    "backend", "profile", "constraint", "tokenizer", "data", "output",  # guidellm
    "url", "endpoint-type", "streaming", "use-server-token-count", "request-count",
    "synthetic-input-tokens-mean", "output-tokens-mean", "extra-inputs", "image-width-mean",
    "image-height-mean",  # aiperf
    "headless",  # locust
}
READMES = ["deploy/README.md", "deploy/sizing.md", "SECURITY.md"]


class Docs(unittest.TestCase):
    def test_every_alert_has_its_paragraph_and_points_to_it(self):
        text = (dt.DEPLOY / "README.md").read_text()
        sections = re.findall(r"^### (Tesserad\w+)\n(.+?)(?=^#|\Z)", text, re.M | re.S)
        alerts = [rule for rule in names_test.rules() if "alert" in rule]
        self.assertEqual([name for name, _ in sections], [rule["alert"] for rule in alerts])
        for name, paragraph in sections:
            self.assertGreater(len(paragraph.split()), 20, name)
        for rule in alerts:
            self.assertEqual(rule["annotations"]["runbook"],
                             f"deploy/README.md#{rule['alert'].lower()}")
            self.assertIn(rule["labels"]["severity"], {"critical", "warning", "info"})

    def test_flags_in_documents_exist(self):
        known = dt.server_flags() | dt.client_options() | FOREIGN_FLAGS
        self.assertIn("kv_cache_bytes", known)
        self.assertIn("admin_address", known)
        for path in READMES:
            text = (dt.ROOT / path).read_text()
            used = set(re.findall(r"(?<![\w-])--([a-z][\w.-]*\w)", text))
            self.assertEqual(used - known, set(), path)

    def test_flags_in_alerts_and_manifests_comments_exist(self):
        known = dt.server_flags() | dt.client_options() | {"help", "flagfile"}  # Abseil's own
        for path in dt.DEPLOY.rglob("*"):
            if path.suffix in {".yaml", ".flags", ".service", ".conf"}:
                # llm-d's and kubectl's are spelt with dashes, ours with underscores.
                used = set(re.findall(r"(?<![\w-])--([a-z][a-z_]*)(?![\w.-])", path.read_text()))
                self.assertEqual(used - known, set(), path)

    def test_paths_in_documents_exist(self):
        for path in READMES:
            text = (dt.ROOT / path).read_text()
            for named in re.findall(r"\bdeploy/[\w./-]*\w", text):
                self.assertTrue((dt.ROOT / named).exists(), named)
            for named in re.findall(r"\]\(([\w./-]+)\)", text):
                self.assertTrue((dt.DEPLOY / named).exists(), named)

    def test_both_forms_of_the_rules_are_the_same(self):
        plain = yaml.safe_load((dt.DEPLOY / "prometheus/rules.yaml").read_text())
        made = dt.run(str(dt.DEPLOY / "prometheus/make_prometheusrule.sh"))
        self.assertEqual(made.returncode, 0, made.stderr)
        path = dt.DEPLOY / "kustomize/components/monitoring/prometheusrule.yaml"
        self.assertEqual(path.read_text(), made.stdout,
                         "run deploy/prometheus/make_prometheusrule.sh as it says")
        self.assertEqual(yaml.safe_load(made.stdout)["spec"], plain)


if __name__ == "__main__":
    dt.main()
