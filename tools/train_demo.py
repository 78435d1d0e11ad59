"""Train a tiny network from a dataset and see the loss fall; half way, save the loader's state and go on from it.

    python -m tools.train_demo demo/dataset

The network learns to find Canny edges in the picture, at half size. It is an example of a training loop: the lines
that matter are `make_loader`, `for batch in loader`, `state_dict` and `load_state_dict`. Exits with 1 if the loss did
not fall.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vrekit.readers import FrameLoader, make_loader


def make_network() -> nn.Module:
    """Return a network of 3 input channels and one edge logit a pixel, about 900 weights."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 1, 3, padding=1),
    )


def training_loss(network: nn.Module, batch: dict[str, Any]) -> Tensor:
    """Return the loss of a batch: cross-entropy of each half-size pixel holding an edge."""
    pictures = batch["rgb"].permute(0, 3, 1, 2).float() / 255 - 0.5  # (N, H, W, 3) uint8 -> (N, 3, H, W)
    edges = batch["canny"][:, None].float()  # (N, H, W) of 0 and 1
    logits = network(functional.avg_pool2d(pictures, 2))
    return functional.binary_cross_entropy_with_logits(logits, functional.max_pool2d(edges, 2))


def endless(loader: FrameLoader) -> Iterator[dict[str, Any]]:
    """Yield batches for ever, one epoch after another."""
    while True:
        yield from loader


def train(dataset: Path, *, steps: int, batch_size: int, seed: int) -> list[float]:
    """Train for some steps, with a new loader that continues the old one's state half way; return the losses."""
    torch.manual_seed(seed)
    network = make_network()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    losses: list[float] = []

    def make() -> FrameLoader:
        return make_loader(dataset, representations=["rgb", "canny"], batch_size=batch_size, seed=seed, drop_last=True)

    def run(batches: Iterator[dict[str, Any]]) -> None:
        for batch in batches:
            optimizer.zero_grad()
            loss = training_loss(network, batch)
            loss.backward()  # type: ignore[no-untyped-call]  # torch has no annotations here
            optimizer.step()
            losses.append(loss.item())

    loader = make()
    if len(loader) == 0:
        raise SystemExit(
            f"error: {dataset} has fewer frames than one batch of {batch_size}; take a smaller --batch-size"
        )
    batches = endless(loader)
    run(islice(batches, steps // 2))

    saved = json.dumps(loader.state_dict())  # what a checkpoint would keep beside the weights
    would_be_next = next(batches)["key"]
    resumed = make()
    resumed.load_state_dict(json.loads(saved))
    batches = endless(resumed)
    first = next(batches)
    if first["key"] != would_be_next:
        raise SystemExit(f"error: the resumed loader went on with {first['key']}, expected {would_be_next}")
    print(f"step {steps // 2}: loader state saved ({len(saved)} bytes) and restored; it goes on with {first['key'][0]}")
    run(islice((batch for part in ([first], batches) for batch in part), steps - steps // 2))
    return losses


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(prog="train_demo", description="Train a tiny network from a vrekit dataset.")
    parser.add_argument("dataset", type=Path, help="folder with the representations rgb and canny")
    parser.add_argument("--steps", type=int, default=48, help="batches to train on (default %(default)s)")
    parser.add_argument("--batch-size", type=int, default=8, help="frames in a batch (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the order and the weights (default %(default)s)")
    options = parser.parse_args(arguments)
    if options.steps < 10:
        parser.error(f"--steps is {options.steps}, expected at least 10")
    started = time.monotonic()
    losses = train(options.dataset, steps=options.steps, batch_size=options.batch_size, seed=options.seed)
    seconds = time.monotonic() - started
    part = max(1, len(losses) // 6)
    for begin in range(0, len(losses), part):
        some = losses[begin : begin + part]
        print(f"steps {begin:3d}..{begin + len(some) - 1:<3d} mean loss {sum(some) / len(some):.4f}")
    first, last = sum(losses[:part]) / part, sum(losses[-part:]) / part
    print(
        f"loss {first:.4f} -> {last:.4f} in {seconds:.1f} s, {len(losses) * options.batch_size / seconds:.0f} frames/s"
    )
    if not last < first:
        print("error: the loss did not fall", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
