#!/usr/bin/env bash
# All that a device has to do, in one command: checks, an environment, engines, the benchmark, one file to send back.
# Needs nothing of the clone but this file, a wheel of edgecxr and bundles. Typed again, it goes on with what is there.
set -euo pipefail

NEEDED_MIB=1500   # the environment takes some 300; pip unpacks beside it, and engines come on top

usage() {
    cat <<'TEXT'
Measure edgecxr's models on this device and leave one JSON file to send back.

    bash run_on_device.sh --wheel edgecxr-0.1.0-py3-none-any.whl --bundles student-tiny-28-mlcak-vindr teacher-tiny-224-vindr \
        --data test.npz

  --wheel FILE          edgecxr as a wheel: `pip wheel --no-deps .` in the clone makes one
  --bundles DIR...      folders that `edgecxr export` made
  --data FILE.npz       labelled films for AUROC, made by `edgecxr data pack`; without it latency alone
  --film FILE           a DICOM file to time from file to answer; by default a synthetic one
  --precision P...      of fp32, fp16, int8; by default all that a bundle has
  --target NAME         limits for building engines, such as jetson-orin-nano
  --extras A,B          extras of edgecxr, such as nvml (energy of NVIDIA's discrete GPUs) or openvino
  --also REQUIREMENT... more for pip, such as cuda-python (engines need it or pycuda) or, on a V100, 'tensorrt<10.5'
  --wheels DIR          take all packages from this folder: for machines without network
  --python NAME         3.10 or newer; by default the first that fits of python3, python3.10 ...
  --out DIR             environment and results (default edgecxr-device)
  --rest SECONDS        wait at most so long for the machine to be at rest before measuring (default 180)
  -h, --help            this text
  -- OPTION...          for `edgecxr benchmark`, such as -- --threads 4 --passes 5

Nothing needs root. TensorRT engines are built where TensorRT and a GPU are; one that fails is reported, and the rest
goes on. Typed again, environment and engines are used as they are. For a machine without network, fill a folder on
one of the same kind that has it, and copy the folder: `pip download -d wheels edgecxr-*.whl`.

The file has no name of this machine or of its users. Exit codes: 0 the file is there; 2 something in the command or on
this machine is wrong, and the last line says what to do; else that of `edgecxr benchmark`.
TEXT
}

say() { printf '%s\n' "$*"; }
warn() { printf 'warning: %s\n' "$*" >&2; }
fail() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

wheel='' data='' film='' target='' extras='' wheels='' python='' out=edgecxr-device longest_rest=180
bundles=() precisions=() also=() for_benchmark=()

parse() {
    local option
    while [ $# -gt 0 ]; do
        option=$1
        shift
        case $option in
            -h | --help) usage; exit 0 ;;
            --) for_benchmark=("$@"); break ;;
            --wheel | --data | --film | --target | --extras | --wheels | --python | --out | --rest)
                [ $# -gt 0 ] || fail "$option needs a value: see --help"
                case $option in
                    --wheel) wheel=$1 ;;
                    --data) data=$1 ;;
                    --film) film=$1 ;;
                    --target) target=$1 ;;
                    --extras) extras=$1 ;;
                    --wheels) wheels=$1 ;;
                    --python) python=$1 ;;
                    --out) out=$1 ;;
                    --rest) longest_rest=$1 ;;
                esac
                shift ;;
            --bundles | --precision | --also)
                case ${1:--} in -*) fail "$option needs a value: see --help" ;; esac
                while [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; do
                    case $option in
                        --bundles) bundles+=("$1") ;;
                        --precision) precisions+=("$1") ;;
                        --also) also+=("$1") ;;
                    esac
                    shift
                done ;;
            *) fail "$option is no option: see --help" ;;
        esac
    done
}

