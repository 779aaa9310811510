"""Fewer tokens inside the model while it reads a prompt: token reduction that recurrent layers survive.

    settings     TokenReduction, the value object that travels with a checkpoint
    methods/     which tokens go and what becomes of them, one method a file
    importance   how much a token matters, read where a layer computes it
    cost         operations of a prompt whose tokens leave on the way; schedule: from a share of them to ratios
    runtime      the wrapper around a model; keys: what attention may see afterwards
    score        losses on survivors and on what follows a reduced prompt; search: the calibrated schedule

Read :mod:`secateur.tokens.runtime` first. Nothing here loads PyTorch when it is imported by name only.
"""
