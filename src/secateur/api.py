"""The functions behind ``import secateur as sc``, and behind the verbs of the command line.

Each loads what it needs when it is called. ``Source``: a checkpoint folder, a hub id, or what :func:`open` returned.
``Text``: a file (.txt, .jsonl, .parquet), a folder of them, ``hf://owner/name[:config]``, or several of these.
``progress`` functions are told (what is being done, how much of it is done, of how much). Whatever cannot be used
raises a subclass of SecateurError that names the value, what was expected, and the next step.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union

from secateur.errors import UsageError

if TYPE_CHECKING:
    from secateur.calibration.stats import Stats
    from secateur.evaluation.equality import Equality
    from secateur.evaluation.results import Settings as Measuring
    from secateur.model import Model
    from secateur.pruning.plan import Plan
    from secateur.reporting import Collected
    from secateur.search.arena import Arena
    from secateur.search.run import Found as FoundShape
    from secateur.tokens.runtime import Reducing
    from secateur.tokens.settings import TokenReduction
    from secateur.train.run import Reporter

Source: TypeAlias = Union[str, Path, "Model"]
Text: TypeAlias = str | Path | Sequence[str | Path]
Progress: TypeAlias = Callable[[str, int, int], None]

REPAIR_SAMPLES, REPAIR_LENGTH = 64, 256
"""Windows and tokens of each that a repair is fitted and judged on, where nothing else is said."""


def open(source: str | Path, *, revision: str | None = None) -> Model:
    """Open a checkpoint folder, a config.json or a hub id: config and tensor index only, no weights.

    Raises SecateurError when the files are not a checkpoint this library can read.
    """
    from secateur.model import open_model

    return open_model(source, revision=revision)


def calibrate(
    model: Source,
    text: Text,
    *,
    observe: Sequence[str] = ("activation",),
    samples: int = 128,
    length: int = 512,
    batch: int = 4,
    seed: int = 0,
    device: str = "cpu",
    dtype: str = "float32",
    journal: str | Path | None = None,
    spill: str | Path | None = None,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> Stats:
    """Statistics of ``model`` on ``samples`` windows of ``length`` tokens of ``text``, drawn under ``seed``.

    ``observe``: "activation" streams block by block, one block's weights in memory, and is always measured: what the
    scores activation, balanced, flap and block influence read. "taylor" (gradients), "depth" and "depth-iterative" (the
    loss without each layer) hold the whole model. ``batch``: windows at a time. ``journal``: a folder from which an
    interrupted walk resumes; ``spill``: one where hidden states lie, off memory. ``out``: also written there. Under
    torchrun each process walks a part of the windows.

    Raises UsageError for text that is too short, a name that cannot be observed, or a device that is not there.
    """
    from secateur.calibration.ranks import joined
    from secateur.calibration.text import windows_of
    from secateur.evaluation.load import DTYPES, Place
    from secateur.importance.measure import measure
    from secateur.pruning.choose import can_keep

    place = Place(device, dtype).resolved()  # type: ignore[arg-type]  # resolved() judges it
    texts = _texts(text)
    with joined(place.device), _opened(model) as opened:
        stats = measure(
            opened,
            windows_of(opened, texts, samples=samples, length=length, seed=seed),
            observe,
            batch=batch,
            dtype=DTYPES[place.dtype],
            device=place.device,
            about={"text": list(map(str, texts)), "seed": seed},
            journal=None if journal is None else Path(journal),
            spill=None if spill is None else Path(spill),
            allowed=lambda kept: can_keep(opened, kept),
            progress=progress,
        )
        if out is not None:
            stats.save(Path(out))
    return stats


def plan(
    model: Source,
    stats: Stats | str | Path | None = None,
    *,
    params: str | int | None = None,
    bytes: str | int | None = None,
    layers: Sequence[int] | int | None = None,
    layer_score: str = "block-influence",
    **keep: int,
) -> Plan:
    """Choose a shape: ``plan(m, params="60%")``, ``plan(m, hidden=3072, ffn=12288, ssm_heads=112)``, or both.

    With ``stats`` (or the file they were written to) sizes follow importance, and ``layers`` may be a number in any
    model (see ``layer_score``). ``params`` and ``bytes`` take "60%", "4B", "8GB".
    Raises InexpressibleError for shapes the config cannot say, BudgetError when nothing fits.
    """
    from secateur.pruning.plan import make_plan

    with _opened(model) as opened:
        measured = _stats(stats, opened)
        return make_plan(
            opened, params=params, bytes_=bytes, keep=keep, layers=layers, stats=measured, layer_score=layer_score
        )


def search(
    model: Source,
    text: Text,
    *,
    strategy: str = "evolutionary",
    budget: str | float | None = None,
    axes: Sequence[str] | None = None,
    depth: bool = True,
    context: int = 4096,
    sequences: int = 1,
    stats: Stats | str | Path | None = None,
    effort: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    work: str | Path | None = None,
    table: str | Path | None = None,
    restart: bool = False,
    device: str = "auto",
    dtype: str = "auto",
    watch: Callable[[Arena], None] | None = None,
    progress: Progress | None = None,
    **wanted: Any,
) -> FoundShape:
    """The best shape of ``model`` that ``strategy`` finds within what is wanted: ``params="60%"``, ``bytes="2GiB"``,
    ``cache="0.5x"`` and ``latency="0.6x"`` (of ``sequences`` sequences of ``context`` tokens; also ``prefill``,
    ``decode``), several together. ``.plan`` of the result is what :func:`prune` takes, ``.record`` the whole search.

    ``budget``: time to spend ("30min"); under a seed it decides how far the search goes, not which way. ``axes``: what
    may change; ``depth``: layers may go. ``effort``: fields of :class:`secateur.search.outcome.Effort`. ``out``: a file
    for the plan, the record beside it. ``work``: a folder from which the same call resumes, and the next search takes
    what was measured before. ``table``: block latencies of this machine, measured into that file when it is not there.
    Other keyword arguments are fields of :class:`secateur.search.run.Settings`: seed, samples, lessons, length, ...

    Raises UsageError for what does not fit together, BudgetError when no shape fits.
    """
    from secateur.calibration.ranks import joined
    from secateur.evaluation.load import Place
    from secateur.search.outcome import Effort
    from secateur.search.record import publish
    from secateur.search.resources import Workload
    from secateur.search.run import search as run
    from secateur.search.settings import Files, Settings, split

    seconds = None if budget is None else _seconds(budget)
    place = None if out is None else _place(out)
    amounts, others = split(wanted)
    settings = Settings(
        wanted=amounts, strategy=strategy, effort=Effort(**(effort or {})), seconds=seconds, depth=depth,
        axes=None if axes is None else tuple(axes), workload=Workload(context, sequences),
        place=Place(device, dtype), **others,  # type: ignore[arg-type]  # it is judged when it is resolved
    )  # fmt: skip
    files = Files(None if work is None else Path(work), None if table is None else Path(table))
    told = progress or (lambda label, done, total: None)
    with joined(), _opened(model) as opened:
        found = run(
            opened, _texts(text), settings, files, stats=_stats(stats, opened), restart=restart,
            watch=watch or (lambda arena: None), progress=told,
        )  # fmt: skip
        if place is not None:
            publish(found.plan, found.record, place)
    return found


def cost(
    model: Source,
    plan: Plan | Mapping[str, int],
    *,
    tokens: int | str = "20M",
    samples: int = 128,
    length: int = 512,
    processes: int = 1,
    top_k: int | None = None,
    gpu_rate: float = 160.0,
    folder: str | Path | None = None,
) -> dict[str, Any]:
    """What calibrating, cutting, repairing, measuring and healing on ``tokens`` will take, before any of it is started.

    A config.json is enough. The machine is probed for a few seconds (matrix products, sha256, the disk of ``folder``).
    ``gpu_rate``: 1e12 operations a second that one GPU really does. Returns {"steps": {verb: {"seconds", "gpu_seconds",
    "memory", "disk"}}, "load", "machine", "gpu_flops", "fitted"}; memory in bytes per process. Not ``fitted``: counted
    from rates alone, a bound from below. Raises BudgetError and InexpressibleError like :func:`plan`.
    """
    from dataclasses import asdict

    from secateur.cost import FITTED, Load, price, probe, work
    from secateur.pruning.plan import make_plan
    from secateur.pruning.shape import resolve
    from secateur.train import token_count

    load = Load(
        samples=samples, length=length, ranks=processes, train_tokens=token_count(tokens, "tokens"), top_k=top_k
    )
    with _opened(model) as parent:
        made = make_plan(parent, keep=plan) if isinstance(plan, Mapping) else plan
        kept = range(made.layers) if isinstance(made.layers, int) else made.layers
        todo = work(parent, resolve(parent.anatomy, made.keep), frozenset(kept), load)
    machine, rate = probe(None if folder is None else Path(folder)), gpu_rate * 1e12
    steps = {verb: asdict(price(verb, w, machine, gpu_flops=rate)) for verb, w in todo.items()}
    told = {"load": asdict(load), "machine": machine.to_json(), "gpu_flops": rate, "fitted": FITTED.exists()}
    return {"steps": steps, **told}


def prune(
    model: Source,
    plan: Plan | Mapping[str, int],
    out: str | Path,
    *,
    stats: Stats | str | Path | None = None,
    repair: str | Sequence[str] | None = None,
    text: Text | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Model:
    """Cut ``model`` to ``plan`` (or to public sizes) and write the checkpoint to ``out``; returns it opened.

    ``stats``: what measured criteria score on. ``score`` is "contribution" with them and "magnitude" without, unless
    said otherwise. ``repair``: "least-squares", "norm" or both, fitted as :func:`repair` does by default on ``text``,
    or on the text that ``stats`` were taken on. ``text`` also says which tokens stay when the vocabulary shrinks.
    Other keyword arguments are the fields of :class:`secateur.pruning.run.Settings`: score, seed, norm, mask, ...

    ``out`` holds a whole checkpoint or nothing. Raises SecateurError before anything is written when the plan, the
    score or the files do not allow the cut.
    """
    from secateur.data import read_texts
    from secateur.importance import default_score
    from secateur.pruning.plan import make_plan
    from secateur.pruning.run import Settings
    from secateur.pruning.run import prune as run

    with _opened(model) as parent:
        measured = _stats(stats, parent)
        made = make_plan(parent, keep=plan, stats=measured) if isinstance(plan, Mapping) else plan
        chosen = Settings(**{"score": default_score(measured is not None), **settings})
        counted = list(read_texts(_texts(text), documents="blank-line")) if text and "vocab" in made.keep else None
        if repair is not None:
            return _repaired(parent, made, Path(out), chosen, measured, counted, repair, text, progress)
        writing = None if progress is None else lambda done, total: progress("writing", done, total)
        return run(parent, made, Path(out), chosen, stats=measured, texts=counted, progress=writing)


def repair(
    child: Source,
    text: Text,
    *,
    parent: Source,
    out: str | Path,
    methods: str | Sequence[str] = ("norm", "least-squares"),
    samples: int = REPAIR_SAMPLES,
    length: int = REPAIR_LENGTH,
    batch: int = 4,
    seed: int = 0,
    damp: float = 1e-2,
    feedback: bool = True,
    device: str = "cpu",
    journal: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Model:
    """Repair a freshly cut ``child`` in closed form and write it to ``out``; returns it opened.

    ``methods``: "norm" fits norm factors, "least-squares" what writes the residual stream, on ``samples`` windows of
    ``length`` tokens. A repair stays only if it lowers the layer's error on windows it was not fitted on; every attempt
    is in the result's secateur.json, under repair. ``damp``: pull towards the cut weights, relative to the Gram
    matrix's scale. ``feedback``: a layer may make up for what earlier layers lost. ``journal``: a folder from which an
    interrupted repair resumes. Memory: one layer of each model.

    Raises UsageError when the child does not come from this parent, or the text is too short to fit and to judge.
    """
    from secateur.calibration.text import windows_of
    from secateur.evaluation.load import Place
    from secateur.pruning.repair.run import RepairSettings
    from secateur.pruning.repair.run import repair as run

    texts, place = _texts(text), Place(device, "float32").resolved()
    settings = RepairSettings(methods=_methods(methods), damp=damp, feedback=feedback, batch=batch)
    with _opened(parent) as above, _opened(child) as cut:
        windows = windows_of(above, texts, samples=samples, length=length, seed=seed)
        about = {"text": list(map(str, texts)), "seed": seed}
        told = None if progress is None else lambda done, total: progress("repairing", done, total)
        return run(
            cut, above, windows, Path(out), settings, about=about, overwrite=overwrite, device=place.device,
            journal=None if journal is None else Path(journal), progress=told,
        )[0]  # fmt: skip


def quantize(
    model: Source,
    out: str | Path,
    *,
    text: Text | None = None,
    method: str = "gptq",
    bits: float | None = None,
    group: int | None = None,
    allocate: str = "uniform",
    store: str = "packed",
    residual: int = 0,
    samples: int = 128,
    length: int = 512,
    batch: int = 4,
    seed: int = 0,
    device: str = "cpu",
    dtype: str = "float32",
    overwrite: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> Model:
    """Round every linear of ``model`` to ``bits`` (4) bits, without training; written to ``out``, returned opened.

    ``method``: rtn, gptq, obq, decoupleq, higgs, nupes, bct or onebit. ``group``: columns that share a scale (128; 0:
    whole rows). ``allocate``: "uniform", or a solver (greedy, dynamic, ..) that shares out ``bits`` on average by the
    errors they cost. ``store``: "packed" is a compressed-tensors checkpoint, in which what no loader takes packed is
    dequantised; "dense" stores all so. ``residual``: rank of a low-rank correction (EoRA), stored as a LoRA adapter in
    ``out``/adapter; 0: none. ``text`` as in :func:`calibrate`; rtn, higgs, bct and onebit need none. Memory: one layer.
    Other keyword arguments are the method's own: symmetric, search, order, damp, ...

    Raises UsageError for what does not fit together, before anything is computed.
    """
    from secateur.layerwise.quantize.run import quantize as run

    with _opened(model) as opened:
        windows, job, about = _layerwise(opened, text, samples, length, seed, batch, device, dtype, overwrite, residual)
        return run(
            opened, windows, Path(out), method, job, bits=bits, store=store, allocate=allocate, about=about,
            progress=progress, group=group, **options,
        )  # fmt: skip


def sparsify(
    model: Source,
    out: str | Path,
    *,
    text: Text | None = None,
    method: str = "mrp",
    pattern: str = "50%",
    residual: int = 0,
    samples: int = 128,
    length: int = 512,
    batch: int = 4,
    seed: int = 0,
    device: str = "cpu",
    dtype: str = "float32",
    overwrite: bool = False,
    note: Callable[[str], None] | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Model:
    """Set a share of every linear of ``model`` to zero and make up for it; written to ``out``, returned opened.

    ``method``: magnitude, wanda, sparsegpt, obc, mrp, swap, chita or block. ``pattern``: "50%" of all entries go, or
    "2:4", two of every four neighbouring inputs stay. ``text`` as in :func:`calibrate`; magnitude needs none; the last
    ``batch`` of windows judges and is not fitted. ``residual``: rank of a low-rank correction (EoRA), stored as a LoRA
    adapter in ``out``/adapter; 0: none. ``note``: told what the run will take. Memory: one layer. Other keyword
    arguments are the method's own. An interrupted run resumes by the same call. :func:`distill` keeps zeros.

    Raises UsageError for what does not fit together, before anything is computed.
    """
    from dataclasses import replace

    from secateur.layerwise.base import find
    from secateur.layerwise.run import compress
    from secateur.layerwise.sparsify import SPARSIFY

    chosen = find(SPARSIFY, method, "sparsify")
    settings = chosen.configure(pattern=pattern, **options)
    with _opened(model) as opened:
        windows, job, about = _layerwise(opened, text, samples, length, seed, batch, device, dtype, overwrite, residual)
        job = replace(job, step="sparsify", note=note)
        return compress(opened, windows, Path(out), chosen, settings, job, about=about, progress=progress)


def factorize(
    model: Source,
    out: str | Path,
    *,
    text: Text | None = None,
    method: str = "svd-llm",
    ratio: float | None = None,
    rank: int | None = None,
    allocate: str = "uniform",
    store: str = "dense",
    samples: int = 128,
    length: int = 512,
    batch: int = 4,
    seed: int = 0,
    device: str = "cpu",
    dtype: str = "float32",
    overwrite: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> Model:
    """Put two thin matrices in place of every linear of ``model``, in closed form; written to ``out``, returned opened.

    ``method``: svd, asvd, svd-llm, lord, curing, or modegpt, which compresses pairs of matrices and whose children are
    smaller standard checkpoints where the config can say so. ``ratio``: part of a linear's parameters to keep (0.8), or
    ``rank``: the same for all. ``allocate``: "uniform", or a solver (greedy, dynamic, ..) that shares ranks out by what
    they cost. ``store``: "dense" multiplies the factors out; "factors" writes a packed folder (``secateur expand``).
    ``text`` as in :func:`calibrate`; svd needs none. Memory: one layer. Other keyword arguments are the method's own.

    Raises UsageError for what does not fit together, before anything is computed.
    """
    from secateur.layerwise.factorize.run import factorize as run

    with _opened(model) as opened:
        windows, job, about = _layerwise(opened, text, samples, length, seed, batch, device, dtype, overwrite)
        return run(
            opened, windows, Path(out), method, job, store=store, allocate=allocate, about=about, progress=progress,
            ratio=ratio, rank=rank, **options,
        )  # fmt: skip


def export(
    model: Source,
    out: str | Path,
    *,
    to: str,
    type: str | None = None,
    pre: str | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Write ``model`` for another program: ``to="gguf"`` is a file for llama.cpp, ``"sparse"`` a folder with bitmaps in
    place of zeros (``secateur expand``). ``type``: of a GGUF file's matrices, "f16" when not said; codes that are
    packed already are kept. ``pre``: llama.cpp's name of the tokenizer's splitting rule, where it is not known.

    Returns ``bytes`` on disk and ``notes`` in words. Raises InexpressibleError for what llama.cpp cannot hold, before
    anything is written.
    """
    from secateur.export.run import export as run

    with _opened(model) as opened:
        return run(opened, Path(out), to, type=type, pre=pre, overwrite=overwrite, progress=progress)


