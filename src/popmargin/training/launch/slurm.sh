#!/bin/bash
# sbatch slurm.sh run.yaml: one task a node, which starts one process a GPU. Submitted again, it goes on.
#SBATCH --job-name=popmargin
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
# SIGTERM comes five minutes before the end: training saves a checkpoint after the step at work, and stops.
set -euo pipefail

run=$1
folder=${2:-runs/$SLURM_JOB_NAME}  # on a file system that all nodes share, as reference.cache must be
main=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
resume=()
if [[ -e $folder/config.yaml ]]; then resume=(--resume); fi

export OMP_NUM_THREADS=8 HF_HUB_OFFLINE=1
exec srun --kill-on-bad-exit=1 bash -c '
  exec accelerate launch \
    --config_file "$(popmargin train --launch-file fsdp2.yaml)" \
    --num_machines "$SLURM_NNODES" --num_processes "$((SLURM_NNODES * 8))" \
    --machine_rank "$SLURM_NODEID" --main_process_ip "$0" --main_process_port 29500 \
    --rdzv_backend c10d -m popmargin train "$@"' \
  "$main" "$run" --output "$folder" "${resume[@]}"
