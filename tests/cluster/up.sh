#!/usr/bin/env bash
# Makes a one-node test cluster ready for `pytest -m cluster`: started, both images built and recorded, k8s/overlays/lab applied.
# LAB: the program that runs the cluster (`up`, `trainer`, `kueue`, `policies`, `env`, `base`, `image`), as ../shared/lab/lab does.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
lab=$(realpath "${LAB:-../shared/lab/lab}")
"$lab" up
"$lab" trainer
"$lab" kueue
"$lab" policies
eval "$("$lab" env)"
"$lab" base
BUILDER=$lab docker/images.sh localhost:5000
kubectl apply -k k8s/overlays/lab
kubectl -n edm2 rollout status deployment/minio --timeout=300s
