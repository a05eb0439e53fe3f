"""Batches of faces, normalised by the training split, and their evaluation."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fer_sweep.data.cache import open_dataset
from fer_sweep.models import build_model
from fer_sweep.training.evaluation import evaluate
from fer_sweep.training.faces import Faces, batches
from fer_sweep.training.samples import choose_samples
from tests.training.conftest import small


def faces_of(dataset):
    return Faces(dataset, choose_samples(dataset, small()), torch.device("cpu"))


@settings(derandomize=True, deadline=None, max_examples=60)
@given(count=st.integers(2, 300), size=st.integers(2, 64))
def test_batches_cover_all_but_a_single_last_image(count, size):
    parts = list(batches(count, size))
    covered = [index for part in parts for index in range(part.start, part.stop)]
    assert covered == list(range(count - 1 if count % size == 1 else count))
    assert all(2 <= part.stop - part.start <= size for part in parts)


def test_images_are_normalised_by_the_training_split():
    dataset = open_dataset("tiny")
    faces = faces_of(dataset)
    batch = faces.batch(faces.train)
    assert (batch.shape, batch.dtype) == ((70, 1, 48, 48), torch.float32)
    assert float(batch.mean()) == pytest.approx(0.0, abs=1e-5)
    assert float(batch.std()) == pytest.approx(1.0, abs=1e-4)
    pixel = (int(dataset.images[75, 3, 4]) - faces.mean) / faces.std
    assert float(faces.batch(torch.tensor([75]))[0, 0, 3, 4]) == pytest.approx(pixel, rel=1e-5)
    grey = faces_of(dataclasses.replace(dataset, images=np.full(dataset.images.shape, 7, np.uint8)))
    assert not grey.batch(grey.train).any(), "a single grey level is zero"


def test_evaluation_uses_evaluation_mode_and_restores_training_mode():
    faces = faces_of(open_dataset("tiny"))
    network = build_model(small(dropout=0.9)).train()
    loss, predictions = evaluate(network, faces, faces.val, "fp32")
    assert network.training
    with torch.no_grad():
        logits = network.eval()(faces.batch(faces.val))
    assert loss == pytest.approx(float(nn.functional.cross_entropy(logits, faces.labels[faces.val])), rel=1e-5)
    assert (predictions == logits.argmax(1).numpy()).all()
