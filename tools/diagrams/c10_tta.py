"""Diagrams of the chapter on averaging predictions."""
from drawing import BLUE, GREEN, GREY, PALE, RED, Drawing


def averaging():
    "TTA, Ensemble and Tiled: what is predicted, and what is averaged"
    d = Drawing(900, 300)
    for x, title in ((150, "TTA: several views"), (450, "Ensemble: several models"), (750, "Tiled: several places")):
        d.text(x, 18, title, 14, bold=True)
    # views
    d.box(20, 110, 54, 40, "image", PALE, BLUE, size=11)
    for y, view, back in ((70, "as it is", "-"), (170, "mirror", "mirror back")):
        d.line((74, 130), (90, y+20))
        d.box(92, y, 52, 40, view, "white", GREY, size=10)
        d.line((144, y+20), (152, y+20))
        d.box(154, y, 48, 40, "model", "#eaf4e6", GREEN, size=11)
        if back != "-":
            d.line((202, y+20), (210, y+20))
            d.box(212, y, 40, 40, "mirror\nback", "white", RED, size=9.5)
            d.line((232, y), (262, 152))
        else: d.line((202, y+20), (262, 112))
    d.box(250, 114, 44, 36, "mean", "#fff4d6", "#b58900", size=11)
    # models
    d.box(330, 110, 54, 40, "image", PALE, BLUE, size=11)
    for y, name in ((60, "model 1"), (112, "model 2"), (164, "model 3")):
        d.line((384, 130), (412, y+18))
        d.box(416, y, 66, 36, name, "#eaf4e6", GREEN, size=11)
        d.line((482, y+18), (512, 130))
    d.box(514, 112, 50, 36, "mean", "#fff4d6", "#b58900", size=11)
    # tiles
    d.box(620, 56, 160, 120, fill=PALE, stroke=BLUE, r=0)
    for k, color in enumerate((RED, GREEN)): d.box(620+60*k, 56, 100, 72, fill="none", stroke=color, r=0)
    d.box(680, 56, 40, 72, fill="#fff4d6", stroke="none", r=0)
    for k, color in enumerate((RED, GREEN)): d.box(620+60*k, 56, 100, 72, fill="none", stroke=color, r=0)
    d.text(700, 92, "weighted\nmean", 9.5)
    d.text(700, 150, "tiles overlap", 11, "#555")
    d.line((784, 116), (806, 116))
    d.box(808, 98, 54, 36, "mask", "#fff4d6", "#b58900", size=11)
    d.text(450, 250, "All three take images and give class probabilities, so each can be applied to the others in any order:", 12.5)
    d.text(450, 274, "Tiled(TTA(Ensemble(a, b)))", 13, BLUE, bold=True)
    d.save("averaging")
