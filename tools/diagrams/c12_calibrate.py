"""Diagrams of the chapter on calibration."""
from drawing import BLUE, GREEN, GREY, RED, Drawing


def calibrated():
    "Twenty pixels that are predicted with 75 % confidence, in three networks"
    d = Drawing(900, 190)
    d.text(450, 16, "twenty pixels, each predicted with a confidence of 75 %", 13.5, bold=True)
    for x, title, right, about in ((40, "overconfident", 11, "11 of 20 are right: 55 %"), (340, "calibrated", 15, "15 of 20 are right: 75 %"),
                                   (640, "underconfident", 19, "19 of 20 are right: 95 %")):
        d.text(x+110, 44, title, 13, BLUE, bold=True)
        for k in range(20):
            d.box(x+22*(k % 10), 60+26*(k//10), 19, 22, fill=GREEN if k < right else RED, stroke=GREY, r=1)
        d.text(x+110, 134, about, 12, "#555")
    d.text(450, 168, "green: the predicted class is right", 11.5, "#555")
    d.save("calibrated")
