#!/usr/bin/env bash
# Starts a run on this machine, from the project's folder.
#
#     launch/local.sh --config=configs/brain.py
#     PROCESSES=4 launch/local.sh --config=configs/brain.py
#
# One process drives all devices. PROCESSES=N starts N processes that communicate over
# loopback, process I with GPU I: a cluster on one machine. See docs/cluster.md.

set -u
python="${PYTHON:-.venv/bin/python}"
processes="${PROCESSES:-1}"
if [[ $processes -eq 1 ]]; then
  exec "$python" -m unet_jax.main "$@"
fi

# Each process has its own group: Ctrl-C reaches this shell alone, which forwards it, and
# a process in the background does not ignore it from its start.
set -m
pids=()
signals=0
for name in INT TERM USR1; do
  # shellcheck disable=SC2064 # the name as it is now
  trap "signals=\$((signals + 1)); kill -s $name \"\${pids[@]}\" 2>/dev/null" "$name"
done

for ((process = 0; process < processes; process++)); do
  CUDA_VISIBLE_DEVICES=$process "$python" -m unet_jax.main "$@" \
    --coordinator="localhost:${PORT:-29400}" --num_processes="$processes" \
    --process_id="$process" &
  pids+=($!)
done

# A signal ends `wait` before the process has ended: then wait again. The highest exit
# code is that of the run, as with srun.
highest=0
for pid in "${pids[@]}"; do
  seen=-1
  while [[ $seen -ne $signals ]]; do
    seen=$signals
    wait "$pid"
    code=$?
  done
  if [[ $code -gt $highest ]]; then highest=$code; fi
done
exit "$highest"
