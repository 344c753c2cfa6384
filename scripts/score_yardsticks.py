r"""Score weights of DRSformer-S on the frozen yardsticks, beside the scores of the first generation.

    python scripts/score_yardsticks.py --data datasets/DRSformer-S --real photographs/real
    python scripts/score_yardsticks.py --data datasets/DRSformer-S --real photographs/real -w net_g_latest.pth \
        --only rain100l patterns --save scores.json

PSNR is that of the rain200 protocol, in dB, of 8-bit results of `drsformer_arch.Restorer` in float32; NIQE is that of
`drsformer evaluate`. Means of PSNR count a picture that is left exactly as it is as 100 dB. Pictures that are not those
of `options/DRSformer-S/yardsticks.json` are refused. All weights are run as the shipped ones: in their tiles, the
picture of 12 megapixels at the scale that they choose for it.

`options/DRSformer-S/yardstick_scores.json` has the first generation's scores of every picture; --save writes others.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yardsticks
from tqdm import tqdm

from drsformer_arch import Restorer
from drsformer_arch.evaluate.evaluation import score_pictures
from drsformer_arch.evaluate.score_names import NIQE
from drsformer_arch.images.pictures import Picture
from drsformer_arch.metrics import calculate_psnr_rain200
from drsformer_arch.restore.weights import DEFAULT, SHIPPED_HABITS
from drsformer_arch.restore.working_scale import automatic_scale
from drsformer_arch.system.errors import UserError, did_you_mean
from drsformer_arch.system.files import write_atomically

PARTS = (
    "rain100l",
    "rain800",
    "rain200h",
    "drawn",
    "clean",
    "photographs",
    "patterns",
    "rainy_patterns",
    "large",
    "real",
)
NEED_DATA = PARTS[:5]
FIRST = yardsticks.FROZEN.with_name("yardstick_scores.json")
BEST = 100.0  # dB, of equal pictures

Scores = dict[str, dict[str, float]]  # by picture: before and after


def psnr(picture: Picture, clean: Picture) -> float:
    """Score a picture by PSNR of the rain200 protocol in dB, at most `BEST`."""
    return min(calculate_psnr_rain200(picture, clean, channel_order="rgb"), BEST)


def niqe(picture: Picture) -> float:
    """Score a picture by NIQE; NaN where it is too small."""
    return score_pictures(picture, None, (NIQE,)).get(NIQE, float("nan"))


def score_part(part: str, restorer: Restorer, data: Path | None, real: Path | None) -> Scores:
    """Score every picture of a part before and after: by PSNR, or NIQE of photographs of real rain.

    Raises:
        UserError: pictures are missing or others than those that were frozen.
    """
    frozen = yardsticks.load()
    scores: Scores = {}
    if part == "real":
        assert real is not None
        for name, rainy in _shown(part, yardsticks.check_real(frozen["real"], real), len(frozen["real"])):
            scores[name] = {"rainy": niqe(rainy), "derained": niqe(restorer(rainy))}
        return scores
    expected, pairs = _pairs(part, frozen, data)
    for pair in _shown(part, pairs, len(expected)):
        rainy = pair.rainy
        if part == "clean":
            rainy = pair.clean
        derained = restorer(rainy)
        scores[pair.name] = {"rainy": psnr(rainy, pair.clean), "derained": psnr(derained, pair.clean)}
    return scores


def _pairs(
    part: str, frozen: dict[str, Any], data: Path | None
) -> tuple[dict[str, Any], Iterable[yardsticks.Yardstick]]:
    if part in NEED_DATA:
        assert data is not None
        if part == "drawn":
            return frozen["drawn"], yardsticks.check_pairs(part, frozen["drawn"], yardsticks.drawn(data))
        name = "rain800" if part == "clean" else part
        expected = frozen["validation"][name]
        return expected, yardsticks.check_pairs(name, expected, yardsticks.validation(data, name))
    if part in ("patterns", "rainy_patterns"):
        expected = frozen["patterns"]
        rainy = yardsticks.check_pairs(
            part, expected, (yardsticks.pattern(number)[1] for number in range(len(expected)))
        )
        if part == "rainy_patterns":
            return expected, rainy
        return expected, (pair._replace(rainy=pair.clean) for pair in rainy)
    source = yardsticks.photographs() if part == "photographs" else iter([yardsticks.large()])
    return frozen[part], yardsticks.check_pairs(part, frozen[part], source)


def _shown(part: str, pictures: Iterable[Any], count: int) -> Iterable[Any]:
    return tqdm(pictures, desc=part, total=count, unit="picture", delay=2, leave=False, disable=None)


def summary(part: str, scores: Scores) -> dict[str, float]:
    """Sum up a part by what is promised of it: means, the worst picture, how many reach the aim."""
    before, after = (np.array([score[key] for score in scores.values()]) for key in ("rainy", "derained"))
    if part == "real":
        return {"NIQE rainy": float(np.nanmean(before)), "NIQE derained": float(np.nanmean(after))}
    if part in ("clean", "photographs", "patterns"):
        aim = {"clean": 38, "photographs": 42, "patterns": 40}[part]
        return {"mean": float(after.mean()), "worst": float(after.min()), f"of {aim} dB": int((after >= aim).sum())}
    return {
        "rainy": float(before.mean()),
        "mean": float(after.mean()),
        "gain": float((after - before).mean()),
        "better": int((after > before).sum()),
    }


def table(all_scores: dict[str, Scores], first: dict[str, Scores]) -> str:
    """Markdown: a row per score of every part, with the first generation's."""
    lines = ["| yardstick | pictures | score | first generation | these weights |", "|---|---|---|---|---|"]
    for part, scores in all_scores.items():
        before = summary(part, first[part]) if part in first else {}
        for name, value in summary(part, scores).items():
            then, now = (_cell(one) for one in (before.get(name), value))
            lines.append(f"| {part} | {len(scores)} | {name} | {then} | {now} |")
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.2f}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="where scripts/prepare_drsformer_s.sh has put its data")
    parser.add_argument("--real", type=Path, metavar="FOLDER", help="folder of the 20 photographs of real rain")
    parser.add_argument("-w", dest="weights", default=DEFAULT, help="default: the shipped ones")
    parser.add_argument("--only", nargs="+", default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--every", action="store_true", help="also print the scores of every picture")
    parser.add_argument("--save", type=Path, metavar="JSON", help="scores of every picture; parts that it has are kept")
    args = parser.parse_args(argv)
    try:
        for part in args.only:
            if part not in PARTS:
                raise UserError(f"--only {part}: there is no such part{did_you_mean(part, PARTS)}")
            if part in NEED_DATA and args.data is None:
                raise UserError(
                    f"{part} needs --data, the folder of scripts/prepare_drsformer_s.sh; or choose by --only"
                )
            if part == "real" and args.real is None:
                raise UserError("real needs --real, the folder of the 20 photographs; or see --only")
        first = json.loads(FIRST.read_text()) if FIRST.exists() else {}
        scores: dict[str, Scores] = {}
        tiles: dict[str, Any] = {"tile": SHIPPED_HABITS.tile, "overlap": SHIPPED_HABITS.overlap}
        restorer = Restorer(args.weights, **tiles, scale=1)
        smaller = Restorer(args.weights, **tiles, scale=automatic_scale(*yardsticks.LARGE_SIZE))
        for part in args.only:
            scores[part] = score_part(part, smaller if part == "large" else restorer, args.data, args.real)
            print(table({part: scores[part]}, first).split("\n", 2)[2], flush=True)
            if args.every:
                print("\n".join(f"{name}: {_both(both)}" for name, both in scores[part].items()), flush=True)
            if args.save is not None:
                known = json.loads(args.save.read_text()) if args.save.exists() else {}
                write_atomically(args.save, _text({**known, part: scores[part]}).encode())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n" + table(scores, first))
    return 0


def _both(both: dict[str, float]) -> str:
    return f"{both['rainy']:.2f} -> {both['derained']:.2f}"


def _text(all_scores: dict[str, Scores]) -> str:
    """Write scores as JSON with a line per picture."""
    parts = []
    for part, scores in all_scores.items():
        lines = ",\n".join(
            f"  {json.dumps(name)}: {json.dumps({key: round(value, 3) for key, value in both.items()})}"
            for name, both in scores.items()
        )
        parts.append(f" {json.dumps(part)}: {{\n{lines}\n }}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    sys.exit(main())
