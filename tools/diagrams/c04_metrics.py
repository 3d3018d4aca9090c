"""Diagrams of the chapter on metrics."""
from drawing import BLUE, GREEN, GREY, RED, Drawing


def confusion_scores():
    "A confusion matrix of three classes: what the scores of one of them are computed from"
    d = Drawing(900, 250)
    names, counts = ("road", "car", "tree"), ((90, 4, 1), (6, 20, 4), (0, 2, 73))
    d.text(215, 14, "predicted", 13, "#555")
    d.text(36, 125, "ground\ntruth", 13, "#555")
    for i, name in enumerate(names):
        d.text(133+82*i, 38, name, 13)
        d.text(84, 75+56*i, name, 13, anchor="end")
        for j in range(3):
            hit, row, column = i == j == 1, i == 1, j == 1
            fill = "#cfe8c6" if hit else "#d6e4f2" if row else "#f9d9d9" if column else "white"
            d.box(94+82*j, 52+56*i, 78, 50, str(counts[i][j]), fill, GREY, size=15, r=2)
    d.box(92, 106, 246, 54, fill="none", stroke=BLUE)
    d.box(174, 50, 82, 166, fill="none", stroke=RED)
    d.text(350, 133, "row: 30 pixels are car", 12, BLUE, anchor="start")
    d.text(215, 232, "column: 26 pixels are predicted as car", 12, RED)
    rows = [("accuracy (recall)", "20 / 30", "of the car pixels, how many were found?"),
            ("precision", "20 / 26", "of the pixels called car, how many are?"),
            ("IoU", "20 / (30 + 26 - 20)", "intersection over union"),
            ("Dice (F1)", "2 · 20 / (30 + 26)", "twice the intersection, over the sum")]
    d.text(530, 30, "scores of car", 14, GREEN, anchor="start", bold=True)
    for k, (name, formula, about) in enumerate(rows):
        d.text(530, 62+44*k, name, 13, anchor="start", bold=True)
        d.text(680, 62+44*k, formula, 13, anchor="start")
        d.text(680, 79+44*k, about, 10.5, "#555", anchor="start")
    d.save("confusion_scores")
