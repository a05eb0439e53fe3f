"""Knowledge distillation: a trial learns from the predictions of a model that is trained already, its teacher.

The teacher sees the very images that its student sees, augmented and mixed (consistent teaching, Beyer et al. 2022).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from fer_sweep.config.trial import SharedConfig
from fer_sweep.training.evaluation import forward
from fer_sweep.training.faces import Faces
from fer_sweep.training.precision import Precision
from fer_sweep.training.weights import check_same_data, load_trained, named_weights


class Teacher:
    """A trained model, frozen and in evaluation mode, on its student's device.

    Args:
        model: The model.
        scale: Times this, plus ``shift``, an image that is normalised for the student is normalised for the teacher.
        shift: Added to a scaled image.
    """

    def __init__(self, model: nn.Module, *, scale: float, shift: float) -> None:
        self._model = model.eval().requires_grad_(False)
        self._scale, self._shift = scale, shift

    @torch.no_grad()
    def logits(self, images: Tensor, precision: Precision) -> Tensor:
        """Logits (B, K) float32 of images (B, C, H, W) that are normalised for the student."""
        return forward(self._model, images * self._scale + self._shift, precision)


def load_teacher(config: SharedConfig, faces: Faces, fingerprint: str, device: torch.device) -> Teacher | None:
    """The teacher of a configuration on its student's device, loaded again at every start; None if it has none.

    Raises:
        CheckpointError: The teacher is missing, has not ended, or was trained on other data.
        WeightsUnavailable: The description of its architecture comes from a hub that is out of reach.
    """
    if config.distill_from is None:
        return None
    trained, model = load_trained(named_weights("distill_from", config), device)
    check_same_data("distill_from", config, trained, fingerprint=fingerprint, spec=faces.spec)
    # Mean and deviation are those of a trial's own training sample, and the teacher's may have been another.
    shift = (faces.mean - trained.pixel_mean) / trained.pixel_std
    return Teacher(model, scale=faces.std / trained.pixel_std, shift=shift)


def distillation_loss(logits: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """The loss of a student against its teacher, averaged over the batch.

    Args:
        logits: (B, K), the student's.
        taught: (B, K), the teacher's.
        temperature: T > 0: the Kullback-Leibler divergence from the teacher's to the student's probabilities, both at
            temperature T, times T**2, by which its gradients keep their size (Hinton et al. 2015). 0: the cross
            entropy with the teacher's likeliest class as the label (Touvron et al. 2021).

    Returns:
        (), float32.
    """
    if temperature == 0.0:
        return functional.cross_entropy(logits, taught.argmax(dim=1))
    student, teacher = ((of / temperature).log_softmax(dim=1) for of in (logits, taught))
    return functional.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2
