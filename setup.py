"""The package: versions, what it needs, what it ships."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+?)"', (HERE / "rql_lightning/__init__.py").read_text(encoding="utf-8"))[1]

setup(
    name="rql-lightning",
    version=VERSION,
    description="Policy customization with residual Q-learning, on PyTorch Lightning and TorchRL",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    python_requires=">=3.10",
    packages=find_packages(include=["rql_lightning", "rql_lightning.*"]),
    package_data={"rql_lightning": ["py.typed", "pretrained/*", "reporting/*.csv", "reporting/html/templates/*"]},
    install_requires=[
        "torch>=2.6",
        "tensordict>=0.14,<0.15",
        "torchrl>=0.14,<0.15",
        "pytorch-lightning>=2.6,<3",
        "gymnasium>=1.4,<2",
        "highway-env>=1.12,<1.13",  # brings pygame-ce, which also draws Gymnasium's classic control
        "numba>=0.61",
        "jsonargparse[signatures]>=4.53,<5",
        "numpy>=1.26",
        "tensorboard>=2.18",
        "matplotlib>=3.8",
        "pillow>=10",
        "jinja2>=3.1",
        "rich>=13",
    ],
    extras_require={
        "minari": ["minari[hdf5]>=0.5.3,<0.6"],
        "flows": ["zuko>=1.4,<2"],
        "diffusion": ["diffusers>=0.30"],
        "video": ["av>=14"],
        "onnx": ["onnx>=1.18", "onnxscript>=0.5"],
        "safetensors": ["safetensors>=0.5"],
        "mujoco": ["gymnasium[mujoco]>=1.4,<2"],
        "stable-baselines3": ["stable-baselines3>=2.7"],
        "bench-jax": ["sbx-rl>=0.20"],
        "reproduce": ["scipy>=1.15"],
        "slurm": ["scipy>=1.15", "submitit>=1.5"],
        "ray": ["scipy>=1.15", "ray>=2.40"],
        "docs": [
            "mkdocs>=1.6,<2",
            "mkdocs-material>=9.6,<10",
            "mkdocstrings[python]>=1,<2",
            "latex2mathml>=3.78,<4",
        ],
        "dev": [
            "minari[hdf5]>=0.5.3,<0.6",
            "zuko>=1.4,<2",
            "diffusers>=0.30",
            "av>=14",
            "scipy>=1.15",
            "submitit>=1.5",
            "pytest>=8",
            "pytest-xdist>=3.6",
            "pytest-randomly>=4",
            "hypothesis>=6.100",
            "ruff>=0.9",
            "mypy>=1.14",
            "import-linter>=2.5",
            "pre-commit>=4",
            "stable-baselines3>=2.7",
            "sb3-contrib>=2.7",
            "onnx>=1.18",
            "onnxscript>=0.5",
            "onnxruntime>=1.20",
            "safetensors>=0.5",
            "gymnasium[mujoco]>=1.4,<2",
        ],
    },
)
