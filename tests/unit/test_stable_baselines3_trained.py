"""Models of Stable-Baselines3 that were trained for a moment: their files hold more than those of new ones."""

from __future__ import annotations

import pytest
from sb3_models import make

from rql_lightning.priors import StableBaselines3Prior

OPTIONS = {"dqn": {"temperature": 0.7}, "qrdqn": {"temperature": 0.7}, "td3": {"scale": 0.2}, "ddpg": {"scale": 0.2}}


@pytest.mark.parametrize("kind", ["dqn", "qrdqn", "a2c", "a2c_box", "sac", "sac_gsde", "tqc", "td3", "ddpg"])
def test_trained_models_are_read(kind, tmp_path):
    """Off-policy models keep ``_last_original_obs`` with and without ``VecNormalize``."""
    model = make(kind)
    model.learn(20)
    model.save(tmp_path / "model.zip")
    prior = StableBaselines3Prior(str(tmp_path / "model.zip"), **OPTIONS.get(kind, {}))
    assert prior.normalization is None and prior.gamma == model.gamma
