#!/usr/bin/env bash
# `edgecxr infer` of the base install on emulated aarch64, held against this machine: the same films, the same bundle,
# the same status and reason for each file, and every probability within 1e-3.
#
#   tests/arm64/infer_arm64.sh [--out RECORD.json] [--model BUNDLE]
#
# Needs Debian 12 or newer on x86-64, 1 GB in build/arm64, a network the first time (apt, pip), and the Python with
# edgecxr[export] that PYTHON names, by default .venv's; with --model the base install will do. Installs nothing on this
# machine: qemu and Python for aarch64 are unpacked from Debian's packages, the base install comes from aarch64 wheels.
# EDGECXR_CORPUS adds its real files. Takes some minutes, which say nothing of a real device. A later run takes what is
# in build/arm64, all but edgecxr itself; remove the folder for the newest packages. Ends with 6 if the sides differ.
set -euo pipefail
ulimit -c 0
export PYTHONDONTWRITEBYTECODE=1

say() { echo "arm64: $*" >&2; }
die() { say "$*"; exit 2; }

checkout=$(cd "$(dirname "$0")/../.." && pwd)
python=$(realpath -s "$(command -v "${PYTHON:-$checkout/.venv/bin/python}")")
corpus=${EDGECXR_CORPUS:+$(realpath -e "$EDGECXR_CORPUS")}
out="" model=""
while [ $# -gt 0 ]; do
    case $1 in
        --out) out=$(realpath -m "${2:?a file}"); shift 2 ;;
        --model) model=$(realpath -e "${2:?a bundle}"); shift 2 ;;
        *) die "usage: $0 [--out RECORD.json] [--model BUNDLE]" ;;
    esac
done
[ "$(uname -m)" = x86_64 ] || die "this emulates aarch64 on x86-64; on $(uname -m) run the tests themselves"

mkdir -p "$checkout/build/arm64"
cd "$checkout/build/arm64"

if [ ! -d root ]; then
    say "qemu and Python for aarch64, from Debian's packages"
    rm -rf apt root.new
    mkdir -p apt/lists/partial apt/archives/partial root.new/usr/lib
    : > apt/status
    # An apt of its own: the machine's lists, packages and architectures stay as they are.
    apt=(apt-get -qq -o APT::Architecture=arm64 -o "APT::Architectures=arm64,amd64" -o APT::Sandbox::User=root
        -o Dir::State="$PWD/apt" -o Dir::State::status="$PWD/apt/status" -o Dir::Cache="$PWD/apt")
    "${apt[@]}" update
    "${apt[@]}" --yes --no-install-recommends --download-only install python3 libstdc++6 qemu-user-static:amd64
    ln -s usr/lib root.new/lib
    for package in apt/archives/*.deb; do
        dpkg-deb --fsys-tarfile "$package" | tar --extract --directory root.new --keep-directory-symlink
    done
    mkdir root.new/proc
    mv root.new root
    rm -r apt
fi
# Without binfmt_misc, which a container need not have: qemu by name.
emulated=(root/usr/bin/qemu-aarch64-static -L "$PWD/root" root/usr/bin/python3)
version=$("${emulated[@]}" -c 'import sys; print("%d%d" % sys.version_info[:2])')

say "the base install"
rm -rf source dist
mkdir source
cp -r "$checkout"/{edgecxr,pyproject.toml,README.md,LICENSE} source
"$python" -m pip wheel --quiet --no-deps --wheel-dir dist "$PWD/source"
install=("$python" -m pip install --quiet --only-binary :all: --python-version "$version"
    --platform manylinux2014_aarch64)
for glibc in {17..36}; do
    install+=(--platform "manylinux_2_${glibc}_aarch64")
done
site=site$version
if cmp --quiet "$site/pyproject.toml" "$checkout/pyproject.toml"; then
    "${install[@]}" --target "$site" --upgrade --no-deps "$PWD"/dist/*.whl
else
    rm -rf "$site"
    "${install[@]}" --target "$site" "$PWD"/dist/*.whl
    cp "$checkout/pyproject.toml" "$site"
fi

say "films${model:+ for $model}"
rm -rf films
mkdir films
"$python" "$checkout/benchmarks/startup.py" --make films ${model:+--model "$model"}
PYTHONPATH=$checkout "$python" "$checkout/tests/arm64/compare.py" films films
files=(films/*.*)
if [ -n "$corpus" ]; then
    files+=("$corpus"/dicom/{cxr,radiograph_other,ts_matrix}/*)
fi

# One side: its predictions and its versions. Rejected files, exit code 3, are meant to be there.
side() {
    local name=$1 path=$2
    shift 2
    say "${#files[@]} files on $name"
    PYTHONPATH=$path "$@" "$checkout/tests/arm64/compare.py" versions > "results/$name.versions"
    PYTHONPATH=$path "$@" -m edgecxr infer "${files[@]}" --model "${model:-films/bundle}" --json \
        > "results/$name.jsonl" || [ $? -eq 3 ]
}

# What ONNX Runtime reads of a processor: qemu shows it this machine's, and onnxruntime would crash on import.
cpuinfo() {
    for ((i = 0; i < $(getconf _NPROCESSORS_CONF); i++)); do
        printf 'processor\t: %d\nFeatures\t: fp asimd crc32\nCPU implementer\t: 0x41\n' "$i"
        printf 'CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: %s\nCPU revision\t: 0\n\n' "$1"
    done > root/proc/cpuinfo
}

rm -rf results
mkdir results
side x86_64 "$checkout" "$python"
# Raspberry Pi 4; Raspberry Pi 5, and near to the Cortex-A78AE of a Jetson Orin; all that qemu has (SVE, SME).
for processor in cortex-a72=0xd08 cortex-a76=0xd0b max=0xd0b; do
    cpuinfo "${processor#*=}"
    QEMU_CPU=${processor%=*} side "${processor%=*}" "$site" "${emulated[@]}"
done
qemu=$(root/usr/bin/qemu-aarch64-static --version)
PYTHONPATH=$checkout "$python" "$checkout/tests/arm64/compare.py" record results "${qemu%%$'\n'*}" ${out:+"$out"}