check_arguments() {
    local bundle name precision
    [ -n "$wheel" ] || fail "give edgecxr as a wheel with --wheel: see --help"
    [ -f "$wheel" ] || fail "$wheel is not there: make it in the clone (\`pip wheel --no-deps .\`) and copy it here"
    [ "${wheel%.whl}" != "$wheel" ] || fail "$wheel is no wheel: give the file that ends in .whl"
    [ "${#bundles[@]}" -gt 0 ] || fail "give at least one bundle with --bundles: see --help"
    for bundle in "${bundles[@]}"; do
        [ -f "$bundle/card.json" ] ||
            fail "$bundle is no bundle (no card.json): copy the whole folder that \`edgecxr export\` made"
    done
    name=$(printf '%s\n' "${bundles[@]}" | sed 's:/*$::; s:.*/::' | sort | uniq -d)
    [ -z "$name" ] || fail "two bundles are called $name: rename the folder of one"
    for precision in "${precisions[@]}"; do
        case $precision in fp32 | fp16 | int8) ;; *) fail "--precision $precision: there are fp32, fp16, int8" ;; esac
    done
    [ -z "$data" ] || [ -f "$data" ] || fail "$data is not there: make it with \`edgecxr data pack\` and copy it here"
    [ -z "$film" ] || [ -f "$film" ] || fail "$film is not there: give a DICOM file, or leave --film out"
    [ -z "$wheels" ] || [ -d "$wheels" ] || fail "$wheels is no folder: give one of wheels, or leave --wheels out"
    case $longest_rest in '' | *[!0-9]*) fail "--rest $longest_rest: give seconds" ;; esac
}

root=${RUN_ON_DEVICE_ROOT:-}   # tests look at another machine's files
jetson=''

look_at_machine() {
    local model governor mode gpus others
    model=$(tr -d '\0' 2>/dev/null <"$root/proc/device-tree/model" || true)
    jetson=$(sed -n 's/^# R\([0-9]*\) (release), REVISION: \([0-9.]*\).*/\1.\2/p' \
        "$root/etc/nv_tegra_release" 2>/dev/null || true)
    say "machine: ${model:-$(uname -m)}, $(nproc) cores${jetson:+, Jetson Linux $jetson}"
    governor=$(cat "$root/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor" 2>/dev/null || true)
    if [ -n "$jetson" ]; then
        [ "${jetson%%.*}" -ge 35 ] ||
            fail "Jetson Linux $jetson is JetPack 4, where edgecxr does not run: it needs JetPack 5 or newer"
        mode=$(nvpmodel -q 2>/dev/null | sed -n 's/^NV Power Mode: *//p' || true)
        say "power mode: ${mode:-not known}${governor:+, clocks $governor}"
        if [ "$governor" != performance ]; then
            say "hint: figures at full clocks want, before this script: sudo nvpmodel -m N, then sudo jetson_clocks"
            say "      (N is the mode without a limit; sudo nvpmodel -p --verbose lists them)"
        fi
    elif command -v nvidia-smi >/dev/null; then
        if gpus=$(nvidia-smi --query-gpu=name,driver_version,persistence_mode --format=csv,noheader 2>&1); then
            say "gpu: $gpus"
            others=$(nvidia-smi --query-compute-apps=pid --format=csv,noheader 2>/dev/null || true)
            [ -z "$others" ] || warn "other programs use the GPU: end them, or the figures are theirs too"
            case ",$extras," in *,nvml,*) ;; *) say "hint: --extras nvml measures the GPU's energy and memory" ;; esac
        else
            warn "nvidia-smi fails, so that no GPU will be used: mend the driver first if it shall be"
        fi
    fi
    if [ -z "$jetson" ] && [ -n "$governor" ] && [ "$governor" != performance ]; then
        say "hint: the CPU's clocks follow $governor; for steadier figures: sudo cpupower frequency-set -g performance"
    fi
}

