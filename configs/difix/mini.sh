#!/usr/bin/env bash
# Makes difix-mini, the weights in the package: pairs of 28 embedded scenes and of one of photos, two rounds of training.
#   bash configs/difix/mini.sh path/to/snowmiku [data/pairs/mini] [outputs/difix_mini]
# The photos: a plush toy on a bed, https://github.com/noname0310/snowmiku2023plush-splat (MIT licence), with cameras by
# pycolmap. Started again, it goes on. About half a day on two cores.
set -euo pipefail
photos=$1 pairs=${2:-data/pairs/mini} out=${3:-outputs/difix_mini}

curate() {
    python scripts/curate.py "$@" --output-dir "$pairs" --resolution 240 --max-steps 1000 --every 5 --warps 2 \
        --psnr-min 11 --strategies underfit perturb sparse cluster --plain
}
train() { # FOLDER OPTIONS...
    local folder=$1 && shift
    [ -d "$folder/checkpoints" ] && set -- --resume || set -- --config configs/difix/mini.yaml --data "$pairs/dataset.json" "$@"
    python scripts/train_difix.py "$@" --output-dir "$folder"
}

curate synthetic:{1000..1028} --max-pairs 30 --perturbations 6
curate "$photos" --max-pairs 60 --perturbations 12 --test-scenes synthetic-1013
train "$out/1"
# so that it leaves alone what is right and does not blur its own work again
train "$out/2" --fixer "$out/1/difix" --steps 1000 --optim.lr 3e-4 --loss.l2 1 --max-scale 1.4 \
    --color-jitter 0.3 --identity-prob 0.05 --refix-prob 0.25
