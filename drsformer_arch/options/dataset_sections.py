"""The sections of data sets: ours, the sets of a mixture, and what our loaders read of everybody's."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar, get_args

from annotated_types import Gt, MinLen
from pydantic import BeforeValidator, model_validator

from drsformer_arch.options import kinds
from drsformer_arch.options.kinds import Said
from drsformer_arch.options.section_base import Section, basicsr, fork, option, refusal
from drsformer_arch.rain.rain_presets import PRESETS, RAINS, Preset
from drsformer_arch.system.errors import UserError, did_you_mean

NAMES = ("PairedRainDataset", "Dataset_PairedImage", "RainSynthesisDataset", "MixedRainDataset")
OF_OTHERS: dict[str, Any] = {"not": {"enum": NAMES}}
INHERITED = ("phase", "scale", "gt_size", "use_hflip", "use_rot")  # by the sets of a mixture


def _refuse_unknown_rain(value: Any) -> Any:
    for name in [value] if isinstance(value, str) else value if isinstance(value, list | dict) else ():
        if isinstance(name, str) and name not in PRESETS:
            raise refusal(f": unknown kind of rain {name!r}{did_you_mean(name, PRESETS)}")
    return value


Weight = Annotated[float, Gt(0), Said("a finite number above 0")]
Rains = Annotated[
    Preset | Annotated[list[Preset], MinLen(1)] | Annotated[dict[Preset, Weight], MinLen(1)],
    BeforeValidator(_refuse_unknown_rain),
    Said("a name, a list of names, or names with weights"),
]


class Backend(Section, extra="allow"):
    """The way in which BasicSR opens files."""

    type: Literal["disk", "lmdb"] = basicsr("what `dataroot_lq` and `dataroot_gt` are")


class Loading(Section):
    """Options that our loaders and BasicSR's read of every data set."""

    num_worker_per_gpu: kinds.Workers = basicsr("processes that read pictures; 0: the main one reads", 0, "processes")
    batch_size_per_gpu: kinds.Batch = basicsr("what a GPU holds at once; needed in a training set", None, "pictures")
    mini_batch_sizes: kinds.BatchOfStages = fork("what a GPU holds at once, stage by stage", None, "pictures")
    gt_sizes: kinds.SideOfStages = fork("side of the training patches, stage by stage", None, "pixels")
    iters: kinds.Lengths = fork("length of each stage of progressive learning", None, "iterations")
    dataset_enlarge_ratio: kinds.Passes = basicsr("how often an epoch goes through the data set", 1, "passes")
    prefetch_mode: Literal["cpu", "cuda"] | None = basicsr(
        "load batches ahead: `cpu` in a thread, `cuda` onto the GPU (needs `pin_memory: true`)", None
    )
    num_prefetch_queue: kinds.Queue = basicsr("how many batches `prefetch_mode: cpu` loads ahead", 1, "batches")
    pin_memory: bool = basicsr("load pictures into memory from which GPUs copy faster", False)
    persistent_workers: bool = basicsr("keep reading processes between epochs", False)

    @model_validator(mode="after")
    def _check_prefetching(self) -> "Loading":
        for key, value in (("prefetch_mode", "cpu"), ("persistent_workers", True)):
            if getattr(self, key) == value and not self.num_worker_per_gpu:
                raise refusal(f": {value} needs num_worker_per_gpu of at least 1", key)
        if self.prefetch_mode == "cuda" and not self.pin_memory:
            raise refusal(": cuda needs pin_memory: true", "prefetch_mode")
        return self


