"""Schema of the optimizers: AdamW of any network, and what the diffusion transformer may choose."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt
from typing_extensions import Doc

from trainer.layout.optimizer import OptimizerKind

Share = Annotated[float, Ge(0), Le(1)]


@dataclass
class AdamConfig:
    """AdamW with warm-up, constant and decay phases."""

    lr: Annotated[float, Gt(0), Doc("Peak learning rate at model.base_width.")] = 5e-3
    beta1: Annotated[
        float, Ge(0), Lt(1), Doc("Memory of AdamW's mean gradient, a factor a step.")
    ] = 0.9
    beta2: Annotated[
        float, Ge(0), Lt(1), Doc("Memory of AdamW's mean squared gradient, a factor a step.")
    ] = 0.98
    eps: Annotated[
        float,
        Gt(0),
        Doc(
            "What AdamW adds to the root of the mean square before it divides by it. Gradients "
            "fall with the width; 1e-12 leaves those of every model alone (docs/log.md)."
        ),
    ] = 1e-8
    weight_decay: Annotated[
        float,
        Ge(0),
        Doc("Decoupled decay of weights a step, as a factor of the learning rate; 0 turns it off."),
    ] = 0.0
    warmup: Annotated[
        Share, Doc("Share of the run spent rising linearly from 0 to the peak rate.")
    ] = 0.05
    decay: Annotated[Share, Doc("Share of the run spent falling linearly to 0.")] = 0.3
    clip: Annotated[float, Ge(0), Doc("Largest global gradient norm; 0 turns clipping off.")] = 1.0
    ema_sigma: Annotated[
        float,
        Gt(0),
        Lt(0.28),
        Doc("Width of the power-function EMA as a share of the run (EDM2, Karras et al. 2024)."),
    ] = 0.04


@dataclass
class OptimConfig(AdamConfig):
    """An optimizer with warm-up, constant and decay phases, over roles (models/roles.py)."""

    kind: Annotated[
        OptimizerKind,
        Doc(
            "adamw, or muon: orthogonal updates of the matrices of blocks, as large as AdamW's at "
            "model.base_width and of a spectral norm that no width changes; AdamW for the rest."
        ),
    ] = OptimizerKind.adamw
    momentum: Annotated[
        float, Ge(0), Lt(1), Doc("Memory of Muon's mean gradient, a factor a step (Nesterov).")
    ] = 0.95

    decay_by_width: Annotated[
        bool,
        Doc(
            "Whether a step takes less of the weights of a wide model, as the rate of matrices "
            "falls with the width under muP; false takes optim.lr times optim.weight_decay of "
            "them at every width."
        ),
    ] = True
