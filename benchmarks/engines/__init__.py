"""What a user of llama.cpp gets: GGUF files of compressed checkpoints beside their parent's.

python -m benchmarks.engines.run --name hybrid --parent FOLDER:f16 --child LABEL=FOLDER:TYPE .. --held-out TEXT --work W
python -m benchmarks.engines.table [--write]

Needs llama-cpp-python (not a dependency). Agreement is with transformers on the same checkpoint, in float32; speed is
measured in pairs, parent and child in turns in one process, one thread.
"""
