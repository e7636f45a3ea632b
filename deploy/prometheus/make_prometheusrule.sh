#!/usr/bin/env bash
# Prints rules.yaml as the object that the Prometheus operator reads; its home is
# ../kustomize/components/monitoring/prometheusrule.yaml, and a test compares them:
#   ./make_prometheusrule.sh >../kustomize/components/monitoring/prometheusrule.yaml
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
cat <<'HEAD'
# Made from deploy/prometheus/rules.yaml by make_prometheusrule.sh next to it: edit there.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: tesserad
  namespace: tessera
  labels:
    app.kubernetes.io/name: tesserad
spec:
HEAD
# Everything from "groups:" on, two columns further in.
sed -n '/^groups:/,$ s/^\(.\)/  \1/p' rules.yaml
