"""Diagrams of the chapter on losses."""
from drawing import BLUE, GREEN, GREY, PALE, RED, Drawing


def pixel_loss():
    "From the logits of one pixel to its cross-entropy, and to the loss of a batch"
    d = Drawing(900, 210)
    names, logits, probs = ("Road", "Car", "Tree"), ("2.1", "3.4", "-0.2"), ("0.21", "0.77", "0.02")
    for x, title in ((90, "logits of a pixel"), (330, "probabilities"), (575, "cross-entropy"), (800, "loss of a batch")):
        d.text(x, 18, title, 13.5, bold=True)
    for k, (name, logit, p) in enumerate(zip(names, logits, probs)):
        y = 40+44*k
        d.text(44, y+17, name, 12.5, anchor="end")
        d.box(54, y, 80, 34, logit, PALE, BLUE, size=14)
        d.box(290, y, 80, 34, p, "#eaf4e6" if name == "Car" else PALE, GREEN if name == "Car" else BLUE, size=14)
    d.line((140, 101), (284, 101)).text(212, 86, "softmax", 12, "#555").text(212, 120, "adds up to 1", 10.5, "#555")
    d.line((376, 101), (504, 101)).text(440, 78, "ground truth: Car", 12, GREEN).text(440, 120, "- log 0.77", 12, "#555")
    d.box(510, 80, 130, 42, "0.26", "#fff4d6", "#b58900", size=15)
    d.line((646, 101), (728, 101)).text(687, 86, "mean", 12, "#555")
    d.box(734, 62, 132, 78, "over all pixels\nthat are not void", "white", GREY, size=11.5)
    d.text(450, 190, "Had the ground truth been Tree, this pixel would have cost - log 0.02 = 3.9.", 12.5, RED)
    d.save("pixel_loss")