class Patches(Loading):
    """Options that the batch plan reads of a training set, whoever's it is."""

    gt_size: kinds.Side = basicsr("side of the square training patches; needed to train", None, "pixels")

    def stages(self, total_iter: int, effective: int | list[int] | None) -> list[tuple[int, int, int, int | None]]:
        """The stages of progressive learning; one where nothing says that there are several.

        Args:
            total_iter: of the training.
            effective: `train.effective_batch_size`.

        Returns:
            of each stage the pictures of a GPU, the side of its patches, its iterations and its effective batch.

        Raises:
            UserError: a size is missing, lists differ in length, a stage is larger than what is loaded.
        """
        batch, patch = self.batch_size_per_gpu, self.gt_size
        if batch is None or patch is None:
            raise UserError("options datasets.train.batch_size_per_gpu and datasets.train.gt_size are needed to train")
        batches, patches = self.mini_batch_sizes or [batch], self.gt_sizes or [patch]
        iterations = self.iters or [total_iter]
        if not len(batches) == len(patches) == len(iterations):
            raise UserError(
                f"datasets.train: mini_batch_sizes, gt_sizes and iters need equal lengths, not "
                f"{len(batches)}, {len(patches)} and {len(iterations)}"
            )
        if max(batches) > batch or max(patches) > patch:
            raise UserError(
                f"datasets.train: mini_batch_sizes {batches} and gt_sizes {patches} must not exceed "
                f"batch_size_per_gpu {batch} and gt_size {patch}"
            )
        wholes = effective if isinstance(effective, list) else [effective] * len(batches)
        if len(wholes) != len(batches):
            raise UserError(f"train.effective_batch_size has {len(wholes)} entries for {len(batches)} stages")
        return list(zip(batches, patches, iterations, wholes, strict=True))


class Source(Section):
    """Options that every data set of ours reads."""

    type: str = basicsr("the class of the data set")
    name: str = basicsr("name in logs and results; by default that of its section", None)
    use_hflip: bool = basicsr("mirror half of the training patches left and right", True)
    use_rot: bool = basicsr("mirror and transpose training patches: with `use_hflip` all 8 symmetries", True)
    io_backend: Annotated[Backend, Said("disk or lmdb")] = basicsr("how BasicSR opens files", None)
    phase: str = basicsr("what the set is for: always its section's name up to the first `_`", None)
    scale: kinds.Count = basicsr("how much larger clean pictures are than rainy ones: always 1", 1)


class Training(Patches):
    """Options that our data sets read in training only."""

    use_shuffle: kinds.AlwaysTrue = basicsr("training pictures are always shuffled", True)


SOURCES = ({"required": ["dataroot"]}, {"required": ["dataroot_lq", "dataroot_gt"]})  # one of both


class PairedPictures(Source, json_schema_extra={"oneOf": SOURCES}):
    """Pairs from a store, a folder or BasicSR's LMDBs."""

    type: Literal["PairedRainDataset", "Dataset_PairedImage"] = basicsr("the class of the data set")
    dataroot: str = option(
        "a store of `drsformer prepare`, or a folder with `input` and `target`, `lq` and `gt` or the like", None
    )
    dataroot_lq: str = basicsr("rainy pictures: a folder, or an LMDB in BasicSR's layout", None)
    dataroot_gt: str | None = basicsr("clean pictures: a folder, or an LMDB in BasicSR's layout", None)
    partial: bool = option("accept a store of which shards are missing", False)
    stage: str | None = option("folder on the node's own disk, to which the store is copied and where it is read", None)
    filename_tmpl: kinds.Template = basicsr("name of a rainy picture; {} stands for that of the clean one", "{}")
    use_vflip: bool = option("mirror half of the training patches upside down, where `use_rot` is false", False)
    resize: kinds.Factors = option("range from which training draws a factor to resize each pair", None, "factor")

    @model_validator(mode="after")
    def _check(self) -> "PairedPictures":
        if self.dataroot is None:
            if self.dataroot_lq is None:
                raise refusal(" is missing (or dataroot_lq and dataroot_gt)", "dataroot")
            if self.dataroot_gt is None:
                raise refusal(" is missing", "dataroot_gt")
        if self.dataroot is None and self.stage is not None:
            raise refusal(": only a store is staged, which is named as dataroot", "stage")
        for key in ("dataroot_lq", "dataroot_gt", "filename_tmpl"):
            if self.dataroot is not None and key in self.model_fields_set and getattr(self, key) is not None:
                raise refusal(": give either dataroot, or dataroot_lq and dataroot_gt", key)
        return self


class SyntheticRain(Source):
    """Clean pictures on which rain is drawn."""

    type: Literal["RainSynthesisDataset"] = basicsr("the class of the data set")
    dataroot_gt: str = basicsr("clean pictures: a folder, a store, or an LMDB in BasicSR's layout")
    partial: bool = option("accept a store of which shards are missing", False)
    stage: str | None = option("folder on the node's own disk, to which the store is copied and where it is read", None)
    presets: Rains = option(f"kinds of rain to draw, perhaps with weights: {', '.join(PRESETS)}", list(RAINS))
    rain_seed: kinds.Seed = option("seed of the rain in validation and tests, the same every time", 0)
    resize: kinds.Factors = option("range from which training draws a factor to resize each picture", None, "factor")
    drawn_scenes: kinds.Share = option("share of training samples with drawn lines, text, grass, hair or walls", 0)


