"""Colours and rounds of the runs whose reports are tested."""

RED, GREEN = (200, 30, 30), (30, 160, 60)


def round_row(cameras, step, decision, gain):
    trials = [] if gain is None else [{"weight": 0.3, "psnr": [30 + gain]}]
    return {
        "step": step,
        "decision": decision,
        "gain": gain,
        "weight": 0.3 if decision == "keep" else 0.0,
        "held_out": ["00.png"],
        "psnr_without": [] if gain is None else [30.0],
        "trials": trials,
        "confidence": [0.5] * len(cameras),
        "references": [],
        "cameras": cameras,
        "seconds": {"fix": 1.0, "judge": 0.5},
    }