def distill(
    student: Source,
    text: Text,
    *,
    tokens: int | str,
    out: str | Path,
    teacher: Source | None = None,
    correct_teacher: int | str = 0,
    eval_text: Text | None = None,
    eval_every: int | None = None,
    work: str | Path | None = None,
    cache: str | Path | None = None,
    overwrite: bool = False,
    restart: bool = False,
    tensorboard: bool = False,
    device: str = "auto",
    reporter: Reporter | None = None,
    **settings: Any,
) -> Model:
    """Train ``student`` on ``tokens`` ("20M") of ``text`` to agree with ``teacher``; returns the healed checkpoint.

    ``teacher`` may be left out with ``ce=1``. ``correct_teacher``: tokens to train the teacher itself on first.
    ``eval_text``: held-out text whose loss (nats per token) is logged before the first step, every ``eval_every`` steps
    (a twentieth of the run when None) and at the end; the steps are those of a run without it.
    ``work``: folder of the unfinished run, ``out`` + ".work" when not given; the same call resumes there on the same
    curve, and ``restart`` throws it away. ``cache``: folder for a teacher written to disk (with ``top_k``).
    ``device``: auto, cpu or cuda.
    Other keyword arguments are the fields of :class:`secateur.train.Settings`: length, batch, lr, loss, ce, bf16, ...

    Raises UsageError for what does not fit together, CheckpointError for the disk, TrainingError when the loss is not
    finite; the last saved state stays in the work folder.
    """
    from secateur.train import HeldOut, Places, Settings, token_count
    from secateur.train import distill as run

    measured = eval_text is not None or eval_every is not None
    held_out = HeldOut(texts=tuple(_texts(eval_text or ())), every=eval_every) if measured else None
    places = Places(
        out=Path(out),
        work=None if work is None else Path(work),
        cache=None if cache is None else Path(cache),
        overwrite=overwrite,
        restart=restart,
        tensorboard=tensorboard,
    )
    return run(
        student,
        teacher,
        _texts(text),
        Settings(tokens=token_count(tokens, "tokens"), **settings),
        places,
        correct_teacher=token_count(correct_teacher, "correct_teacher") if correct_teacher else 0,
        held_out=held_out,
        device=device,
        reporter=reporter,
    )


