"""Pictures of highway-env on machines without a screen."""

from __future__ import annotations

from typing import Any

import gymnasium as gym


class OffscreenRendering(gym.Wrapper[Any, Any, Any, Any]):
    """``rgb_array`` pictures whatever ``SDL_VIDEODRIVER`` says.

    highway-env draws nothing, and returns a black picture, where that variable is ``dummy``, as it is on servers;
    off the screen no driver is needed.
    """

    def render(self) -> Any:
        """See :class:`gymnasium.Env`."""
        env: Any = self.unwrapped
        if env.render_mode == "rgb_array":
            from highway_env.envs.common.graphics import EnvViewer

            if env.viewer is None:
                env.viewer = EnvViewer(env)
            env.viewer.enabled = True
        return self.env.render()
