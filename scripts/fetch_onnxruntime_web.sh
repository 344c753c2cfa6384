#!/usr/bin/env bash
# Fetch ONNX Runtime Web from npm, check its hash, and put the two files that `drsformer export WEIGHTS -o PAGE.html`
# needs where that command looks for them, or into FOLDER: scripts/fetch_onnxruntime_web.sh [FOLDER]
set -euo pipefail
version=1.30.0 # also in drsformer_arch/page/ort_web.py, with the hashes of the files
sha512=q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==
files=(ort.wasm.bundle.min.mjs ort-wasm-simd-threaded.wasm)
folder=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/drsformer/onnxruntime-web-$version}

for file in "${files[@]}"; do
    [ -s "$folder/$file" ] || missing=1
done
if [ -z "${missing:-}" ]; then
    echo "$folder is there already"
    exit
fi
command -v npm >/dev/null || {
    echo "error: npm is missing, which fetches ONNX Runtime Web; on Debian and Ubuntu: apt-get install npm" >&2
    exit 1
}
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
(cd "$work" && npm pack --silent "onnxruntime-web@$version" >/dev/null)
found=$(openssl dgst -sha512 -binary "$work/onnxruntime-web-$version.tgz" | base64 | tr -d '\n')
if [ "$found" != "$sha512" ]; then
    echo "error: the package that npm gave is not onnxruntime-web $version: its SHA-512 is $found" >&2
    exit 1
fi
tar -xzf "$work/onnxruntime-web-$version.tgz" -C "$work" "${files[@]/#/package/dist/}"
mkdir -p "$folder"
for file in "${files[@]}"; do
    mv "$work/package/dist/$file" "$folder/"
done
echo "ONNX Runtime Web $version in $folder"
