#!/usr/bin/env bash
# Measures this folder's networks into FOLDER: bash results/gate/measure.sh FOLDER [further options of bench run]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:?name the folder that the outcomes go to}
shift
# One thread each, so that sums are rounded the same way however many cores there are.
measure() {
    printf '%s\0' "$here"/*.safetensors |
        xargs -0 -P 2 -I{} bench run --weights {} --images 500 --threads 1 --device cpu --results "$folder" "$@"
}
measure -a fgsm,pgd10:eot=4,apgd10,square50,pgd10@arctan:alpha=4 "$@"
# The other projection.
measure -a pgd10 --norm l2 --eps 0.5 "$@"
