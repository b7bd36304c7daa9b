"""What happens in a forward pass, seen from outside with hooks: nothing here knows of tracing."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def followers(network: nn.Module, *inputs: Tensor) -> dict[str, str]:
    """Return, for each Linear and Conv2d, the class of the activation module that gets its output, or ''.

    Values are recognised by their content, so that reshapes in between do not hide them; norms are followed.
    """
    network.eval()
    origin: dict[bytes, str] = {}
    found: dict[str, str] = {}

    def content(tensor: Tensor) -> bytes:
        return tensor.detach().flatten().sort().values.numpy().tobytes()

    def hook(path: str, module: nn.Module) -> None:
        def before(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            if type(module).__module__ == "torch.nn.modules.activation" and not list(module.parameters()):
                layer = origin.get(content(args[0]))
                if layer is not None:
                    found.setdefault(layer, type(module).__name__)

        def after(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                origin[content(output)] = path
            elif isinstance(module, (nn.BatchNorm2d, nn.LayerNorm)):
                layer = origin.get(content(args[0]))
                if layer is not None:
                    origin[content(output)] = layer

        # Taken before the module runs: it may work in place.
        module.register_forward_pre_hook(before)
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.BatchNorm2d, nn.LayerNorm)):
            module.register_forward_hook(after)

    for path, module in network.named_modules():
        hook(path, module)
    with torch.no_grad():
        network(*inputs)
    layers = [path for path, module in network.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
    return {path: found.get(path, "") for path in layers}
