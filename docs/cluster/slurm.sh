#!/bin/bash
#SBATCH --job-name=qhat
#SBATCH --nodes=5
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@120
#
# A learner on the first node, and actors on all: sbatch slurm.sh
# Change the number of nodes and cores, the environment of Python, and the last command.
# The folder of the job is on a file system that every node has.
set -euo pipefail

source "$HOME/qhat-venv/bin/activate"
export RAY_USAGE_STATS_ENABLED=0
# Every node of this job has the token, and no other job. It is not in the command line, where all users read it.
export RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(python -c "import secrets; print(secrets.token_hex(32))")
export RAY_AUTH_TOKEN

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}')
# Jobs on one machine need different ports.
port=$((20000 + SLURM_JOB_ID % 10000))
# Two cores of the head stay with the learner.
others=$((SLURM_CPUS_PER_TASK - 2))

srun --nodes=1 --ntasks=1 --nodelist="$head" --overlap \
    ray start --head --node-ip-address="$address" --port="$port" --num-cpus="$others" \
    --include-dashboard=false --block &
sleep 20
if [ "$SLURM_NNODES" -gt 1 ]; then
    srun --nodes=$((SLURM_NNODES - 1)) --ntasks=$((SLURM_NNODES - 1)) --exclude="$head" --overlap \
        ray start --address="$address:$port" --num-cpus="$SLURM_CPUS_PER_TASK" --block &
    sleep 20
fi

# At the end of the time the learner gets SIGTERM and writes a checkpoint. The same job again continues it.
# This script runs on the first node, so the learner does too.
run=runs/$SLURM_JOB_NAME
resume=()
if [ -d "$run" ]; then resume=(--resume); fi
qhat train gym:my_module:MyRobot-v0 --cluster "$address:$port" \
    --actors $((others + SLURM_CPUS_PER_TASK * (SLURM_NNODES - 1))) --run-dir "$run" "${resume[@]}" &
learner=$!
trap 'kill -TERM $learner' TERM
# The signal ends the first wait, and not the learner.
wait "$learner" || wait "$learner" || true
kill $(jobs -p) 2>/dev/null || true
