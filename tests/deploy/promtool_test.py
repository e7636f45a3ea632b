"""Prometheus's own tool accepts rules, configuration and every query, and the rules' tests pass."""
import json
import pathlib
import subprocess
import tempfile
import unittest

import deploy_testing as dt  # first: it says what is missing
import yaml
import names_test

FOLDER = dt.DEPLOY / "prometheus"


class Promtool(unittest.TestCase):
    def ok(self, *arguments):
        done = dt.run("promtool", *arguments, cwd=FOLDER)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_rules_and_configuration(self):
        self.ok("check", "rules", "rules.yaml")
        self.ok("check", "config", "prometheus.yaml")

    def test_rules_do_what_they_say(self):
        self.ok("test", "rules", "rules_test.yaml")

    def test_exported_metrics(self):
        with dt.Server() as server:
            text = server.metrics_text()
        # The library's own series are not ours to name.
        ours = "\n".join(line for line in text.splitlines() if "exposer_" not in line) + "\n"
        done = subprocess.run(["promtool", "check", "metrics"], input=ours, text=True,
                              capture_output=True, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_queries_of_dashboard_and_autoscaler(self):
        queries = names_test.dashboard_queries() + names_test.scaler_queries()
        self.assertTrue(queries)
        rules = [{"record": f"query_{i}", "expr": dt.filled(query)}
                 for i, (_, query) in enumerate(queries)]
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "queries.yaml"
            path.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))
            self.ok("check", "rules", str(path))


class RulesHaveTests(unittest.TestCase):
    """Holds without promtool, but means little without it."""

    def test_each_alert_fires_and_stays_silent_and_each_record_is_computed(self):
        tests = yaml.safe_load((FOLDER / "rules_test.yaml").read_text())["tests"]
        alerts = [case for test in tests for case in test.get("alert_rule_test", [])]
        computed = " ".join(case["expr"] for test in tests
                            for case in test.get("promql_expr_test", []))
        for rule in names_test.rules():
            if "record" in rule:
                self.assertIn(rule["record"], computed)
                continue
            cases = [bool(case["exp_alerts"]) for case in alerts
                     if case["alertname"] == rule["alert"]]
            self.assertEqual(set(cases), {False, True}, rule["alert"])


if __name__ == "__main__":
    dt.main("promtool")
