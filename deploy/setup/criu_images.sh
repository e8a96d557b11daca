#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Generate Python modules, and their type stubs, for CRIU's image files and its swrk protocol from
# the source that set-up built. They lie in the prefix; nothing of CRIU's text is in this repository.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

PROTOS="$ROOT/build/criu/protos"
OUT="$PREFIX/criu_images"
BIN="$ROOT/.venv/bin"

# generate: all modules into a new folder, which then takes the old one's place.
generate() {
    local new="$OUT.new"
    rm -rf "$new" && mkdir -p "$new"
    "$BIN/python" -W ignore -m grpc_tools.protoc -I"$PROTOS" --plugin="$BIN/protoc-gen-mypy" \
        --python_out="$new" --mypy_out=quiet:"$new" "$PROTOS"/*.proto
    PYTHONPATH="$new" "$BIN/python" -c 'import rpc_pb2, core_pb2, inventory_pb2, mm_pb2, sk_inet_pb2, tcp_stream_pb2'
    "$BIN/python" -m compileall -q "$new"
    rm -rf "$OUT" && mv "$new" "$OUT"
}

key="$(digest "$PROTOS"/*.proto "$ROOT/requirements.txt" "${BASH_SOURCE[0]}")"
if fresh criu_images "$key" && [[ -f "$OUT/rpc_pb2.py" ]]; then
    say "CRIU image modules: present"
    exit 0
fi
say "CRIU image modules"
logged "generating them" "read build/setup.log" generate
done_with criu_images "$key"
