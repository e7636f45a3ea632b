"""Rules, dashboard, autoscaler, gateway and documents name only metrics, labels and label values
that a running tesserad exports."""
import functools
import json
import re
import unittest

import deploy_testing as dt  # first: it says what is missing
import yaml

# Labels that Prometheus, the operator and histograms add.
TARGET_LABELS = {"job", "instance", "namespace", "pod", "le"}
NAME = re.compile(r"\b(?:tessera|process)_\w+")
SELECTOR = re.compile(r"\b((?:tessera|process)_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
GROUPING = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")


@functools.cache
def rules():
    groups = yaml.safe_load((dt.DEPLOY / "prometheus/rules.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard_queries():
    """[(panel or variable, expression)]."""
    board = json.loads((dt.DEPLOY / "grafana/tessera.json").read_text())
    found = [(panel["title"], target["expr"])
             for panel in board["panels"] for target in panel.get("targets", [])]
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            selector, _, label = variable["query"]["query"].partition("(")[2].rpartition(", ")
            found.append((variable["name"], f"count by ({label.rstrip(')')}) ({selector})"))
    return found


def scaler_queries():
    folder = dt.DEPLOY / "kustomize/overlays/autoscale"
    scaled = yaml.safe_load((folder / "scaledobject.yaml").read_text())
    return [(t["name"], t["metadata"]["query"]) for t in scaled["spec"]["triggers"]]


def picker_metrics():
    picker = yaml.safe_load((dt.DEPLOY / "kustomize/overlays/gateway/picker.yaml").read_text())
    extractor = next(p for p in picker["plugins"] if p["type"] == "core-metrics-extractor")
    (engine,) = extractor["parameters"]["engineConfigs"]
    return [(key, value) for key, value in engine.items() if key.endswith("Spec")]


class Names(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with dt.Server() as server:
            cls.table = dt.MetricTable(server.metrics_text())

    def problems(self, expression):
        """Returns the names in `expression` that do not exist."""
        found = []
        labels_in_use = set(TARGET_LABELS)
        for name, matchers in SELECTOR.findall(expression):
            if name not in self.table.labels:
                found.append(f"no metric {name}")
                continue
            labels = self.table.labels[name]
            labels_in_use |= set(labels)
            for label, operator, wanted in MATCHER.findall(matchers):
                if label in labels and "$" not in wanted:
                    alternatives = wanted.split("|") if "~" in operator else [wanted]
                    found += [f'{name} never has {label}="{value}"' for value in alternatives
                              if not any(re.fullmatch(value, known) for known in labels[label])]
                elif label not in labels and label not in TARGET_LABELS:
                    found.append(f"{name} has no label {label}")
        recorded = {rule["record"] for rule in rules() if "record" in rule}
        found += [f"no recording rule {name}" for name in re.findall(r"\btessera:[\w:]+", expression)
                  if name not in recorded]
        for listed in GROUPING.findall(expression):
            # A recorded series keeps labels that the expression itself does not show.
            if "tessera:" not in expression:
                found += [f"groups by {label}, which nothing has" for label in
                          listed.replace(" ", "").split(",") if label not in labels_in_use]
        return found

    def check(self, queries):
        self.assertTrue(queries)
        for where, expression in queries:
            with self.subTest(where):
                self.assertEqual(self.problems(expression), [], expression)

    def test_the_check_itself_finds_what_is_wrong(self):
        for wrong in ("rate(tessera_requests[5m])", 'tessera_ready{state="used"}',
                      'tessera_kv_cache_bytes{state="lost"}',
                      'tessera_requests_total{code=~"OK|FINE"}',
                      "sum by (state) (tessera_ready)", "tessera:nothing:rate5m > 1",
                      "tessera_time_to_first_token_seconds"):
            self.assertNotEqual(self.problems(wrong), [], wrong)

    def test_rules(self):
        self.check([(rule.get("record") or rule["alert"], rule["expr"]) for rule in rules()])

    def test_dashboard(self):
        self.check(dashboard_queries())

    def test_legends_of_the_dashboard_are_labels_of_the_result(self):
        board = json.loads((dt.DEPLOY / "grafana/tessera.json").read_text())
        for panel in board["panels"]:
            for target in panel.get("targets", []):
                shown = re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])
                kept = set(re.findall(r"\w+", " ".join(re.findall(r"\bby \(([^)]*)\)",
                                                                  target["expr"]))))
                with self.subTest(panel["title"]):
                    self.assertLessEqual(set(shown), kept)

    def test_autoscaler(self):
        self.check(scaler_queries())

    def test_gateway_maps_gauges(self):
        self.check(picker_metrics())
        for key, name in picker_metrics():
            self.assertEqual(self.table.kinds[name], "gauge", key)

    def test_documents(self):
        for path in ("deploy/README.md", "deploy/sizing.md", "SECURITY.md"):
            text = (dt.ROOT / path).read_text()
            names = set(NAME.findall(text)) - {"tessera_tests"}
            self.assertTrue(names)
            self.assertLessEqual(names, set(self.table.kinds), path)

    def test_dashboard_has_its_rows_in_order_and_no_overlap(self):
        board = json.loads((dt.DEPLOY / "grafana/tessera.json").read_text())
        rows = [panel["title"] for panel in board["panels"] if panel["type"] == "row"]
        self.assertEqual(rows, ["Now", "Requests", "Engine", "Cache", "Vision", "Build"])
        self.assertEqual(len({panel["id"] for panel in board["panels"]}), len(board["panels"]))
        taken = {}
        for panel in board["panels"]:
            at = panel["gridPos"]
            self.assertLessEqual(at["x"] + at["w"], 24, panel["title"])
            for cell in ((x, y) for x in range(at["x"], at["x"] + at["w"])
                         for y in range(at["y"], at["y"] + at["h"])):
                self.assertNotIn(cell, taken, f"{panel['title']} over {taken.get(cell)}")
                taken[cell] = panel["title"]


if __name__ == "__main__":
    dt.main()
