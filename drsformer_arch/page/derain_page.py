"""One HTML file that derains in a browser: the network, what runs it, and what a person does with it.

The page needs nothing but itself, and its Content-Security-Policy lets it load and send nothing: pictures stay where
they are. Results are those of `Restorer`, whole or with the same tiles.
"""

import base64
import gzip
import html
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

from drsformer_arch import __version__
from drsformer_arch.archs.contract import Contract, contract_of
from drsformer_arch.page.ort_web import LICENCE, VERSION, OrtWeb, read_ort_web
from drsformer_arch.page.pieces import asset, assets, hash_of, head, viewer
from drsformer_arch.restore.export import export
from drsformer_arch.restore.networks import kind_of, network_of
from drsformer_arch.restore.onnx_program import OnnxProgram, import_onnxruntime
from drsformer_arch.restore.outline import outline
from drsformer_arch.restore.weights import SHIPPED_HABITS, Habits, find_weights, is_shipped
from drsformer_arch.restore.working_scale import LARGEST_PIXELS
from drsformer_arch.system import escapes
from drsformer_arch.system.errors import UserError
from drsformer_arch.system.files import atomic_file, refuse_unwritable

ONNX = ".onnx"
TITLE = "Take the rain out of a picture"
LARGEST_MEGAPIXELS = 50  # of a picture, which is decoded whole
MOST_PIXELS = 512**2  # computed at once, fewer where a network takes much memory
MOST_BYTES = 1_800_000_000  # of memory for them, by the network's contract; WebAssembly has 4 GiB at most
SECONDS_PER_PIXEL = 2e-5  # that the progress of the first picture is guessed from
EXPECT = (
    (
        "What it does",
        "It removes thin and medium streaks of rain and leaves colours and texture as they are. What it takes for rain "
        "was learned from pairs of rainy and clean pictures.",
    ),
    (
        "What it cannot do",
        "Haze of far rain, drops on the lens, splashes and snow stay. Thick, dense rain gets weaker and stays visible. "
        "Thin bright lines of the scene, such as wires and blinds, may be taken for rain. What was behind the rain "
        "is guessed: a result is no evidence of what was there.",
    ),
)


class Page(NamedTuple):
    """A page that was written."""

    path: Path
    network: dict[str, Any]  # `type` and arguments


def write_derain_page(
    weights: Path | str,
    out: Path,
    *,
    ort_web: Path | None = None,
    param_key: str | None = None,
    notes: Mapping[str, str] | None = None,
) -> Page:
    """Write a page that derains.

    Args:
        weights: a checkpoint, own or published, the name of shipped weights, or an .onnx file of `drsformer export`.
        out: of the HTML file; there is the old file or the new one, never a part.
        ort_web: the folder of ONNX Runtime Web; default: where `scripts/fetch_onnxruntime_web.sh` puts it.
        param_key: which weights of the checkpoint; default: the averaged ones if there are.
        notes: shown on the page, such as the data and the licence of the weights; not Network, Weights, Version,
            which are ours.

    Raises:
        UserError: weights that cannot be used, a network that does not run in browsers, ONNX Runtime Web or a package
            is missing.
        OSError: the folder is not writable, the disk is full.
    """
    runtime = read_ort_web(ort_web)
    import_onnxruntime()
    refuse_unwritable(out)
    notes = notes or {}
    if reserved := notes.keys() & {"Network", "Weights", "Version"}:
        raise UserError(f"the note {min(reserved)} has its meaning already; give it another name")
    program = OnnxProgram(weights) if Path(weights).suffix == ONNX else None
    network = program.network if program else network_of(weights, param_key)[0]
    contract = contract_of(outline(*kind_of(network, weights), f"{weights}: network"))
    _refuse(network["type"], contract)
    if program:
        model = program.path.read_bytes()
    else:
        with tempfile.TemporaryDirectory() as folder:
            exported = export(weights, Path(folder, f"network{ONNX}"), "onnx", param_key=param_key, notes=notes)
            network, model = exported.network, exported.path.read_bytes()
    facts = {"Network": network["type"], "Weights": Path(weights).name, **notes}
    with atomic_file(out) as file:
        file.write(derain_html(model, contract, runtime, facts, shipped=is_shipped(find_weights(weights))).encode())
    return Page(out, network)


def _refuse(name: str, contract: Contract) -> None:
    """Refuse networks that do not run in browsers.

    Raises:
        UserError: and why.
    """
    reason = None
    if contract.not_as_onnx:
        reason = contract.not_as_onnx
    elif contract.patch_size:
        reason = f"it takes pictures of {contract.patch_size}x{contract.patch_size} pixels alone"
    elif contract.picture_channels != 3:
        reason = "it takes no pictures in colour"
    if reason:
        raise UserError(f"{name} is not written as a page: {reason}; use drsformer derain")


def derain_html(
    model: bytes, contract: Contract, runtime: OrtWeb, facts: Mapping[str, str], *, shipped: bool = False
) -> str:
    """Return the page.

    Args:
        model: an ONNX file of `drsformer export` that takes pictures of any size.
        contract: of its network.
        runtime: what runs it.
        facts: label and value, shown at the end.
        shipped: as `Restorer` does with shipped weights, look for rain in large pictures at a smaller size, in tiles.
    """
    habits = SHIPPED_HABITS if shipped else Habits()
    packed = {"runtime": runtime.script, "program": runtime.program, "model": model}
    settings = {
        "parts": list(packed),
        "multiple": contract.size_multiple,
        "smallest": contract.smallest_size,
        "pixels": min(MOST_PIXELS, MOST_BYTES // contract.bytes_per_pixel),
        "largest": LARGEST_MEGAPIXELS,
        "largestWhole": LARGEST_PIXELS if shipped else 0,
        "tile": habits.tile,
        "overlap": habits.overlap,
        "seconds": SECONDS_PER_PIXEL,
    }
    style, script = assets("base.css", "viewer.css", "derain.css"), assets("viewer.js", "derain.js")
    # The worker and the runtime in it are blobs that the page makes of itself. Nothing is named that could be reached.
    policy = (
        f"default-src 'none'; img-src blob: data:; style-src {hash_of(style)}; worker-src blob:; "
        f"script-src {hash_of(script)} blob: 'wasm-unsafe-eval'; base-uri 'none'; form-action 'none'"
    )
    facts = {**facts, "Version": f"drsformer-basicsr {__version__}"}
    return Template(asset("derain.html")).substitute(
        head=head(TITLE, style, policy),
        title=TITLE,
        script=script,
        viewer=viewer(),
        settings=json.dumps(settings),
        engine=assets("png.js", "photographs.js", "engine.js"),
        network=asset("network.js"),
        data="\n".join(
            f'<script type="text/plain" id="{name}">{_packed(part)}</script>' for name, part in packed.items()
        ),
        expect="\n".join(f"<div><h3>{title}</h3>\n<p>{text}</p></div>" for title, text in EXPECT),
        facts="".join(
            f"<div><dt>{escapes.html(label)}</dt><dd>{escapes.html(value)}</dd></div>" for label, value in facts.items()
        ),
        runtime=VERSION,
        licence=html.escape(LICENCE),
    )


def _packed(content: bytes) -> str:
    """Pack content as text for a page: gzip, which browsers unpack, without a date, in base64."""
    return base64.b64encode(gzip.compress(content, mtime=0)).decode()
