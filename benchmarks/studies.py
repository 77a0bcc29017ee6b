"""The studies of `learning.py`: what each comparison asks, what the literature says, and what was found."""

from __future__ import annotations

from dataclasses import dataclass

from study_specs import (
    Part,
    feature_space,
    generated,
    inputs,
    look_ahead,
    optimizers,
    overfitting,
    srivastava,
    stopping,
)


@dataclass(frozen=True)
class Study:
    """One comparison.

    Args:
        question: what the table answers.
        expected: what the literature says, in words.
        variants: the spec of each row, by its name; `split.seed` and `training.seed` are set per run.
        measure: the column that decides: `test_accuracy`, `train_loss` or `gap`.
        found: what the committed table says of the expectation, in words.
        beside: the further columns.
    """

    name: str
    question: str
    expected: str
    variants: dict[str, Part]
    measure: str
    found: str = "not judged yet"
    beside: tuple[str, ...] = ("test_accuracy", "train_loss")


STUDIES = (
    Study(
        "regularizers",
        "Test accuracy of the 784-1024-1024-2048-10 network on 5,000 images",
        "Srivastava et al. (2014), table 9: L2 < L1 + L2 < max-norm < dropout + L2 < dropout + max-norm",
        srivastava,
        "test_accuracy",
        found=(
            "reproduced in part: dropout adds 0.4 points to L2 and 0.3 to max-norm, each more than twice its error. "
            "The three without it lie within one error. Of the two with it L2 is ahead here in every split, by 0.1 "
            "points, and max-norm was in four of five of the same runs whose last bits were others: 1,500 updates on "
            "5,000 images, instead of a million on 60,000, do not tell. The dropout is the paper's; the other values "
            "were chosen in eight runs with one more seed, the same rate for all rows"
        ),
    ),
    Study(
        "overfitting",
        "Accuracy on the 1,000 training images, without augmentation and dropout, minus that on the test split",
        "each regularizer narrows the gap",
        overfitting,
        "gap",
        found=(
            "each narrows it: early stopping by 9 points, augmentation by 6, dropout everywhere with max-norm and L2 "
            "by 2, L2 alone by 1; dropout in the one dense layer by 0.6"
        ),
    ),
    Study(
        "early-stopping",
        "Test accuracy of the delivered weights, chosen by the validation loss, training on 1,000 images",
        "with enough patience as good as the best epoch of the whole run, in fewer epochs (Prechelt 1998)",
        stopping,
        "test_accuracy",
        beside=("epoch", "epochs"),
        found=(
            "patience 10 delivers the weights of the best of all 60 epochs in a third of them, patience 1 "
            "stops too early. By test accuracy the last epoch is better still: the loss on the validation "
            "split rises while accuracy does not fall"
        ),
    ),
    Study(
        "look-ahead",
        "Training loss after 15 epochs of 1,000 images, lr = 0.2 (1 - γ)",
        "Sutskever et al. (2013): Nesterov's gradient is no worse, and better where γ is large",
        look_ahead,
        "train_loss",
        "as expected, with the smaller loss for Nesterov's at every γ; at γ = 0.999 within two standard errors",
    ),
    Study(
        "optimizers",
        "Training loss after 6 epochs of 2,000 images, over a grid of learning rates",
        "at each one's best learning rate, momentum and the adaptive ones are ahead of SGD",
        optimizers,
        "train_loss",
        found=(
            "as expected at each one's best rate: RMSProp 0.21, Adam 0.23, Nesterov 0.25 and AdaGrad 0.27 are ahead of "
            "momentum (0.33) and SGD (0.36), which lie within two errors of each other"
        ),
    ),
    Study(
        "inputs",
        "Training loss after 4 epochs of 2,000 images, over a grid of learning rates for each range of values",
        "normalized inputs train faster",
        inputs,
        "train_loss",
        found=(
            "not confirmed on this one-channel data: at each one's best rate of the grid, raw values at 1e-3 are ahead "
            "of standardized ones at 0.08"
        ),
    ),
    Study(
        "feature-space",
        "Test accuracy after training on 300 images, augmented in the features of the dense layer",
        "DeVries & Taylor (2017): extrapolation helps more than interpolation",
        feature_space,
        "test_accuracy",
        found=(
            "as expected, though by little at 30 images per class: in the same splits extrapolation is ahead of "
            "interpolation by 0.7 points (λ = 0.25) and 0.9 (λ = 0.5), each ± 0.2, and of none by 0.5 and 0.8; in "
            "earlier runs, whose last bits were others, there was no difference beyond the errors"
        ),
    ),
    Study(
        "generated",
        "Test accuracy after training on 20 or 50 images per class, a quarter of each minibatch generated",
        "Antoniou et al. (2017): generated samples help where there are few real ones",
        generated,
        "test_accuracy",
        found=(
            "not confirmed: with 20 images per class the accuracy falls by 1.5 points, with 50 it stays. "
            "Crop and flip do not help either after so few passes"
        ),
    ),
)
