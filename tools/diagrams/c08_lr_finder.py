"""Diagrams of the chapter on the learning-rate finder."""
import math

from drawing import BLUE, Drawing


def range_test():
    "The three parts of the curve of a range test"
    d = Drawing(900, 280)
    x0, x1 = 70, 860
    for a, b, color, name, about in ((x0, 330, "#eef2f7", "too small", "steps too small to change anything"),
                                     (330, 640, "#eaf4e6", "useful", "the larger the step, the faster it falls"),
                                     (640, x1, "#fbe6e6", "too large", "steps overshoot, the loss explodes")):
        d.box(a, 40, b-a, 186, fill=color, stroke="none", r=0)
        d.text((a+b)/2, 20, name, 14, bold=True)
        d.text((a+b)/2, 54, about, 11, "#555")
    loss = lambda t: 150-95/(1+math.exp(-9*(t-.52)))+math.exp(30*(t-.84))
    points = [(x0+(x1-x0)*t, 226-loss(t)) for t in (k/200 for k in range(201)) if loss(t) < 165]
    d.curve(points, BLUE, 3)
    d.line((x0, 226), (x0, 36)).line((x0, 226), (x1+10, 226))
    d.text(x0-30, 130, "loss", 12.5)
    for k in range(7): d.text(x0+20+k*125, 240, f"1e-{6-k}" if k < 6 else "1", 10.5, "#555")
    d.text(465, 264, "learning rate, multiplied by a constant after each batch", 12.5)
    d.save("range_test")