class CommonOptions(Source, Training):
    """Options of all data sets of ours, whatever their `type`."""


class PairedRainDataset(PairedPictures, Training):
    """`type: PairedRainDataset` (in files of the published fork: Dataset_PairedImage): pairs of pictures."""


class RainSynthesisDataset(SyntheticRain, Training):
    """`type: RainSynthesisDataset`: clean pictures on which rain is drawn anew for every sample."""


class Part(Section):
    """Options that a set of a mixture has beside those of its class; the mixture has the rest for all of them."""

    weight: Weight = option("how many samples of a batch are from this set, relative to the weights of the others", 1)

    @model_validator(mode="before")
    @classmethod
    def _leave_to_the_mixture(cls, values: Any) -> Any:
        for key in (*Training.options(), "phase", "sets"):
            if isinstance(values, dict) and key in values:
                raise refusal(": the mixture has one for all; give it there", key)
        if isinstance(values, dict) and values.get("type") == "MixedRainDataset":
            raise refusal(": a mixture holds no mixtures", "type")
        return values


class PairedRainPart(PairedPictures, Part):
    """A PairedRainDataset among the `sets` of a mixture."""


class RainSynthesisPart(SyntheticRain, Part):
    """A RainSynthesisDataset among the `sets` of a mixture."""


class OtherPart(Part, extra="allow"):
    """Somebody else's data set among the `sets` of a mixture."""

    type: str = option("the class of the data set", **OF_OTHERS)


class OtherDataset(Loading, extra="allow"):
    """Somebody else's data set, which has further keys of its own."""

    type: str = basicsr("the class of the data set", **OF_OTHERS)


def _by_type(ours: Mapping[str, type[Section]], other: type[Section]) -> BeforeValidator:
    """Read a section as the class that its `type` names."""

    def read(section: Any) -> Any:
        if not isinstance(section, dict):
            return section
        return ours.get(str(section.get("type")), other).model_validate(section)

    return BeforeValidator(read)


def _named(*kinds: type[Section]) -> dict[str, type[Section]]:
    """Map every name that the option `type` may have to the section with that `type`."""
    return {name: kind for kind in kinds for name in get_args(kind.model_fields["type"].annotation)}


_PARTS = _named(PairedRainPart, RainSynthesisPart)
AnyPart = Annotated[PairedRainPart | RainSynthesisPart | OtherPart, _by_type(_PARTS, OtherPart)]


class MixedRainDataset(Source, Training):
    """`type: MixedRainDataset`: several data sets as one, for training only."""

    type: Literal["MixedRainDataset"] = basicsr("the class of the data set")
    sets: Annotated[list[AnyPart], MinLen(1), Said("a list of data set sections")] = option(
        "the data sets: sections, each with its `type`, its sources and a `weight`"
    )


OURS = _named(PairedRainDataset, RainSynthesisDataset, MixedRainDataset)
AnyDataset = Annotated[
    PairedRainDataset | RainSynthesisDataset | MixedRainDataset | OtherDataset, _by_type(OURS, OtherDataset)
]
S = TypeVar("S", bound=Training)


def section_of(opt: dict[str, Any], kind: type[S]) -> S:
    """Read the section that one of our data sets, or one that somebody derived from it, is made from.

    Args:
        opt: the section as BasicSR hands it to a data set; it gets a name where it has none.
        kind: of the section. A section of another `type` is of a derived class, whose further keys are left alone.

    Raises:
        UserError: see `Section.read`; a training without the size of its patches.
    """
    where = f"data set {opt.setdefault('name', opt['phase'])}"
    derived = opt.get("type", kind.__name__) not in NAMES
    section = kind.read({**opt, "type": kind.__name__}, where, further_keys=derived)
    if opt["phase"] == "train" and section.gt_size is None:
        raise UserError(f"option {where}.gt_size is missing: the side of the patches in pixels")
    return section
