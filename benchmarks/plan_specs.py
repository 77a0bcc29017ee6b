"""The runs of `plans.py`: short, and as different in memory and time as two small datasets allow."""

from __future__ import annotations

from typing import Any

Part = dict[str, Any]


def conv(channels: int, kernel_size: int = 3, **more: Any) -> Part:
    return {"type": "conv2d", "out_channels": channels, "kernel_size": kernel_size, "padding": kernel_size // 2, **more}


def dense(*widths: int) -> Part:
    """A network of dense layers."""
    layers: list[Part] = [{"type": "flatten"}]
    for width in widths:
        layers += [{"type": "linear", "out_features": width}, RELU]
    return {"type": "layers", "layers": [*layers, OUTPUT]}


def layers(*parts: Part) -> Part:
    return {"type": "layers", "layers": [*parts, OUTPUT]}


RELU: Part = {"type": "relu"}
NORM: Part = {"type": "batch_norm"}
POOL: Part = {"type": "max_pool2d", "kernel_size": 2}
MEAN: Part = {"type": "global_avg_pool2d"}
FLATTEN: Part = {"type": "flatten"}
OUTPUT: Part = {"type": "linear", "out_features": 10}
SMALL = layers(conv(16), NORM, RELU, POOL, conv(32), NORM, RELU, MEAN)
WIDE = layers(conv(32), RELU, conv(32), RELU, POOL, conv(64), RELU, MEAN)
DROPPED = layers(conv(32), RELU, {"type": "spatial_dropout"}, POOL, conv(64), RELU, FLATTEN, {"type": "dropout"})
SMOOTH = layers(
    conv(32), {"type": "group_norm", "num_groups": 4}, {"type": "gelu"}, POOL, conv(64),
    {"type": "layer_norm"}, {"type": "silu"}, {"type": "drop_block", "block_size": 3}, MEAN,
)  # fmt: skip
RESPONSE = layers(conv(32, 5), RELU, {"type": "local_response_norm"}, POOL, conv(48, 5), RELU, POOL, FLATTEN)


def spec(model: Part, optimizer: str = "momentum", *, dataset: str = "fashion_mnist", **parts: Any) -> Part:
    """A run of one or a few epochs on a part of a dataset; `images`, `epochs` and `batch` are those of the parts."""
    images, epochs, batch = parts.pop("images", 2000), parts.pop("epochs", 1), parts.pop("batch", 128)
    training = {"epochs": epochs, "batch_size": batch, **parts.pop("training", {})}
    return {
        "dataset": {"type": dataset},
        "split": {"num_train": images, **parts.pop("split", {})},
        "model": model,
        "optimizer": {"type": optimizer},
        "training": training,
        **parts,
    }


def digits(model: Part, optimizer: str = "momentum", **parts: Any) -> Part:
    return spec(model, optimizer, dataset="digits", **{"images": 1200, "epochs": 5, **parts})


FLIP, CROP, TURN = {"type": "horizontal_flip"}, {"type": "random_crop"}, {"type": "rotate"}
SPECS: dict[str, Part] = {
    "digits small": digits(SMALL),
    "digits small, many epochs": digits(SMALL, "adam", epochs=30, batch=64),
    "digits dense": digits(dense(128, 128), "adamw", batch=32),
    "digits dense, large": digits(dense(2048, 2048), "adam", epochs=2),
    "digits resnet8": digits({"type": "resnet", "depth": 8}, "nesterov", epochs=2),
    "digits wide, whole batch": digits(WIDE, "sgd", batch=1200, epochs=3),
    "digits fast_net": digits({"type": "fast_net"}, "muon", epochs=3),
    "lenet sgd": spec({"type": "lenet"}, "sgd", images=6000),
    "lenet momentum, batch 32": spec({"type": "lenet"}, images=4000, batch=32),
    "lenet adam, all images": spec({"type": "lenet"}, "adam", images=50000, batch=512),
    "lenet, batch 2000": spec({"type": "lenet"}, "rmsprop", images=8000, batch=2000, epochs=2),
    "small": spec(SMALL, images=3000),
    "small, batch 512": spec(SMALL, "adam", images=3000, batch=512),
    "small, 4 x 128": spec(SMALL, "nesterov", images=3000, training={"accumulate": 4}),
    "small, rotated": spec(SMALL, images=3000, augmentation=[CROP, FLIP, TURN]),
    "small, mixup": spec(SMALL, images=3000, augmentation=[FLIP, {"type": "mixup"}]),
    "small, rand_augment": spec(SMALL, images=2000, augmentation=[{"type": "rand_augment"}]),
    "small, zca": spec(SMALL, images=2000, normalization={"type": "zca_whitening"}),
    "wide": spec(WIDE, images=1500),
    "wide, batch 256, ema": spec(WIDE, "adamw", batch=256, images=1500, training={"ema": {}}),
    "wide, batch 16": spec(WIDE, "lion", batch=16, images=1000),
    "wide, no validation": spec(WIDE, "sgd", images=1500, split={"val_fraction": 0.0}),
    "dropped": spec(DROPPED, "momentum", images=2500),
    "smooth": spec(SMOOTH, "nadam", images=1500),
    "response": spec(RESPONSE, "adagrad", images=2000),
    "dense, 1024 x 3": spec(dense(1024, 1024, 1024), "momentum", images=4000),
    "dense, 4096": spec(dense(4096, 2048), "adam", images=1500),
    "dense, 4096, l1 and max_norm": spec(
        dense(4096, 1024), "sgd", images=1500, regularizers=[{"type": "l1"}, {"type": "max_norm"}]
    ),
    "dense, 4096, amsgrad, ema": spec(dense(4096, 2048), "amsgrad", images=1000, training={"ema": {}}),
    "vgg_small, width 16": spec({"type": "vgg_small", "width": 16}, "momentum", images=800),
    "digits vgg_small, width 64": digits({"type": "vgg_small", "width": 64}, "adam", epochs=2, batch=64),
    "resnet8": spec({"type": "resnet", "depth": 8}, "nesterov", images=1000),
    "digits resnet20, batch 600": digits({"type": "resnet", "depth": 20}, epochs=2, batch=600),
    "fast_net": spec({"type": "fast_net"}, "momentum", images=2000, batch=256),
    "digits resnet18": digits({"type": "resnet18"}, "momentum", epochs=1, batch=64),
    "digits mobilenet_v3 small": digits({"type": "mobilenet_v3", "size": "small"}, "rmsprop", epochs=2),
}
