"""Every overlay renders, and what it renders fits together and fits the server: names, labels,
ports, probes, flags, the arithmetic of a drain, memory, security."""
import functools
import pathlib
import re
import shutil
import sys
import tempfile
import unittest

import deploy_testing as dt  # first: it says what is missing
import yaml

KUSTOMIZE = dt.DEPLOY / "kustomize"
OVERLAYS = sorted(path.name for path in (KUSTOMIZE / "overlays").iterdir())
SHUTDOWN_SECONDS = 2  # server/daemon.cc: two grace periods of one second each
NAME = {"app.kubernetes.io/name": "tesserad"}
OLDEST_KUBERNETES = "1.27"  # deploy/README.md, "Kubernetes"
# Kinds of other projects, whose schemas come with them.
FOREIGN_KINDS = {"HTTPRoute", "InferencePool", "PodMonitor", "PrometheusRule", "ScaledObject"}


def render(overlay):
    done = dt.run("kubectl", "kustomize", str(KUSTOMIZE / "overlays" / overlay))
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


class Overlay:
    """One rendered overlay."""

    def __init__(self, name):
        self.objects = render(name)
        self.deployment = self.one("Deployment")
        self.pod = self.deployment["spec"]["template"]["spec"]
        self.container, = self.pod["containers"]
        # Flags as tesserad reads them, file after file: later ones win.
        volumes = {v["name"]: v for v in self.pod["volumes"]}
        self.flags = {}
        self.flag_lines = []
        for argument in self.container["args"]:
            path = argument.removeprefix("--flagfile=")
            mount = next(m for m in self.container["volumeMounts"]
                         if path.startswith(m["mountPath"] + "/"))
            config = self.one("ConfigMap", volumes[mount["name"]]["configMap"]["name"])
            pairs = dt.read_flagfile(config["data"][path.rpartition("/")[2]])
            self.flags.update(pairs)
            self.flag_lines += [name if value is None else f"{name}={value}"
                                for name, value in pairs]

    def one(self, kind, name=None):
        found, = [o for o in self.objects
                  if o["kind"] == kind and name in (None, o["metadata"]["name"])]
        return found

    def all(self, kind):
        return [o for o in self.objects if o["kind"] == kind]

    def ports(self):
        return {port["name"]: port["containerPort"] for port in self.container["ports"]}


def each_overlay(test):
    """Runs a test's body for each overlay, which it gets as its argument."""
    @functools.wraps(test)
    def run(self):
        for name, overlay in self.overlays.items():
            with self.subTest(name):
                test(self, overlay)
    return run