def evaluate(
    models: Source | Sequence[Source],
    text: Text,
    *,
    parent: Source | None = None,
    limit: int | str | None = None,
    window: int = 0,
    stride: int = 0,
    batch: int = 8,
    samples: int = 0,
    device: str = "auto",
    dtype: str = "auto",
    fast: bool = False,
    speed: bool = False,
    rounds: int = 5,
    reduce_tokens: TokenReduction | float | None = None,
    stream: bool | None = None,
    journal: str | Path | None = None,
    spill: str | Path | None = None,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Loss (nats per token), perplexity and bits per byte of ``models`` on ``text``; with a ``parent`` also KL, JS and
    top-1 agreement, and sizes, speed and memory as ratios to it.

    ``limit``: bytes of each text that are read ("200kB"). ``window``: tokens a window holds, 0: 1,024 or what every
    model can read; ``stride``: new tokens a window scores, 0: all. ``samples``: texts to write from the same prompts.
    ``speed``: measured over ``rounds`` rounds in turns. ``fast``: recurrent layers on the fast kernels. ``out``: a file
    for the document, which :func:`report` reads. At most two models are in memory at a time. ``reduce_tokens``: measure
    every model with reduced prompts as well, 0.8: at that share of a prompt's operations. All models are then scored on
    windows that slide by half their length, whose first half is the prompt. ``stream``: through one block at a time,
    for models larger than memory; when they are, if nothing is said. An interrupted streamed measurement resumes from
    the folder ``journal``; in ``spill`` hidden states lie on disk instead of in memory.

    Returns the document described in :mod:`secateur.evaluation.results`. Raises UsageError for text, windows or
    devices that cannot be used.
    """
    from secateur.checkpoint import write_json
    from secateur.evaluation.results import evaluate as run
    from secateur.evaluation.streamed import Streaming

    path = None if out is None else _place(out)
    settings = _measuring(
        limit, window, stride, batch, samples, device, dtype, fast, speed, rounds, reduce_tokens, stream
    )
    streaming = Streaming(*(None if p is None else Path(p) for p in (journal, spill)))
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(_opened(m)) for m in _several(models)]
        above = None if parent is None else stack.enter_context(_opened(parent))
        found = run(opened, _texts(text), parent=above, settings=settings, streaming=streaming, progress=progress)
    if path is not None:
        write_json(path, found)
    return found


def reduce_tokens(
    network: Any,
    reduction: TokenReduction | None = None,
    *,
    flops: float | None = None,
    prompt: int | None = None,
    **settings: Any,
) -> contextlib.AbstractContextManager[Reducing]:
    """Let ``network``, a loaded transformers causal model, read prompts with fewer tokens inside a ``with`` block:
    ``with sc.reduce_tokens(model, flops=0.8): model.generate(**inputs)``. Afterwards it is as before.

    ``reduction``: a :class:`TokenReduction`; else ``flops``, the share of a prompt's operations that is left, and other
    fields of it (method, locations, ...); else what :meth:`TokenReduction.save` left beside the model's checkpoint.
    ``prompt``: only so many first tokens of a pass count as prompt. See :mod:`secateur.tokens.runtime`.
    """
    from secateur.tokens.runtime import reduce_tokens as run
    from secateur.tokens.settings import TokenReduction as Asked

    if reduction is not None and (flops is not None or settings):
        raise UsageError("reduce_tokens: a reduction and settings of one are given; expected one of them")
    if reduction is None:
        said = flops is not None or bool(settings)
        reduction = Asked(flops=flops, **settings) if said else Asked.load(network.config.name_or_path)
    return run(network, reduction, prompt=prompt)


def verify(parent: Source, child: Source, *, tokens: int = 48, seed: int = 0) -> Equality:
    """Compare ``child`` with ``parent`` whose units are masked, both loaded by plain transformers, on random tokens.

    ``.holds`` of the result: equal to the masked parent, cached decoding equal to the full forward, as many parameters
    as planned. Holds both models in memory. Raises UsageError when the child does not come from this parent.
    """
    from secateur.evaluation.equality import verify as run

    with _opened(parent) as a, _opened(child) as b:
        return run(a, b, tokens=tokens, seed=seed)


def report(
    sources: Source | Sequence[Source],
    text: Text = (),
    *,
    out: str | Path,
    parent: Source | None = None,
    metrics: Sequence[str | Path] = (),
    importance: Sequence[str | Path] = (),
    limit: int | str | None = None,
    window: int = 0,
    stride: int = 0,
    batch: int = 8,
    samples: int = 3,
    device: str = "auto",
    dtype: str = "auto",
    fast: bool = False,
    speed: bool = False,
    rounds: int = 5,
    progress: Progress | None = None,
) -> Collected:
    """Write one self-contained HTML page to ``out``; returns what it shows.

    ``sources``: files that :func:`evaluate` wrote, shown as they are, and checkpoints, which are measured on ``text``
    first with the settings of :func:`evaluate`; the first of several is the parent of the others unless ``parent`` is
    given. ``metrics`` and ``importance``: metrics.jsonl and importance.json that do not lie beside a checkpoint.

    Raises UsageError for what cannot be read, and for checkpoints without text.
    """
    from secateur.reporting import collect, write

    path = _place(out)
    if path.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"out {path}: the page is HTML; name it *.html")
    found = collect(
        _several(sources),
        _texts(text),
        parent=parent,
        metrics=[Path(m) for m in metrics],
        importance=[Path(i) for i in importance],
        settings=_measuring(limit, window, stride, batch, samples, device, dtype, fast, speed, rounds),
        progress=progress,
    )
    write(found, path)
    return found


@contextlib.contextmanager
def _opened(source: Source) -> Iterator[Model]:
    """The model; closed at the end when it was opened here."""
    if not isinstance(source, str | Path):
        yield source
        return
    with open(source) as model:
        yield model


def _several(sources: Source | Sequence[Source]) -> list[Source]:
    return list(sources) if isinstance(sources, Sequence) and not isinstance(sources, str) else [sources]


def _texts(text: Text) -> list[str | Path]:
    return [text] if isinstance(text, str | Path) else list(text)


def _stats(stats: Stats | str | Path | None, model: Model) -> Stats | None:
    """The statistics, read from their file where one is given. UsageError when they are another model's."""
    from secateur.calibration.stats import load_stats

    return load_stats(Path(stats), model) if isinstance(stats, str | Path) else stats


def _seconds(budget: str | float) -> float:
    from secateur.search.budget import parse_duration

    return parse_duration(budget) if isinstance(budget, str) else float(budget)


def _layerwise(
    model: Model, text: Text | None, samples: int, length: int, seed: int, batch: int, device: str, dtype: str,
    overwrite: bool, residual: int = 0,
) -> tuple[Any, Any, dict[str, Any]]:  # fmt: skip
    """(windows or None, job, what the record says of the text) of a layer-wise method."""
    from secateur.calibration.text import windows_of
    from secateur.evaluation.load import DTYPES, Place
    from secateur.layerwise.run import Job

    place = Place(device, dtype).resolved()  # type: ignore[arg-type]  # resolved() judges it
    texts = _texts(text) if text is not None else []
    windows = windows_of(model, texts, samples=samples, length=length, seed=seed) if texts else None
    job = Job(
        step="", batch=batch, dtype=DTYPES[place.dtype], device=place.device, overwrite=overwrite, residual=residual
    )
    return windows, job, {"text": list(map(str, texts)), "seed": seed}


def _methods(methods: str | Sequence[str]) -> tuple[str, ...]:
    from secateur.pruning.repair.layer import METHODS

    asked = (methods,) if isinstance(methods, str) else tuple(methods)
    unknown = [m for m in asked if m not in METHODS]
    if unknown or not asked:
        raise UsageError(f"repair: {unknown[0] if unknown else ''!r}, expected one or more of {', '.join(METHODS)}")
    return asked


def _repaired(
    parent: Model,
    plan: Plan,
    out: Path,
    settings: Any,
    stats: Stats | None,
    counted: Sequence[str] | None,
    methods: str | Sequence[str],
    text: Text | None,
    progress: Progress | None,
) -> Model:
    """The cut and its repair with the windows that :func:`repair` would draw."""
    from secateur.calibration.text import windows_of
    from secateur.pruning.repair.run import RepairSettings
    from secateur.pruning.repaired import prune_repaired

    texts = _texts(text) if text is not None else list(stats.about.get("text", ())) if stats is not None else []
    if not texts:
        raise UsageError("a repair is fitted on text, and none is given", hint="give text=, or stats taken on text")
    windows = windows_of(parent, texts, samples=REPAIR_SAMPLES, length=REPAIR_LENGTH, seed=0)
    repairs, about = RepairSettings(methods=_methods(methods)), {"text": list(map(str, texts)), "seed": 0}
    return prune_repaired(
        parent, plan, out, settings, windows, repairs, stats=stats, texts=counted, about=about, progress=progress
    )


def _measuring(
    limit: int | str | None, window: int, stride: int, batch: int, samples: int, device: str, dtype: str, fast: bool,
    speed: bool, rounds: int, reduction: TokenReduction | float | None = None, stream: bool | None = None,
) -> Measuring:  # fmt: skip
    from secateur.evaluation.load import Place
    from secateur.evaluation.results import Settings
    from secateur.evaluation.speed import SpeedSettings
    from secateur.pruning.budget import parse_amount
    from secateur.tokens.settings import TokenReduction

    return Settings(
        window=window,
        stride=stride,
        limit=None if limit is None else parse_amount(str(limit), 0, "limit"),
        batch=batch,
        prompts=samples,
        place=Place(device, dtype, fast),  # type: ignore[arg-type]  # it is judged when it is resolved
        speed=SpeedSettings(rounds=rounds) if speed else None,
        reduction=TokenReduction(flops=reduction) if isinstance(reduction, float | int) else reduction,
        stream=stream,
    )


def _place(out: str | Path) -> Path:
    """A file to write; refused before anything is measured when it cannot be."""
    path = Path(out)
    if path.is_dir() or not path.absolute().parent.is_dir():
        why = "is a folder" if path.is_dir() else "its folder does not exist"
        raise UsageError(f"--out {path}: {why}", hint="name a file in a folder that exists")
    return path
