"""What a spec asks for and its author will hardly mean: warnings with their source and, where one is clear, a repair.

A spec with warnings is valid and trains. To add one: write a function that yields a `Finding`, then name it in `RULES`;
those about the layers of the network are in `layer_lint.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from cnn.adaptive_optimizers import AdaGrad, Adam, AMSGrad, NAdam, RMSProp
from cnn.costs import num_steps
from cnn.findings import Finding, put, remove
from cnn.geometric import HorizontalFlip, Rotate, VerticalFlip
from cnn.layer_lint import LAYER_RULES
from cnn.optimizers import Muon
from cnn.regularizers import L2, MaxNorm
from cnn.schedules import MultiStep, OneCycle, ReduceOnPlateau, Step
from cnn.spec import TrainingSpec

DIGITS = ("digits", "mnist")
SHORTEN = "Shorten & Khoshgoftaar, Journal of Big Data 6:60 (2019)"
LEFT_OUT_SHARE = 0.2
FIRST_WEIGHTS_SHARE = 0.1
"""Of the weights after the first step in the averages that are delivered."""
ARITHMETIC = "follows from the definitions"


def lint(spec: TrainingSpec) -> tuple[Finding, ...]:
    """The warnings about a spec, in the order of `RULES`."""
    return tuple(finding for rule in RULES for finding in rule(spec))


def _flips_of_digits(spec: TrainingSpec) -> Iterator[Finding]:
    if spec.dataset.type not in DIGITS:
        return
    for index, transform in enumerate(spec.augmentation):
        if isinstance(transform, HorizontalFlip | VerticalFlip):
            yield Finding(
                "augmentation_changes_labels",
                f"/augmentation/{index}",
                f"{transform.type} makes of a digit something that is none, or another one: a mirrored 2 is no 2",
                SHORTEN,
                remove(f"/augmentation/{index}"),
            )


def _rotation_of_digits(spec: TrainingSpec) -> Iterator[Finding]:
    if spec.dataset.type not in DIGITS:
        return
    for index, transform in enumerate(spec.augmentation):
        if isinstance(transform, Rotate) and transform.degrees >= 90:
            yield Finding(
                "augmentation_changes_labels",
                f"/augmentation/{index}/degrees",
                f"a 6 turned by 90 degrees and a 9 turned by -90 look alike, and degrees is {transform.degrees:g}",
                SHORTEN,
                [{"op": "add", "path": f"/augmentation/{index}/degrees", "value": 15.0}],
            )


def _patience(spec: TrainingSpec) -> Iterator[Finding]:
    """The first epoch improves on nothing before it, so patience p can act after epoch p + 1 at the earliest."""
    epochs = spec.training.epochs
    watchers = {"early_stopping": (spec.early_stopping, "stop the run"), "schedule": (spec.schedule, "lower the lr")}
    for name, (watcher, act) in watchers.items():
        patience = getattr(watcher, "patience", None)
        if patience is not None and patience >= epochs - 1:
            yield Finding(
                "patience_never_ends",
                f"/{name}/patience",
                f"a patience of {patience} epochs can {act} after epoch {patience + 1} at the earliest, and there are "
                f"{epochs}",
                ARITHMETIC,
                put(spec, name, "patience", epochs // 3) if epochs >= 3 else (),
            )


def _plateau_behind_early_stopping(spec: TrainingSpec) -> Iterator[Finding]:
    stopping, schedule = spec.early_stopping, spec.schedule
    if not isinstance(schedule, ReduceOnPlateau) or stopping is None:
        return
    alike = (schedule.monitor, schedule.min_delta) == (stopping.monitor, stopping.min_delta)
    if alike and schedule.patience >= stopping.patience:
        yield Finding(
            "stops_before_lr_falls",
            "/schedule/patience",
            f"early stopping ends the run after {stopping.patience} epochs without improvement, before the schedule "
            f"lowers the learning rate after {schedule.patience}",
            ARITHMETIC,
            put(spec, "schedule", "patience", stopping.patience // 2) if stopping.patience >= 2 else (),
        )


def _schedule_without_effect(spec: TrainingSpec) -> Iterator[Finding]:
    epochs, schedule = spec.training.epochs, spec.schedule
    if isinstance(schedule, Step) and schedule.step_size >= epochs:
        fix = put(spec, "schedule", "step_size", epochs // 3) if epochs >= 3 else ()
        where, what = "step_size", f"the first reduction would come after epoch {schedule.step_size}"
    elif isinstance(schedule, MultiStep) and schedule.milestones[0] >= epochs:
        milestones = [epochs // 2, 3 * epochs // 4]  # of He et al., CVPR 2016, section 4.2
        fix = put(spec, "schedule", "milestones", milestones) if epochs >= 4 else ()
        where, what = "milestones", f"the first milestone is epoch {schedule.milestones[0]}"
    else:
        return
    yield Finding(
        "schedule_without_effect",
        f"/schedule/{where}",
        f"{what}, and there are {epochs}: the learning rate stays as it is",
        ARITHMETIC,
        fix,
    )


def _warmup(spec: TrainingSpec) -> Iterator[Finding]:
    epochs, warmup = spec.training.epochs, spec.schedule.warmup_epochs
    if isinstance(spec.schedule, OneCycle) and warmup:
        yield Finding(
            "two_warmups",
            "/schedule/warmup_epochs",
            "one_cycle has a way up of its own (pct_start), which warmup_epochs multiplies",
            "Smith & Topin, arXiv 1708.07120 (2018)",
            put(spec, "schedule", "warmup_epochs", 0.0),
        )
    elif 2 * warmup >= epochs:
        yield Finding(
            "warmup_too_long",
            "/schedule/warmup_epochs",
            f"the learning rate is still rising for {warmup:g} of {epochs} epochs; warm-up is meant for the first few "
            "(5 of 90 in its paper)",
            "Goyal et al., arXiv 1706.02677 (2017)",
            put(spec, "schedule", "warmup_epochs", round(epochs / 18, 2)),
        )


def _steps_of_an_epoch(spec: TrainingSpec) -> Iterator[Finding]:
    training = spec.training
    needed = training.batch_size * training.accumulate
    smaller = 2 ** max(0, (spec.num_train // (10 * training.accumulate)).bit_length() - 1)
    left_out = spec.num_train % needed if training.drop_last else 0
    if needed > spec.num_train:
        yield Finding(
            "batch_larger_than_split",
            "/training/batch_size",
            f"a step takes {needed} images, but there are {spec.num_train}: an epoch is a single step",
            ARITHMETIC,
            put(spec, "training", "batch_size", smaller),
        )
    elif left_out > LEFT_OUT_SHARE * spec.num_train:
        alone = spec.num_train % training.batch_size == 1  # which batch norm could not take
        yield Finding(
            "images_left_out",
            "/training/drop_last",
            f"with drop_last, every epoch leaves out {left_out} of {spec.num_train} images, those that do not fill a "
            f"step of {needed}",
            ARITHMETIC,
            () if alone else put(spec, "training", "drop_last", False),
        )


def _average_of_first_weights(spec: TrainingSpec) -> Iterator[Finding]:
    ema, steps = spec.training.ema, num_steps(spec)
    if ema is None or ema.decay ** (steps - 1) <= FIRST_WEIGHTS_SHARE:
        return
    yield Finding(
        "average_too_slow",
        "/training/ema/decay",
        f"after {steps} steps, {ema.decay ** (steps - 1):.0%} of the averages that are delivered would still be the "
        "weights after the first step",
        ARITHMETIC,
        [{"op": "add", "path": "/training/ema/decay", "value": round(1 - 10 / steps, 4)}] if steps >= 20 else (),
    )


def _unnormalized_input(spec: TrainingSpec) -> Iterator[Finding]:
    if spec.normalization is not None or "norm" in spec.plan().layers[0].type:
        return
    yield Finding(
        "input_not_normalized",
        "/normalization",
        "the network gets values from 0 to 255; it learns faster from values with mean 0 and variance 1",
        "LeCun et al., Efficient BackProp, section 4.3 (1998)",
        [{"op": "add", "path": "/normalization", "value": {"type": "standardize"}}],
    )


def _max_norm_on_output(spec: TrainingSpec) -> Iterator[Finding]:
    names = spec.plan().weight_layers
    for index, regularizer in enumerate(spec.regularizers):
        chosen = regularizer.select(regularizer.layers, names)
        if isinstance(regularizer, MaxNorm) and chosen[-1] == spec.plan().layers[-1].name:
            place = f"/regularizers/{index}/layers"
            yield Finding(
                "max_norm_on_output",
                place if regularizer.layers else f"/regularizers/{index}",
                f"max_norm bounds the weights of hidden units; on the output layer {chosen[-1]} it bounds how sure "
                "the network can be",
                "Srivastava et al., JMLR 15, section 5.1 (2014)",
                [{"op": "add", "path": place, "value": chosen[:-1]}] if len(chosen) > 1 else (),
            )


def _float16_on_a_cpu(spec: TrainingSpec) -> Iterator[Finding]:
    if spec.training.precision == "float16" and spec.training.device == "cpu":
        yield Finding(
            "slow_precision",
            "/training/precision",
            "float16 is made for GPUs: CPUs without instructions for it compute it many times slower than float32",
            "measured: some 20 times slower on a CPU with AVX-512 (benchmarks/gpu.py --device cpu)",
            put(spec, "training", "precision", "float32"),
        )


def _decay(spec: TrainingSpec) -> Iterator[Finding]:
    optimizer = spec.optimizer
    decay = getattr(optimizer, "weight_decay", 0.0)
    # Muon's own decay acts on matrices alone.
    everywhere = getattr(optimizer.partner, "weight_decay", 0.0) if isinstance(optimizer, Muon) else decay
    if everywhere and any("norm" in layer.type and layer.num_parameters for layer in spec.plan().layers):
        yield Finding(
            "decay_on_normalization",
            "/optimizer/partner/weight_decay" if isinstance(optimizer, Muon) else "/optimizer/weight_decay",
            f"a weight_decay of {everywhere:g} also pulls biases and the scales of normalization layers towards 0; an "
            "l2 penalty acts on weights alone",
            "He et al., Bag of Tricks, section 3.1 (CVPR 2019); Goyal et al., arXiv 1706.02677, section 5.1 (2017)",
        )
    for index, regularizer in enumerate(spec.regularizers):
        if not isinstance(regularizer, L2):
            continue
        place = f"/regularizers/{index}"
        if decay:
            message = f"weights shrink twice: by this penalty and by the weight_decay {decay:g} of {optimizer.type}"
            yield Finding("decay_twice", place, message, ARITHMETIC, remove(place))
        elif isinstance(optimizer, Adam | AMSGrad | NAdam | RMSProp | AdaGrad):
            yield Finding(
                "penalty_rescaled",
                place,
                f"{optimizer.type} divides the gradient of this penalty by that of the loss, so that weights with "
                "large gradients are hardly penalized; the decoupled decay of adamw is not",
                "Loshchilov & Hutter, ICLR 2019",
            )


RULES: tuple[Callable[[TrainingSpec], Iterator[Finding]], ...] = (
    *LAYER_RULES,
    _flips_of_digits,
    _rotation_of_digits,
    _patience,
    _plateau_behind_early_stopping,
    _schedule_without_effect,
    _warmup,
    _steps_of_an_epoch,
    _average_of_first_weights,
    _unnormalized_input,
    _max_norm_on_output,
    _float16_on_a_cpu,
    _decay,
)