class Kustomize(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.overlays = {name: Overlay(name) for name in OVERLAYS}
        cls.known_flags = dt.server_flags()

    def test_the_overlays_are_the_promised_ones(self):
        self.assertEqual(OVERLAYS, ["autoscale", "cpu", "gateway", "gpu"])

    @unittest.skipIf(shutil.which("kubernetes-validate") is None,
                     "kubernetes-validate is not installed (pip install kubernetes-validate)")
    def test_objects_follow_the_schemas_of_kubernetes(self):
        self.assertIn(f"Kubernetes {OLDEST_KUBERNETES} or newer",
                      (dt.DEPLOY / "README.md").read_text())
        with tempfile.TemporaryDirectory() as folder:
            paths = []
            for name, overlay in self.overlays.items():
                paths.append(pathlib.Path(folder) / f"{name}.yaml")
                paths[-1].write_text(yaml.safe_dump_all(overlay.objects))
            for version in (["--kubernetes-version", OLDEST_KUBERNETES], []):  # []: the newest
                # Strict: a property that the schema lacks is an error.
                done = dt.run("kubernetes-validate", "--strict", *version, *map(str, paths))
                said = done.stdout + done.stderr
                self.assertEqual(done.returncode, 0, said)
                unknown = re.findall(r"Couldn't find schema for kind (\w+)", said)
                self.assertEqual(set(unknown), FOREIGN_KINDS)
                known = [o for overlay in self.overlays.values() for o in overlay.objects
                         if o["kind"] not in FOREIGN_KINDS]
                self.assertEqual(said.count(" passed for resource "), len(known))

    @each_overlay
    def test_everything_is_ours_by_namespace_and_label(self, overlay):
        for thing in overlay.objects:
            if thing["kind"] == "Namespace":
                self.assertEqual(thing["metadata"]["name"], "tessera")
            else:
                self.assertEqual(thing["metadata"]["namespace"], "tessera", thing["metadata"])
        labels = overlay.deployment["spec"]["template"]["metadata"]["labels"]
        self.assertLessEqual(NAME.items(), labels.items())

    @each_overlay
    def test_selectors_select_the_pods(self, overlay):
        for kind in ("Deployment", "PodDisruptionBudget", "NetworkPolicy", "PodMonitor",
                     "InferencePool"):
            key = "podSelector" if kind == "NetworkPolicy" else "selector"
            for thing in overlay.all(kind):
                self.assertEqual(thing["spec"][key]["matchLabels"], NAME, kind)
        self.assertEqual(overlay.one("Service")["spec"]["selector"], NAME)
        for spread in overlay.pod["topologySpreadConstraints"]:
            self.assertEqual(spread["labelSelector"]["matchLabels"], NAME)

    @each_overlay
    def test_ports_are_the_server_s(self, overlay):
        ports = overlay.ports()
        for flag, port in (("listen", "grpc"), ("metrics_listen", "metrics")):
            host, _, number = overlay.flags[flag].rpartition(":")
            self.assertEqual((host, int(number)), ("0.0.0.0", ports[port]), flag)
        self.assertTrue(overlay.flags["admin_listen"].startswith("127.0.0.1:"))
        service = overlay.one("Service")["spec"]
        self.assertEqual(service["clusterIP"], "None")
        self.assertEqual([(p["port"], p["targetPort"]) for p in service["ports"]],
                         [(ports["grpc"], "grpc")])
        for policy in overlay.all("NetworkPolicy"):
            used = [p["port"] for rule in policy["spec"]["ingress"] for p in rule["ports"]]
            self.assertEqual(used, ["grpc", "metrics"])
            self.assertEqual(policy["spec"]["egress"], [])
        for monitor in overlay.all("PodMonitor"):
            self.assertEqual([e["port"] for e in monitor["spec"]["podMetricsEndpoints"]],
                             ["metrics"])
        for pool in overlay.all("InferencePool"):
            self.assertEqual(pool["spec"]["targetPorts"], [{"number": ports["grpc"]}])

    @each_overlay
    def test_probes_ask_for_services_that_the_server_defines(self, overlay):
        header = (dt.ROOT / "server/process/lifecycle.h").read_text()
        live, = re.findall(r'kLiveService = "(\w+)"', header)
        for probe, service in (("startupProbe", ""), ("readinessProbe", ""),
                               ("livenessProbe", live)):
            asked = overlay.container[probe]["grpc"]
            self.assertEqual(asked.get("service", ""), service, probe)
            self.assertEqual(asked["port"], overlay.ports()["grpc"], probe)
        # Loading must not be taken for a hang, nor a hang be drained.
        startup = overlay.container["startupProbe"]
        self.assertGreaterEqual(startup["periodSeconds"] * startup["failureThreshold"], 1800)
        self.assertLess(overlay.container["livenessProbe"]["terminationGracePeriodSeconds"],
                        overlay.pod["terminationGracePeriodSeconds"])

    @each_overlay
    def test_a_drain_ends_before_it_is_killed(self, overlay):
        hook = overlay.container.get("lifecycle", {}).get("preStop", {})
        self.assertLessEqual(set(hook), {"sleep"})
        needed = (hook.get("sleep", {}).get("seconds", 0) + SHUTDOWN_SECONDS
                  + dt.seconds(overlay.flags["drain_delay"])
                  + dt.seconds(overlay.flags["drain_timeout"]))
        self.assertGreater(overlay.pod["terminationGracePeriodSeconds"], needed)
        # Readiness is known to be gone while requests are still taken.
        ready = overlay.container["readinessProbe"]
        self.assertGreaterEqual(dt.seconds(overlay.flags["drain_delay"]),
                                ready["periodSeconds"] * (ready["failureThreshold"] - 1))

    @each_overlay
    def test_flags_exist_and_stand_once(self, overlay):
        self.assertLessEqual(set(overlay.flags), self.known_flags)
        self.assertEqual(len(overlay.flags), len(overlay.flag_lines))

    def test_a_server_starts_with_them(self):
        # cpu and gpu are the two sets; the other overlays are built on gpu.
        self.assertEqual(self.overlays["gateway"].flags, self.overlays["gpu"].flags)
        self.assertEqual(self.overlays["autoscale"].flags, self.overlays["gpu"].flags)
        for name in ("cpu", "gpu"):
            overlay = self.overlays[name]
            with dt.Server(*(f"--{line}" for line in overlay.flag_lines)) as server:
                effective = dict(word.removeprefix("--").split("=", 1) for word in
                                 server.entry("configuration")["flags"].split(" "))
            self.assertEqual(effective["allow_plaintext"], "true")
            for flag in ("drain_delay", "drain_timeout"):
                self.assertEqual(dt.seconds(effective[flag]), dt.seconds(overlay.flags[flag]))

    @each_overlay
    def test_resources_hold_what_the_flags_take(self, overlay):
        weights = sum(p.stat().st_size for p in (dt.ROOT / "models/demo").glob("*.safetensors"))
        flags, limits = overlay.flags, overlay.container["resources"]["limits"]
        requests = overlay.container["resources"]["requests"]
        self.assertEqual(requests["memory"], limits["memory"])
        memory = dt.num_bytes(limits["memory"])
        if flags["device"] == "cuda":
            self.assertEqual(limits["nvidia.com/gpu"], "1")
            self.assertGreater(memory, 16 << 30)  # one copy of a 7B model's weights
        else:
            self.assertEqual(int(flags["cpu_threads"]), int(limits["cpu"]))
            sizes = [flags[f] for f in ("kv_cache_bytes", "image_cache_bytes",
                                        "rpc_memory_bytes")]
            # Two decoded images of the default 64 million pixels in work, twice each.
            decoding = 2 * 2 * 64_000_000 * 3
            self.assertGreater(memory, sum(map(dt.num_bytes, sizes)) + weights + decoding)

    @each_overlay
    def test_pods_are_restricted(self, overlay):
        pod, container = overlay.pod["securityContext"], overlay.container["securityContext"]
        self.assertTrue(pod["runAsNonRoot"])
        self.assertGreater(pod["runAsUser"], 0)
        self.assertEqual(pod["seccompProfile"], {"type": "RuntimeDefault"})
        self.assertFalse(container["allowPrivilegeEscalation"])
        self.assertTrue(container["readOnlyRootFilesystem"])
        self.assertEqual(container["capabilities"], {"drop": ["ALL"]})
        self.assertIs(overlay.pod["automountServiceAccountToken"], False)
        for mount in overlay.container["volumeMounts"]:
            self.assertTrue(mount.get("readOnly") or mount["mountPath"] == "/tmp", mount)
        namespace = overlay.one("Namespace")["metadata"]["labels"]
        self.assertEqual(namespace["pod-security.kubernetes.io/enforce"], "restricted")

    @each_overlay
    def test_a_rollout_and_a_node_drain_can_proceed(self, overlay):
        self.assertEqual(overlay.one("PodDisruptionBudget")["spec"]["maxUnavailable"], 1)
        rolling = overlay.deployment["spec"]["strategy"]["rollingUpdate"]
        self.assertGreater(rolling["maxSurge"] + rolling["maxUnavailable"], 0)

    def test_autoscaler_scales_the_deployment_and_owns_its_number(self):
        overlay = self.overlays["autoscale"]
        scaled = overlay.one("ScaledObject")["spec"]
        self.assertEqual(scaled["scaleTargetRef"]["name"], overlay.deployment["metadata"]["name"])
        self.assertNotIn("replicas", overlay.deployment["spec"])
        self.assertTrue(overlay.all("PodMonitor") and overlay.all("PrometheusRule"))
        self.assertEqual({t["metricType"] for t in scaled["triggers"]}, {"AverageValue"})

    def test_gateway_leads_to_the_pool(self):
        overlay = self.overlays["gateway"]
        pool = overlay.one("InferencePool")
        rule, = overlay.one("HTTPRoute")["spec"]["rules"]
        backend, = rule["backendRefs"]
        self.assertEqual((backend["kind"], backend["name"], backend["port"]),
                         ("InferencePool", pool["metadata"]["name"], overlay.ports()["grpc"]))
        services = re.findall(r"^service (\w+)", "\n".join(
            p.read_text() for p in sorted((dt.ROOT / "proto/tessera/v1").glob("*.proto"))), re.M)
        paths = {match["path"]["value"] for match in rule["matches"]}
        self.assertEqual(paths, {f"/tessera.v1.{s}/" for s in services} - {"/tessera.v1.Control/"})
        label = overlay.deployment["spec"]["template"]["metadata"]["labels"]["llm-d.ai/engine-type"]
        picker = yaml.safe_load(overlay.one("ConfigMap", "tesserad-picker")["data"]["picker.yaml"])
        extractor = next(p for p in picker["plugins"] if p["type"] == "core-metrics-extractor")
        self.assertEqual([e["name"] for e in extractor["parameters"]["engineConfigs"]], [label])
        plugins = {p["type"] for p in picker["plugins"]}
        for reference in (picker["schedulingProfiles"][0]["plugins"]
                          + picker["requestHandler"]["parsers"]):
            self.assertIn(reference["pluginRef"], plugins)


if __name__ == "__main__":
    if re.search(r"^Kustomize Version: v[4-9]", dt.kubectl_version(), re.M) is None:
        print("skipped: kubectl is not installed, or too old for components (before 1.24)")
        sys.exit(dt.SKIPPED)
    dt.main()
