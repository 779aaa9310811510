"""What fewer tokens cost and bring: methods against each other, clipping, schedules, prefill time and memory.

    python -m benchmarks.tokens.run quality --parent CHECKPOINT --name hybrid --prompts 512 2048
    python -m benchmarks.tokens.run clip schedule --parent CHECKPOINT --name hybrid
    python -m benchmarks.tokens.speed --lengths 2048 8192
    python -m benchmarks.tokens.table --write

Text: SECATEUR_DATA, calibration on its training files, judging on its held-out file. Every unit is one line of a
results file under benchmarks/results; what is there is not run again.
"""