choose_python() {
    local name without_venv=''
    local names=(python3 python3.10 python3.11 python3.12 python3.13 python3.14)
    [ -z "$python" ] || names=("$python")
    for name in "${names[@]}"; do
        command -v "$name" >/dev/null || continue
        "$name" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || continue
        if "$name" -c 'import ensurepip, venv' 2>/dev/null; then
            python=$(command -v "$name")
            return
        fi
        without_venv=${without_venv:-${name##*/}}
    done
    [ -z "$without_venv" ] ||
        fail "$without_venv has no venv: sudo apt install $without_venv-venv, then type the same again"
    fail "no Python of 3.10 or newer${python:+ is $python}: install one and name it with --python"
}

install_edgecxr() {
    local wanted free own="without the system's packages" site=() from=()
    wanted="$(sha256sum <"$wheel") $extras ${also[*]-}"
    if [ -x "$venv/bin/edgecxr" ] && [ "$(cat "$venv/installed" 2>/dev/null)" = "$wanted" ]; then
        say "environment: as it is"
        return
    fi
    free=$(df -Pk "$out" | awk 'NR == 2 { print int($4 / 1024) }')
    [ "$free" -ge "$NEEDED_MIB" ] ||
        fail "$free MiB are free at $out, $NEEDED_MIB are needed: make room, or give another place with --out"
    choose_python
    # A Jetson's TensorRT belongs to the system image, as does that of NVIDIA's containers.
    if [ -n "$jetson" ] || "$python" -c 'import tensorrt' 2>/dev/null; then
        site=(--system-site-packages) own="with the system's packages"
    fi
    [ -z "$wheels" ] || from=(--no-index --find-links "$wheels")
    say "environment: made by $python, $own"
    "$python" -m venv "${site[@]}" "$venv" || fail "$python cannot make $venv: see above"
    local pip=("$venv/bin/python" -m pip --disable-pip-version-check install --quiet "${from[@]}")
    "${pip[@]}" "$wheel${extras:+[$extras]}" "${also[@]}" ||
        fail "pip could not install edgecxr: see above; without network give a folder of wheels with --wheels"
    # Another wheel of the same version would count as installed.
    if [ -e "$venv/installed" ]; then
        "${pip[@]}" --force-reinstall --no-deps "$wheel" || fail "pip could not install $wheel: see above"
    fi
    printf '%s\n' "$wanted" >"$venv/installed"
}

# The record keeps what was typed and the messages of errors: links give all inputs names that say nothing more.
link_inputs() {
    local bundle
    mkdir -p inputs runs
    find inputs -maxdepth 1 -type l -delete   # of an earlier run; nothing but links
    for bundle in "${bundles[@]}"; do
        ln -s "$bundle" inputs/
        linked_bundles+=("inputs/${bundle##*/}")
    done
    [ -z "$data" ] || ln -s "$data" "$linked_data"
    [ -z "$film" ] || ln -s "$film" "$linked_film"
}

# Print what building an engine lacks here; nothing where it can be tried.
lacking() {
    "$venv/bin/python" - <<'PY'
import json

rows = json.load(open("doctor.json"))["rows"]


def there(section, *names):
    return any(r["section"] == section and r["name"].split()[0] in names and r["status"] == "ok" for r in rows)


lacks = {"TensorRT": there("engines", "tensorrt", "tensorrt-rtx"), "GPU": there("gpu", "gpu")}
print(" and no ".join(what for what, here in lacks.items() if not here))
PY
}

failed_builds=()

build_engines() {
    local lacks bundle precision of_bundle
    lacks=$(lacking)
    if [ -n "$lacks" ]; then
        say "engines: none, for there is no $lacks here"
        return
    fi
    for bundle in "${linked_bundles[@]}"; do
        of_bundle=$("$edgecxr" bundle show "$bundle" --json | "$venv/bin/python" -c 'import json, sys
print(*(entry["precision"] for entry in json.load(sys.stdin)["artefacts"].values()))')
        for precision in $of_bundle; do
            case " ${precisions[*]:-$of_bundle} " in *" $precision "*) ;; *) continue ;; esac
            say "engine: ${bundle#inputs/}, $precision"
            "$edgecxr" build "$bundle" --precision "$precision" ${target:+--target "$target"} ||
                failed_builds+=("${bundle#inputs/} $precision")
        done
    done
}

busy() {
    local load
    read -r load _ <"$root/proc/loadavg"
    awk -v load="$load" -v cores="$(nproc)" 'BEGIN { exit !(load > cores / 2) }'
}

come_to_rest() {
    local waited=0
    busy || return 0
    [ "$longest_rest" -eq 0 ] || say "waiting at most $longest_rest s until the machine is at rest"
    while [ "$waited" -lt "$longest_rest" ]; do
        sleep 5
        waited=$((waited + 5))
        busy || return 0
    done
    warn "other programs are at work, see uptime: end them and type the same again, or the figures are theirs too"
}

measure() {
    local options=() code=0 precision
    [ -z "$data" ] || options+=(--data "$linked_data")
    [ -z "$film" ] || options+=(--film "$linked_film")
    for precision in "${precisions[@]}"; do options+=(--precision "$precision"); done
    # Of a run that ended before its record got its name.
    [ ! -e unfinished.json ] || mv unfinished.json "interrupted-$(date +%Y%m%d-%H%M%S).json"
    "$edgecxr" benchmark "${linked_bundles[@]}" "${options[@]}" --out unfinished.json "${for_benchmark[@]}" || code=$?
    if [ "$code" -ne 0 ]; then
        printf 'error: the benchmark ended with %s: see above, then type the same again\n' "$code" >&2
        exit "$code"
    fi
}

# Give the record its name. Folders of this machine that a message brought along are shortened: they may hold names.
pack_record() {
    "$venv/bin/python" - "$wheel" "${bundles[@]}" "$data" "$film" <<'PY'
import getpass
import json
import os
import re
import socket
import sys
from pathlib import Path

text = json.dumps(json.loads(Path("unfinished.json").read_text(encoding="utf-8")), ensure_ascii=False, indent=1)
folders = {str(Path(path).parent) for path in sys.argv[1:] if path} | {os.path.expanduser("~"), os.getcwd()}
for folder in sorted(folders - {"/"}, key=len, reverse=True):
    text = re.sub(re.escape(folder) + r"(?![\w.-])", "." if folder == os.getcwd() else "~", text)
record = json.loads(text)
device = re.sub(r"[^a-z0-9]+", "-", record["device"]["name"].lower()).strip("-")[:60].rstrip("-")
stem = f"edgecxr-{device or 'device'}-{record['created'][:10]}"
number = 1
while (path := Path(f"{stem}{f'-{number}' if number > 1 else ''}.json")).exists():
    number += 1
Path("unfinished.json").write_text(text + "\n", encoding="utf-8")
Path("unfinished.json").rename(path)
print(path)
try:
    names = {socket.gethostname(), getpass.getuser()}
except (OSError, KeyError):
    names = {socket.gethostname()}
# Names that thousands of machines have identify nobody, and some are words of the record.
names -= {"root", "nvidia", "jetson", "ubuntu", "debian", "pi", "user", "localhost"}
for name in sorted(names):
    if len(name) > 1 and re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text):
        print(f"it holds the word {name!r}: look whether that shall be sent")
PY
}

