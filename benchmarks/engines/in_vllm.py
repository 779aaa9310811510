"""The side of :mod:`benchmarks.engines.served` that runs in vLLM's environment: prints log-probabilities as JSON."""

from __future__ import annotations

import json
import sys


def said(folder: str, dtype: str, ids: list[int]) -> list[float]:
    """Log-probability of every token but the first."""
    from vllm import LLM, SamplingParams

    engine = LLM(model=folder, dtype=dtype, enforce_eager=True, max_model_len=2 * len(ids), max_num_seqs=4)
    wanted = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0)
    steps = engine.generate([{"prompt_token_ids": ids}], wanted)[0].prompt_logprobs
    return [step[token].logprob for token, step in zip(ids[1:], steps[1:], strict=True)]


if __name__ == "__main__":
    print(json.dumps({"logprobs": said(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))}))
