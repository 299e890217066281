"""Policies as graphs of operations, which run without this library: programs of ``torch.export``, and ONNX.

TorchScript is not offered: PyTorch deprecates it in favour of ``torch.export``.
"""

from __future__ import annotations

import io
import logging
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from rql_lightning.checkpoints import to_json
from rql_lightning.errors import ConfigurationError, UnsupportedFormatError
from rql_lightning.export.laws import Law, alone, check_same_law, observations, untraceable
from rql_lightning.policies import Policy

INPUT, OUTPUTS = "observation", ["action", "parameters"]
"""Names of the inputs and outputs of a graph (:class:`rql_lightning.export.laws.Law`)."""


def program(policy: Policy) -> ExportedProgram:
    """Trace a policy for batches of any size N ≥ 1, and compare the result with it.

    Raises:
        UnsupportedFormatError: If a part of the policy cannot be traced; names it.
    """
    policy = alone(policy)
    part = untraceable(policy)
    if part is not None:
        raise _refusal(part, "networks alone")
    example, sizes = observations(policy, 2), {INPUT: {0: Dim("batch", min=1)}}
    try:
        with torch.no_grad(), _quiet():
            traced = torch.export.export(Law(policy), (example,), dynamic_shapes=sizes)
    except Exception as error:  # a module of the user's may do anything
        raise _refusal(f"what PyTorch cannot trace ({_reason(error)})", "operations on tensors alone") from error
    check_same_law(policy, traced.module(), "a traced policy (.pt2, .onnx)")  # random numbers differ in both formats
    return traced


def pt2(policy: Policy, about: dict[str, Any]) -> bytes:
    """Return the archive that ``torch.export.load`` reads, with a description as its extra file ``rql_lightning.json``.

    Args:
        policy: The policy.
        about: The description, plain data.

    Raises:
        UnsupportedFormatError: If the policy cannot be traced, or what was written has another law.
    """
    traced, buffer = program(policy), io.BytesIO()
    with _quiet():
        torch.export.save(traced, buffer, extra_files={"rql_lightning.json": to_json(about)})
        written = torch.export.load(io.BytesIO(buffer.getvalue())).module()
    check_same_law(alone(policy), written, "a program of torch.export (.pt2)")
    return buffer.getvalue()


def onnx(policy: Policy, about: dict[str, Any]) -> bytes:
    """Return an ONNX model in one file, with a description as its metadata ``rql_lightning``.

    Args:
        policy: The policy.
        about: The description, plain data.

    Raises:
        UnsupportedFormatError: If the policy cannot be traced, or what was written has another law.
        ConfigurationError: If the libraries onnx and onnxscript are not installed.
    """
    try:
        import onnxscript  # noqa: F401
        from onnx.reference import ReferenceEvaluator
    except ImportError as error:
        expected = "pip install 'rql-lightning[onnx]', which brings onnx and onnxscript"
        raise ConfigurationError(
            f"an ONNX model (.onnx): found no library {error.name}, expected {expected}"
        ) from error
    model = _translated(program(policy))
    model.metadata_props.add(key="rql_lightning", value=to_json(about))
    written = model.SerializeToString()
    evaluator = ReferenceEvaluator(written)

    def law(observation: Tensor) -> tuple[Tensor, ...]:
        return tuple(map(torch.from_numpy, evaluator.run(None, {INPUT: observation.numpy()})))

    check_same_law(alone(policy), law, "an ONNX model (.onnx)")
    return written


def _translated(program: ExportedProgram) -> Any:
    """Return a program as an ONNX model.

    Raises:
        UnsupportedFormatError: If an operation has no counterpart in ONNX.
    """
    names: dict[str, Any] = {"input_names": [INPUT], "output_names": OUTPUTS}
    try:
        with _quiet():
            exported = torch.onnx.export(program, dynamo=True, verbose=False, **names)
    except Exception as error:  # several types, by the stage that fails
        raise UnsupportedFormatError(
            f"an ONNX model (.onnx): found what ONNX does not have ({_reason(error)}), expected its operations alone"
        ) from error
    assert exported is not None
    return exported.model_proto


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress what PyTorch says of its future, of libraries that are not needed, and of what is raised anyway."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.fx.experimental.symbolic_shapes")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _reason(error: Exception) -> str:
    return textwrap.shorten(str(error), 240, placeholder=" …") or type(error).__name__


def _refusal(found: str, expected: str) -> UnsupportedFormatError:
    return UnsupportedFormatError(f"a graph of operations (.pt2, .onnx): found {found}, expected {expected}")
