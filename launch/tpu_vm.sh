#!/usr/bin/env bash
# Starts a run on a Cloud TPU VM or a pod slice, from the project's folder.
#
#     export TPU_NAME=unet ZONE=us-west4-a ACCELERATOR=v5litepod-16
#     launch/tpu_vm.sh create --spot            # more flags go to gcloud
#     launch/tpu_vm.sh copy                     # the code and its dependencies
#     launch/tpu_vm.sh run --config=configs/brain.py --workdir=/mnt/runs/brain
#     launch/tpu_vm.sh watch                    # the log of worker 0; Ctrl-C leaves it
#     launch/tpu_vm.sh stop                     # saves; the same `run` resumes
#     launch/tpu_vm.sh ssh 'df -h /mnt/runs'    # any command, on all workers
#     launch/tpu_vm.sh fetch /mnt/runs/brain runs/
#     launch/tpu_vm.sh delete
#
# See docs/cluster.md.

set -eu
name="${TPU_NAME:?the name of the TPU, such as unet}"
zone="${ZONE:?the zone of the TPU, such as us-west4-a}"

on() { # on WORKER COMMAND
  gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker="$1" --command="$2"
}

case "${1:-}" in
create)
  gcloud compute tpus tpu-vm create "$name" --zone="$zone" \
    --accelerator-type="${ACCELERATOR:?the slice, such as v5litepod-16}" \
    --version="${VERSION:-v2-alpha-tpuv5-lite}" "${@:2}"
  ;;
copy)
  archive=$(mktemp)
  trap 'rm -f "$archive"' EXIT
  tar -czf "$archive" --exclude=__pycache__ \
    LICENSE README.md configs pyproject.toml setup.cfg unet_jax
  gcloud compute tpus tpu-vm scp "$archive" "$name:unet_jax.tar.gz" --zone="$zone" \
    --worker=all
  # The system's Python may be older than ours: uv brings one.
  on all "set -e; mkdir -p unet_jax; cd unet_jax; tar -xzf ../unet_jax.tar.gz
    PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --quiet --user uv
    test -d .venv || python3 -m uv venv --quiet --python='${PYTHON_VERSION:-3.12}'
    python3 -m uv pip install --quiet --editable '.[tpu]'"
  ;;
run)
  flags=$(printf ' %q' "${2:?flags of unet_jax.main}" "${@:3}") # quoted for over there
  # As a service it outlives this connection, gets SIGTERM at a shutdown, and is restarted
  # after 42 (saved, "requeue me") and after an abort (another process had died).
  on all "cd unet_jax && sudo systemd-run --unit=unet_jax --collect --uid=\"\$USER\" \
    --working-directory=\"\$PWD\" --setenv=PYTHONUNBUFFERED=1 \
    -p KillMode=mixed -p TimeoutStopSec=120 -p RestartSec=10 \
    -p RestartForceExitStatus='42 134 SIGABRT' \
    -p StartLimitIntervalSec=3600 -p StartLimitBurst=10 \
    .venv/bin/python -m unet_jax.main$flags"
  ;;
watch) on 0 "sudo journalctl --unit=unet_jax --output=cat --lines=100 --follow" ;;
stop) on all "sudo systemctl stop unet_jax" ;;
ssh) on all "${2:?a command}" ;;
fetch)
  gcloud compute tpus tpu-vm scp --recurse --zone="$zone" --worker=0 \
    "$name:${2:?the workdir over there}" "${3:?a folder here}"
  ;;
delete) gcloud compute tpus tpu-vm delete "$name" --zone="$zone" "${@:2}" ;;
*)
  echo "tpu_vm.sh: found '${1:-}', expected create, copy, run, watch, stop, ssh," \
    "fetch or delete" >&2
  exit 2
  ;;
esac
