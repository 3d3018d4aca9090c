"""Diagrams of the chapter on interpretation."""
from drawing import BLUE, GREEN, PALE, RED, Drawing


def taking_apart():
    "One score, taken apart in four ways, and what each suggests to do"
    d = Drawing(900, 250)
    d.box(20, 92, 120, 60, "mean IoU\nof the whole set", "#fff4d6", "#b58900", size=12)
    rows = [("which images?", "plot_worst, order", "wrong labels? conditions that are missing in training?"),
            ("which classes, for what?", "most_confused, confusion", "classes that look alike, or mean nearly the same"),
            ("where in the image?", "boundary_errors", "boundaries: resolution; areas: what it never saw"),
            ("was there enough of it?", "class_coverage, weak_classes", "more images, weights, crops around it")]
    for k, (question, tool, remedy) in enumerate(rows):
        y = 14+58*k
        d.line((142, 122), (176, y+22))
        d.box(180, y, 180, 44, question, PALE, BLUE, size=12.5)
        d.line((362, y+22), (384, y+22))
        d.box(388, y, 180, 44, tool, "#eaf4e6", GREEN, size=11.5)
        d.line((570, y+22), (590, y+22), color=RED)
        d.text(598, y+22, remedy, 11, "#555", anchor="start")
    d.save("taking_apart")
