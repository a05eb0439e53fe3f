"""The four architectures, one file each: a configuration in, a module from (B, 1, 48, 48) to (B, 7) logits out."""

from torch import nn

from fer_sweep.config.trial import DeeperCNNConfig, ResNet18Config, SimpleCNNConfig, TrialConfig, ViTConfig


def build_model(config: TrialConfig) -> nn.Module:
    """Build the architecture a configuration asks for, on the CPU, with weights from torch's global RNG.

    Args:
        config: Any of the four architectures; its size fields and ``dropout`` are read, nothing else.

    Returns:
        A module that maps normalised faces (B, 1, 48, 48) float32 to logits (B, 7) in the order of
        ``records.CLASSES``.

    Raises:
        WeightsUnavailable: Pretrained weights are asked for and are neither on disk nor downloadable.
    """
    # Inner imports: torchvision and transformers take seconds, and a trial needs one of them at most.
    match config:
        case SimpleCNNConfig():
            from fer_sweep.models import simple_cnn

            return simple_cnn.build(config)
        case DeeperCNNConfig():
            from fer_sweep.models import deeper_cnn

            return deeper_cnn.build(config)
        case ResNet18Config():
            from fer_sweep.models import resnet18

            return resnet18.build(config)
        case ViTConfig():
            from fer_sweep.models import vit

            return vit.build(config)
