#!/usr/bin/env bash
# Writes the images' lock files from pyproject.toml, at the versions of requirements.lock. Needs uv.
set -euo pipefail
cd "$(dirname "$0")/.."

lock() {  # lock OUT ARGUMENT...
  local out=$1; shift
  uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --custom-compile-command docker/lock.sh \
    -c requirements.lock -o "$out" "$@"
}

lock docker/control.lock --extra mlflow pyproject.toml
lock docker/compute.lock --extra compute --extra mlflow pyproject.toml
echo 'setuptools>=77' | lock docker/build.lock -
