#!/usr/bin/env bash
# Measures the networks anew and compares: bash results/gate/check.sh [further options of bench run]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
here=$(dirname "$0")
bash "$here/measure.sh" "$folder" "$@" >"$folder/log" 2>&1 || { cat "$folder/log" >&2; exit 3; }
bench check --baseline "$here/baseline.json.gz" --both-ways --max-moved 0.1 --results "$folder"
