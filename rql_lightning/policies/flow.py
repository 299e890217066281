"""Neural spline flows, for priors of any shape; they need the library zuko (extra ``flows``)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, distributions, nn

from rql_lightning import functional
from rql_lightning.errors import ConfigurationError
from rql_lightning.policies.families import Continuous

CANDIDATES = 64
"""Number of noises whose images are compared to find a flow's most probable action."""
SPREAD = 2.0
"""Factor of u, so that the splines cover every float32 action; the outermost is EDGE = tanh(8.66)."""


class Flow(Continuous):
    """Distributions of a = tanh(2 v), where a neural spline flow (Durkan et al. 2019) maps v to standard normal noise.

    The parameters ``[..., C]`` are the context of the flow, the outputs of a network of the observation. Outside
    [−5, 5], the splines are the identity, so the density is learnt for |u| <= 10, u = 2 v, and normal beyond.

    Args:
        dimensions: Number of action dimensions A.
        context: Size of the context, C.
        bins: Number of bins of each spline.
        transforms: Number of autoregressive transformations.
        hidden_sizes: Width of each hidden layer of the network that returns the splines.

    Attributes:
        module: The flow, a module with trainable weights, which the policy registers; empty on the meta device.

    Raises:
        ConfigurationError: If zuko is not installed.
    """

    def __init__(
        self,
        dimensions: int,
        context: int,
        bins: int = 8,
        transforms: int = 2,
        hidden_sizes: tuple[int, ...] = (64, 64),
    ) -> None:
        super().__init__(dimensions)
        try:
            from zuko.flows import NSF
        except ImportError as error:
            expected = "pip install 'rql-lightning[flows]', which brings it"
            raise ConfigurationError(
                f"model.family: found 'flow' without the library zuko, expected {expected}"
            ) from error
        self.size = context
        sizes = {"bins": bins, "transforms": transforms, "hidden_features": hidden_sizes}
        # zuko derives masks from numbers, of which the meta device has none. Sizes are checked there,
        # and the context's is that of the network's outputs as well.
        on_meta = torch.empty(0).is_meta
        self.module: nn.Module = nn.Module() if on_meta else NSF(dimensions, context, **sizes)

    def distribution(self, parameters: Tensor) -> distributions.Distribution:
        """Return a transformed flow; near the bounds use :meth:`pre_tanh_log_prob` for log-densities."""
        transforms = [distributions.AffineTransform(0.0, SPREAD), distributions.TanhTransform()]
        return distributions.TransformedDistribution(self.module(parameters), transforms, validate_args=False)

    def _density(self, parameters: Tensor, pre_tanh: Tensor) -> Tensor:
        """Return the log-density of u, ``[...]``."""
        return self.module(parameters).log_prob(pre_tanh / SPREAD) - self.dimensions * math.log(SPREAD)

    def pre_tanh_log_prob(self, parameters: Tensor, pre_tanh: Tensor) -> Tensor:
        """Return log π(tanh u|s) = log-density of the flow at u − log |det ∂a/∂u|, ``[...]``."""
        return self._density(parameters, pre_tanh) - functional.squash_log_det(pre_tanh)

    def from_noise(self, parameters: Tensor, noise: Tensor) -> Tensor:
        """Return the u that the flow maps to the noise, ``[..., A]``."""
        shape = torch.broadcast_shapes(parameters.shape[:-1], noise.shape[:-1])
        return SPREAD * self.module(parameters).transform.inv(noise.expand(*shape, -1))

    @torch.no_grad()
    def mode(self, parameters: Tensor) -> Tensor:
        """Return tanh of the u of highest density among the images of fixed noises, ``[..., A]``."""
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(CANDIDATES, self.dimensions, generator=generator).to(parameters)
        noise = torch.cat([torch.zeros_like(noise[:1]), 0.7 * noise])  # the densest part of the base distribution
        pre_tanh = self.from_noise(parameters.unsqueeze(-2), noise)
        best = self._density(parameters.unsqueeze(-2), pre_tanh).argmax(dim=-1)
        index = best[..., None, None].expand(*best.shape, 1, self.dimensions)
        return torch.tanh(pre_tanh.gather(-2, index).squeeze(-2))
