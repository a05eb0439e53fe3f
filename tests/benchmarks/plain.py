"""The script that people write for FER2013, as the other side of the benchmarks: nothing in it is slow on purpose.

ImageFolder, torchvision's transforms, a DataLoader with a worker a core, fp32 and Adam; the models, batch sizes and
augmentation are those of fersweep's configurations. With ``--wandb`` it is the program of a stock sweep: each
parameter an option, each epoch logged.

    python -m tests.benchmarks.plain --folder FER2013 --model simple_cnn --epochs 3
"""

import argparse
import json
import os
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.models import resnet18
from transformers import ViTConfig, ViTForImageClassification

CLASSES = 7
OPTIONS = {
    "model": "simple_cnn",
    "epochs": 3,
    "train_samples": 0,
    "batch_size": 128,
    "workers": os.cpu_count() or 1,
    "lr": 1e-3,
    "weight_decay": 0.0,
    "channels": 32,
    "kernel_size": 3,
    "hidden": 128,
    "dropout": 0.0,
    "shift": 0.1,
    "rotation": 10.0,
    "seed": 0,
    "device": "cuda" if torch.cuda.is_available() else "cpu",
}


def build(arguments: argparse.Namespace) -> nn.Module:
    if arguments.model == "simple_cnn":
        return simple_cnn(arguments.channels, arguments.kernel_size, arguments.hidden, arguments.dropout)
    if arguments.model == "deeper_cnn":
        return deeper_cnn()
    if arguments.model == "vit":
        return ViT()
    model = resnet18(num_classes=CLASSES)
    model.conv1 = nn.Conv2d(1, 64, 3, padding=1, bias=False)
    model.maxpool = nn.Identity()
    return model


def simple_cnn(channels: int, kernel_size: int, hidden: int, dropout: float) -> nn.Module:
    layers: list[nn.Module] = []
    for inside, outside in ((1, channels), (channels, 2 * channels)):
        layers += [nn.Conv2d(inside, outside, kernel_size, padding=kernel_size // 2), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Flatten(), nn.Linear(2 * channels * 12 * 12, hidden), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(hidden, CLASSES))


def deeper_cnn(width: int = 32, blocks: int = 3, dropout: float = 0.1) -> nn.Module:
    layers: list[nn.Module] = []
    inside = 1
    for block in range(blocks):
        outside = width * 2**block
        for _ in range(2):
            layers += [nn.Conv2d(inside, outside, 3, padding=1, bias=False), nn.BatchNorm2d(outside), nn.ReLU()]
            inside = outside
        layers += [nn.MaxPool2d(2), nn.Dropout2d(dropout)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inside, CLASSES))


class ViT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        sizes = {"image_size": 48, "patch_size": 8, "num_channels": 1, "hidden_size": 192, "num_hidden_layers": 9}
        heads = {"num_attention_heads": 6, "intermediate_size": 384, "num_labels": CLASSES}
        self.transformer = ViTForImageClassification(
            ViTConfig(**sizes, **heads, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.transformer(x).logits


def loaders(arguments: argparse.Namespace) -> tuple[DataLoader, DataLoader]:
    normalize = [transforms.ToTensor(), transforms.Normalize((0.5077,), (0.2551,))]
    shift, rotation = arguments.shift, arguments.rotation
    augment = [
        transforms.RandomHorizontalFlip(),
        transforms.RandomAffine(rotation, translate=(shift, shift), scale=(0.9, 1.1)),
    ]
    train = transforms.Compose([transforms.Grayscale(), *augment, *normalize])
    test = transforms.Compose([transforms.Grayscale(), *normalize])
    workers = {"num_workers": arguments.workers, "pin_memory": arguments.device != "cpu"}
    faces: Dataset = ImageFolder(arguments.folder / "train", train)
    if arguments.train_samples:
        faces = Subset(faces, range(0, len(faces), len(faces) // arguments.train_samples)[: arguments.train_samples])
    return (
        DataLoader(faces, arguments.batch_size, shuffle=True, **workers),
        DataLoader(ImageFolder(arguments.folder / "test", test), arguments.batch_size, **workers),
    )


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
    for name, default in OPTIONS.items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    parser.add_argument("--wandb", action="store_true")
    parser.add_argument("--json", action="store_true", help="what it prints anyway")
    arguments = parser.parse_args()
    run = None
    if arguments.wandb:
        import wandb

        run = wandb.init()
    torch.manual_seed(arguments.seed)
    train, test = loaders(arguments)
    model = build(arguments).to(arguments.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=arguments.lr, weight_decay=arguments.weight_decay)
    speeds, best = [], 0.0
    for epoch in range(1, arguments.epochs + 1):
        row = train_epoch(model, train, optimizer, arguments.device)
        row["val_acc"] = accuracy(model, test, arguments.device)
        speeds.append(row["images_per_second"])
        best = max(best, row["val_acc"])
        if run:
            run.log({"epoch": epoch, "best_val_acc": best, **row})
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    speed = sorted(speeds)[len(speeds) // 2]
    print(json.dumps({"best_val_acc": best, "images_per_second": speed, "parameters": parameters}))
    if run:
        run.finish()


if __name__ == "__main__":
    main()
