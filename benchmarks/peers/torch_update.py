"""Milliseconds of one DQN update of an image network in PyTorch. Prints one JSON object."""

import argparse
import json
import time

import torch  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]

BATCH, ACTIONS = 32, 6


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.second(torch.relu(self.first(torch.relu(x))))


def nature(actions: int = ACTIONS) -> nn.Module:
    """Return the network of the Nature paper, for four frames of 84×84."""
    convolutions = (
        (nn.Conv2d(4, 32, 8, 4), nn.ReLU()),
        (nn.Conv2d(32, 64, 4, 2), nn.ReLU()),
        (nn.Conv2d(64, 64, 3), nn.ReLU()),
    )
    dense = (nn.Flatten(), nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, actions))
    return nn.Sequential(*(layer for pair in convolutions for layer in pair), *dense)


def impala() -> nn.Module:
    layers, channels = [], 4
    for filters in (16, 32, 32):
        layers += [nn.Conv2d(channels, filters, 3, padding=1), nn.MaxPool2d(3, 2, 1)]
        layers += [Residual(filters), Residual(filters)]
        channels = filters
    dense = (nn.Flatten(), nn.Linear(3872, 256), nn.ReLU(), nn.Linear(256, ACTIONS))
    return nn.Sequential(*layers, nn.ReLU(), *dense)


def minatar(actions: int = ACTIONS) -> nn.Module:
    """Return the network of the MinAtar paper, for 10×10 with four channels."""
    dense = (nn.Flatten(), nn.Linear(1024, 128), nn.ReLU(), nn.Linear(128, actions))
    return nn.Sequential(nn.Conv2d(4, 16, 3), nn.ReLU(), *dense)


NETWORKS = {"nature": (nature, 84), "impala": (impala, 84), "minatar": (minatar, 10)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", choices=NETWORKS, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--updates", type=int, default=50)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    layout = torch.channels_last if options.channels_last else torch.contiguous_format
    build, side = NETWORKS[options.network]
    online, target = (build().to(memory_format=layout) for _ in range(2))
    optimiser = torch.optim.Adam(online.parameters(), 1e-4)
    before, after = (torch.randint(0, 256, (BATCH, 4, side, side), dtype=torch.uint8) for _ in range(2))
    action, reward = torch.randint(0, ACTIONS, (BATCH, 1)), torch.randn(BATCH)

    def update() -> None:
        with torch.no_grad():
            goal = reward + 0.99 * target(after.float() / 255).max(1).values
        chosen = online(before.float() / 255).gather(1, action)[:, 0]
        optimiser.zero_grad()
        nn.functional.smooth_l1_loss(chosen, goal).backward()
        optimiser.step()

    for _ in range(5):
        update()
    start = time.perf_counter()
    for _ in range(options.updates):
        update()
    print(json.dumps({"milliseconds": 1e3 * (time.perf_counter() - start) / options.updates}))


if __name__ == "__main__":
    main()
