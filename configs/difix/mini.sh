#!/usr/bin/env bash
# Makes difix-mini, the weights in the package: pairs of 28 embedded scenes and of one of photos, six rounds of training.
#   bash configs/difix/mini.sh path/to/snowmiku [data/pairs/mini] [outputs/difix_mini]
# The photos: a plush toy on a bed, https://github.com/noname0310/snowmiku2023plush-splat (MIT licence), with cameras by
# pycolmap. Started again, it goes on. About a day on two cores.
set -euo pipefail
photos=$1 pairs=${2:-data/pairs/mini} out=${3:-outputs/difix_mini}

curate() { # FOLDER OPTIONS...
    local folder=$1 && shift
    local common=(--output-dir "$folder" --resolution 240 --max-steps 1000 --every 5 --warps 2 --psnr-min 11
        --strategies underfit perturb sparse cluster "$@")
    python scripts/curate.py synthetic:{{1000..1027},1029} --max-pairs 30 --perturbations 6 "${common[@]}"
    python scripts/curate.py "$photos" --max-pairs 60 --perturbations 12 --test-scenes synthetic-1013 "${common[@]}"
}
train() { # ROUND PAIRS OPTIONS...
    local folder="$out/$1" data=$2/dataset.json && shift 2
    [ -d "$folder/checkpoints" ] && set -- --resume || set -- --config configs/difix/mini.yaml --data "$data" "$@"
    python scripts/train_difix.py "$@" --output-dir "$folder"
}

curate "$pairs/plain" --plain
train 1 "$pairs/plain"
# so that it leaves alone what is right and does not blur its own work again
careful=(--optim.lr 3e-4 --max-scale 1.4 --color-jitter 0.3 --refix-prob 0.25)
train 2 "$pairs/plain" --fixer "$out/1/difix" --steps 1000 "${careful[@]}" --loss.l2 1 --identity-prob 0.05

# the renders that it meets today: with dense points, a backdrop and dropout
curate "$pairs/today"
careful+=(--loss.l2 2)
train 3 "$pairs/today" --fixer "$out/2/difix" --steps 2800 "${careful[@]}" --identity-prob 0.05
# so that it takes nothing black for a hole
train 4 "$pairs/today" --fixer "$out/3/difix" --steps 1600 "${careful[@]}" --plain-prob 0.25 --identity-prob 0.05
# so that it keeps contrast where there is nothing to look at
train 5 "$pairs/today" --fixer "$out/4/difix" --steps 800 "${careful[@]}" --plain-prob 0.25 --identity-prob 0.2
# so that it repairs again, and keeps black black
train 6 "$pairs/today" --fixer "$out/5/difix" --steps 1000 "${careful[@]}" --plain-prob 0.35 --identity-prob 0.1
