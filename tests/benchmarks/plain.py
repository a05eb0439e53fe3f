"""The script that people write for FER2013, as the other side of the benchmarks: nothing in it is slow on purpose.

ImageFolder, torchvision's transforms, a DataLoader with a worker a core, fp32 and Adam; the models, batch sizes and
augmentation are those of fersweep's configurations. With ``--wandb`` it is the program of a stock sweep: each
parameter an option, each epoch logged.

    python -m tests.benchmarks.plain --folder FER2013 --model simple_cnn --epochs 3
"""

import argparse
import itertools
import json
import os
import statistics
import time
from pathlib import Path

import torch
import wandb
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.models import resnet18
from transformers import ViTConfig, ViTForImageClassification

CLASSES = 7
OPTIONS = {"model": "simple_cnn", "epochs": 3, "train_samples": 0, "batch_size": 128, "lr": 1e-3, "channels": 32}
OPTIONS |= {"hidden": 128, "dropout": 0.0, "seed": 0, "workers": os.cpu_count() or 1}
OPTIONS["device"] = "cuda" if torch.cuda.is_available() else "cpu"


def build(arguments: argparse.Namespace) -> nn.Module:
    if arguments.model == "simple_cnn":
        return simple_cnn(arguments.channels, arguments.hidden, arguments.dropout)
    if arguments.model == "deeper_cnn":
        return deeper_cnn()
    if arguments.model == "vit":
        return ViT()
    model = resnet18(num_classes=CLASSES)
    model.conv1 = nn.Conv2d(1, 64, 3, padding=1, bias=False)
    model.maxpool = nn.Identity()
    return model


def simple_cnn(channels: int, hidden: int, dropout: float) -> nn.Module:
    layers: list[nn.Module] = []
    for inside, outside in ((1, channels), (channels, 2 * channels)):
        layers += [nn.Conv2d(inside, outside, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Flatten(), nn.Linear(2 * channels * 12 * 12, hidden), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(hidden, CLASSES))


def deeper_cnn() -> nn.Module:
    layers: list[nn.Module] = []
    for widths in ((1, 32, 32), (32, 64, 64), (64, 128, 128)):
        for inside, outside in itertools.pairwise(widths):
            layers += [nn.Conv2d(inside, outside, 3, padding=1, bias=False), nn.BatchNorm2d(outside), nn.ReLU()]
        layers += [nn.MaxPool2d(2), nn.Dropout2d(0.1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, CLASSES))


class ViT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        sizes = {"image_size": 48, "patch_size": 8, "num_channels": 1, "hidden_size": 192, "num_hidden_layers": 9}
        sizes |= {"num_attention_heads": 6, "intermediate_size": 384, "num_labels": CLASSES}
        config = ViTConfig(**sizes, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        self.transformer = ViTForImageClassification(config)

    def forward(self, x: Tensor) -> Tensor:
        return self.transformer(x).logits


def loaders(arguments: argparse.Namespace) -> tuple[DataLoader, DataLoader]:
    grey, normalize = transforms.Grayscale(), [transforms.ToTensor(), transforms.Normalize((0.5077,), (0.2551,))]
    augment = [transforms.RandomHorizontalFlip(), transforms.RandomAffine(10.0, (0.1, 0.1), scale=(0.9, 1.1))]
    faces: Dataset = ImageFolder(arguments.folder / "train", transforms.Compose([grey, *augment, *normalize]))
    if arguments.train_samples:
        faces = Subset(faces, range(0, len(faces), len(faces) // arguments.train_samples)[: arguments.train_samples])
    test = ImageFolder(arguments.folder / "test", transforms.Compose([grey, *normalize]))
    workers = {"num_workers": arguments.workers, "pin_memory": arguments.device != "cpu"}
    train_loader = DataLoader(faces, arguments.batch_size, shuffle=True, **workers)
    return train_loader, DataLoader(test, arguments.batch_size, **workers)


def train_epoch(model: nn.Module, data: DataLoader, optimizer: torch.optim.Optimizer, device: str) -> dict[str, float]:
    model.train()
    loss_sum, right, seen, began = 0.0, 0, 0, 0.0
    for images, labels in data:
        began = began or time.perf_counter()  # the workers' start is not counted: a whole FER2013 hides it
        images, labels = images.to(device), labels.to(device)
        optimizer.zero_grad()
        logits = model(images)
        loss = functional.cross_entropy(logits, labels)
        loss.backward()
        optimizer.step()
        loss_sum += loss.item() * len(labels)
        right += (logits.argmax(1) == labels).sum().item()
        seen += len(labels)
    seconds = time.perf_counter() - began
    return {"train_loss": loss_sum / seen, "train_acc": right / seen, "images_per_second": seen / seconds}


@torch.no_grad()
def accuracy(model: nn.Module, data: DataLoader, device: str) -> float:
    model.eval()
    right = seen = 0
    for images, labels in data:
        right += (model(images.to(device)).argmax(1) == labels.to(device)).sum().item()
        seen += len(labels)
    return right / seen


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--wandb", action="store_true")
    for name, default in OPTIONS.items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    arguments = parser.parse_args()
    run = wandb.init(mode=None if arguments.wandb else "disabled")
    torch.manual_seed(arguments.seed)
    train, test = loaders(arguments)
    model = build(arguments).to(arguments.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=arguments.lr)
    speeds, best = [], 0.0
    for epoch in range(1, arguments.epochs + 1):
        row = train_epoch(model, train, optimizer, arguments.device)
        row["val_acc"] = accuracy(model, test, arguments.device)
        speeds.append(row["images_per_second"])
        best = max(best, row["val_acc"])
        run.log({"epoch": epoch, "best_val_acc": best, **row})
    print(json.dumps({"best_val_acc": best, "images_per_second": statistics.median_high(speeds)}))
    run.finish()


if __name__ == "__main__":
    main()
