#!/usr/bin/env bash
# Ray inside one Slurm job: sbatch cluster/slurm.sh jobs/x.yaml --storage /shared/cwerm [key=value ...]
# Submit from the root of the checkout, with cwerm installed in ~/cwerm-venv on a shared home folder.
# The head runs on the first component's node, which needs no GPU, the workers on the second's.
#SBATCH --job-name=cwerm
#SBATCH --output=cwerm-%j.log
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --signal=B:TERM@120
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=24G
#SBATCH hetjob
#SBATCH --time=12:00:00
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=48G
# Your site's partitions, where it has no fitting default: one such line in each of the two parts above.
# #SBATCH --partition=CHANGE-ME
set -euo pipefail

if [[ $# -eq 0 || -z "${SLURM_JOB_ID:-}" ]]; then
  echo "usage: sbatch cluster/slurm.sh JOB.yaml [options of cwerm run]" >&2
  exit 2
fi
cd "$SLURM_SUBMIT_DIR"
# srun does not take this over from the #SBATCH line, and Ray would count the CPUs of the whole node.
cpus=${SLURM_CPUS_PER_TASK_HET_GROUP_1:?not set: keep --cpus-per-task in the second part}
# shellcheck source=cluster/env.sh
source cluster/env.sh
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN # of this job alone; srun hands it to the workers

# Ports and folder of this job's own, as others may run Ray on the same nodes.
port=$((20000 + SLURM_JOB_ID % 10000))
address="$(hostname):$port"
pids=()

shut_down() {
  trap '' TERM INT
  for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
  wait || true
}
trap shut_down EXIT
trap 'exit 143' TERM INT

ray start --head --block --port="$port" --num-cpus=0 --num-gpus=0 \
  --dashboard-host=127.0.0.1 --dashboard-port=$((port + 10000)) --temp-dir="/tmp/ray-$SLURM_JOB_ID" &
pids+=($!)
for attempt in {1..60}; do
  if ray health-check --address "$address" >/dev/null 2>&1; then break; fi
  if [[ $attempt -eq 60 ]]; then
    echo "slurm.sh: the head did not start on $address within 2 minutes" >&2
    exit 1
  fi
  sleep 2
done

gpus=$(srun --het-group=1 nvidia-smi -L | grep -c '^GPU') # counted where they are
srun --het-group=1 --cpus-per-task="$cpus" --kill-on-bad-exit=0 --wait=0 \
  ray start --block --address="$address" --num-cpus="$cpus" &
pids+=($!)

python cluster/gpus.py --address "$address" --timeout 600 "$gpus" cwerm run "$@" --address "$address" &
run=$!
pids=("$run" "${pids[@]}")
wait "$run"
