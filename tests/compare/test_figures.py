"""Figures of comparisons and trainings have room for long names."""

import itertools
import shutil

from matplotlib.backends.backend_agg import FigureCanvasAgg

from drsformer_arch.compare import figures
from drsformer_arch.compare.measurement import ComparedSet, Measurement, Method, MethodScores
from drsformer_arch.plot import training_figure
from drsformer_arch.plot.curves import Curve


def test_long_names_stay_apart_above_their_regions(pairs, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "png", lambda figure: drawn.append(figure) or b"")
    name = "a data set with a name that does not fit above one picture, however small its letters are"
    labels = [f"experiment_{index}_{'with_much_in_its_name_' * 4}" for index in range(4)]
    for label in labels:
        shutil.copytree(pairs / "input", tmp_path / "pictures" / label / name)
    scores = {name: MethodScores(["00", "01"], [30.0, 31.0], [0.9, 0.9], [0.1, 0.1], [0, 1])}
    method = Method("IDT", None, None, None, {}, (ComparedSet(name, {"dataroot": str(pairs)}, "rain200"),))
    figures.crops([method], [Measurement(label, "IDT", 1, 0, 0, scores) for label in labels], tmp_path)
    panels = drawn[0].subfigs[0].axes
    canvas = FigureCanvasAgg(drawn[0])
    canvas.draw()
    boxes = [panel.title.get_window_extent() for panel in panels if panel.get_title()]
    assert len(boxes) == 6  # the whole picture, four regions and the target
    boxes += [panel.get_window_extent() for panel in panels]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))


def test_a_legend_of_long_names_leaves_the_panels_their_room(monkeypatch):
    drawn = []
    monkeypatch.setattr(training_figure, "png", lambda figure: drawn.append(figure) or b"")
    names = [f"experiment_{index}_{'with_much_in_its_name_' * 3}" for index in range(20)]
    training_figure.draw([Curve("loss", "", name, [(1, 1.0), (2, 0.5)]) for name in names])
    FigureCanvasAgg(drawn[0]).draw()
    (panel,), (legend,) = drawn[0].axes, drawn[0].legends
    whole, around = drawn[0].bbox, legend.get_window_extent()
    assert panel.get_window_extent().height > 2 * drawn[0].dpi
    assert whole.x0 <= around.x0 < around.x1 <= whole.x1