parse "$@"
check_arguments
mkdir -p "$out" 2>/dev/null || fail "$out cannot be made: give another place with --out"
[ -w "$out" ] || fail "$out cannot be written: give another place with --out"
wheel=$(realpath "$wheel") out=$(realpath "$out")
for i in "${!bundles[@]}"; do bundles[i]=$(realpath "${bundles[i]}"); done
[ -z "$data" ] || data=$(realpath "$data")
[ -z "$film" ] || film=$(realpath "$film")
[ -z "$wheels" ] || wheels=$(realpath "$wheels")
[ ! -f "$target" ] || target=$(realpath "$target")
venv=$out/venv edgecxr=$out/venv/bin/edgecxr
linked_bundles=() linked_data=inputs/pack.npz linked_film=inputs/film
case ${film##*/} in *.*) linked_film+=.${film##*.} ;; esac

look_at_machine
install_edgecxr
cd "$out"
export EDGECXR_RUNS=runs
link_inputs
"$edgecxr" doctor || warn "doctor found errors, see above: what does not work will be missing from the record"
"$edgecxr" doctor --json >doctor.json || true
build_engines
come_to_rest
measure
packed=$(pack_record)
record=${packed%%$'\n'*}
[ "$packed" = "$record" ] || warn "${packed#*$'\n'}"
for failed in "${failed_builds[@]}"; do warn "no engine of $failed: see above"; done
say ''
say "send back this one file: $out/$record"
