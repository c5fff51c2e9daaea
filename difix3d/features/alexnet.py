"""The convolutions of AlexNet in its single-tower form (Krizhevsky 2014, "One weird trick"), for LPIPS."""

from jaxtyping import Float
from torch import Tensor, nn

from difix3d.features import weights


class AlexNet(nn.Module):
    """Keys of the parameters as in torchvision (``features.N.weight``)."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(inplace=True),
        )

    @classmethod
    def pretrained(cls) -> "AlexNet":
        """As trained on ImageNet, frozen; :class:`difix3d.errors.UserError` if its file is not to be had."""
        return weights.fill(cls(), weights.ALEXNET)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> list[Tensor]:
        """The five activations [B,C,h,w] of images after :func:`difix3d.features.imagenet_normalize`."""
        found = []
        x = images
        for module in self.features:
            x = module(x)
            if isinstance(module, nn.ReLU):
                found.append(x)
        return found
