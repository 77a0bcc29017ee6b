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
            "reproduced: dropout adds 0.4 to 0.6 points to either, each more than twice its error, and with max-norm "
            "is best, in four of five splits before dropout + L2. The three without dropout lie within one standard "
            "error. Here are 1,500 updates on 5,000 images instead of a million on 60,000; the dropout is the "
            "paper's, the other values were chosen in eight runs with one more seed, the same rate for all rows"
        ),
    ),
    Study(
        "overfitting",
        "Accuracy on the 1,000 training images, without augmentation and dropout, minus that on the test split",
        "each regularizer narrows the gap",
        overfitting,
        "gap",
        found=(
            "each narrows it: early stopping by 8 points, augmentation by 5, dropout everywhere with max-norm and L2 "
            "by 2; dropout in the one dense layer by less than its error"
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
            "as expected at each one's best rate: RMSProp 0.21, Adam 0.24, Nesterov 0.25 and AdaGrad 0.27 are ahead of "
            "momentum (0.34) and SGD (0.36), which lie within their errors of each other"
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
            "no difference beyond the errors, in either direction, at 30 images per class; the paper's gain "
            "is on other data"
        ),
    ),
    Study(
        "generated",
        "Test accuracy after training on 20 or 50 images per class, a quarter of each minibatch generated",
        "Antoniou et al. (2017): generated samples help where there are few real ones",
        generated,
        "test_accuracy",
        found=(
            "not confirmed: with 20 images per class the accuracy falls by about a point, with 50 it stays. "
            "Crop and flip do not help either after so few passes"
        ),
    ),
)
