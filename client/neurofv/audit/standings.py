"""What an audit's pictures amount to: figures of each, and of each unit under each strategy."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import median
from typing import Any

from neurofv.audit.agreement import correlation
from neurofv.audit.folder import DATASET, Folder
from neurofv.audit.plan import Plan
from neurofv.audit.tasks import NO_CONTROL, RANDOM_WEIGHTS, Key, Unit

_DEAD = "STOP_REASON_DEAD"
_OF_A_TERM = (
    "activation",
    "percentile",
    "real_p95",
    "real_maximum",
    "ratio_to_best",
    "selectivity_rank",
    "layer_units",
)
_OF_A_PICTURE = (
    "step",
    "stop_reason",
    "redirected_steps",
    "spectrum_distance",
    "saturated_share",
    "total_variation",
    "smallest_jacobian",
    "largest_jacobian",
    "transfer",
    "path",
)


@dataclass(frozen=True)
class Figures:
    """Figures of a unit under one strategy, of the network or of the random one: medians over seeds.

    Attributes
    ----------
    seed_agreement : float or None
        Correlation between the pictures of two seeds.
    selectivity : float or None
        Share of the layer's other units that fire less on the picture: 1 if none fires as strongly.
    transfer : float or None
        Probability that the second model gives to the class; without one to name, None.
    percentile : float or None
        Share of real held-out images on which the unit fires less.
    held_out : float or None
        Share of the activation that is left under transforms that were not trained on.
    path : float or None
        Similarity of activations to real images' of the class, mean over layers.
    """

    seed_agreement: float | None
    selectivity: float | None
    transfer: float | None
    percentile: float | None
    held_out: float | None
    path: float | None

    def content(self) -> dict[str, float | None]:
        """Return them as the report has them."""
        return asdict(self)


@dataclass(frozen=True)
class Standing:
    """How a unit's pictures stand under one strategy.

    Attributes
    ----------
    strategy : str
        Which.
    own : Figures
        Of the network.
    random : Figures or None
        Of the random network.
    own_vs_random : float or None
        Correlation of the network's picture with the random network's of another seed, median.
    pictures : int
        The network's.
    """

    strategy: str
    own: Figures
    random: Figures | None
    own_vs_random: float | None
    pictures: int

    @property
    def pairs(self) -> int:
        """Pairs of seeds."""
        return self.pictures * (self.pictures - 1) // 2


def keys_of(folder: Folder, plan: Plan, unit: Unit, strategy: str, control: str) -> list[Key]:
    """Return the pictures of a unit that are there and alive, by seed."""
    keys = [Key(unit.id, strategy, seed, control) for seed in plan.seeds]
    return [key for key in keys if key in folder.pictures and not is_dead(folder, key)]


def is_dead(folder: Folder, key: Key) -> bool:
    """Say whether the unit had no gradient, so that the picture is its start."""
    return bool(folder.pictures[key]["evaluation"].get("stop_reason") == _DEAD)


def picture(folder: Folder, key: Key) -> dict[str, Any]:
    """Return a picture as the report has it."""
    files = folder.pictures[key]["audit"]["files"]
    place = {name: (DATASET / file["file"]).as_posix() for name, file in files.items()}
    extras = {
        name: {"volume": place[name], "sha256": files[name]["sha256"]} for name in files if name != "final"
    }
    return {
        "strategy": key.strategy,
        "seed": key.seed,
        "control": key.control,
        "volume": place["final"],
        "sha256": files["final"]["sha256"],
        "sidecar": place["final"].removesuffix(".nii.gz") + ".json",
        "extras": extras,
        "evaluation": evaluation(folder.pictures[key]),
    }


def evaluation(sidecar: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of a picture, flat; None for what is not known."""
    whole = sidecar["evaluation"]
    term = whole["terms"][0]
    held = term.get("held_out", {})
    found: dict[str, Any] = {name: term.get(name) for name in _OF_A_TERM}
    found |= {f"held_out_{name}": held.get(name) for name in ("activation", "mean", "p5")}
    found |= {name: whole.get(name) for name in _OF_A_PICTURE}
    found["path"] = found["path"] or None
    return found


def standing(folder: Folder, plan: Plan, unit: Unit, strategy: str) -> Standing:
    """Return how a unit's pictures stand under a strategy.

    Parameters
    ----------
    folder : Folder
        Has the pictures.
    plan : Plan
        Has the seeds, and says whether there is a control.
    unit : Unit
        Which unit.
    strategy : str
        Which strategy.
    """
    own = keys_of(folder, plan, unit, strategy, NO_CONTROL)
    random = keys_of(folder, plan, unit, strategy, RANDOM_WEIGHTS)
    # The same seed draws the same noise, which is alike in both and says nothing of the weights.
    pairs = [(one, other) for one in own for other in random if one.seed != other.seed or len(own) == 1]
    alike = [correlation(folder.change(one), folder.change(other)) for one, other in pairs]
    return Standing(
        strategy,
        _figures(folder, own),
        _figures(folder, random) if plan.random_weights else None,
        _median(alike),
        len(own),
    )


def _figures(folder: Folder, keys: list[Key]) -> Figures:
    agreements = [
        correlation(folder.change(one), folder.change(other)) for one, other in combinations(keys, 2)
    ]
    each = [evaluation(folder.pictures[key]) for key in keys]

    def over_seeds(read: Callable[[dict[str, Any]], float | None]) -> float | None:
        return _median([value for value in map(read, each) if value is not None])

    return Figures(
        seed_agreement=_median(agreements),
        selectivity=over_seeds(_selectivity),
        transfer=over_seeds(lambda found: (found["transfer"] or {}).get("probability")),
        percentile=over_seeds(lambda found: found["percentile"]),
        held_out=over_seeds(_held_out),
        path=over_seeds(_path),
    )


def _selectivity(found: dict[str, Any]) -> float | None:
    rank, units = found["selectivity_rank"], found["layer_units"]
    return None if not rank or not units or units < 2 else 1 - (rank - 1) / (units - 1)


def _held_out(found: dict[str, Any]) -> float | None:
    # A share needs an activation above 0 to be one of.
    rest, moved = found["held_out_activation"], found["held_out_mean"]
    return moved / rest if rest is not None and moved is not None and rest > 0 else None


def _path(found: dict[str, Any]) -> float | None:
    layers = found["path"]
    return sum(layer["similarity"] for layer in layers) / len(layers) if layers else None


def _median(values: list[float]) -> float | None:
    return median(values) if values else None
