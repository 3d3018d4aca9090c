"""Diagrams of the chapter on datasets."""
from drawing import BLUE, GREEN, GREY, PALE, RED, Drawing

CLASSES = ((0, 0, 1, 1), (0, 0, 1, 1), (2, 2, 2, 1))
COLORS = ("#7fb2e5", "#59a14f", "#8a8f98")


def mask_encodings():
    "One mask as indices, with a palette, as colours; and a binary one"
    d = Drawing(900, 300)
    grids = (("indices", "mode L", lambda k: (str(k), "white")),
             ("palette", "mode P: indices and a table", lambda k: (str(k), COLORS[k])),
             ("colours", "mode RGB: no indices", lambda k: ("", COLORS[k])),
             ("binary", "0 and 255: class 2 or not", lambda k: (("0", "#222") if k != 2 else ("255", "white"))))
    for j, (title, about, cell) in enumerate(grids):
        x, y = 20+160*j, 44
        d.text(x+66, 16, title, 14, bold=True)
        d.text(x+66, 33, about, 9.5, "#555")
        for r, row in enumerate(CLASSES):
            for c, k in enumerate(row):
                text, fill = cell(k)
                d.box(x+33*c, y+30*r, 33, 30, text, fill, GREY, "white" if fill == "#222" else "#222", 12, r=0)
    d.text(86, 165, "read as it is", 11, "#555")
    d.text(246, 150, "read the index,\nnot the colour's brightness", 11, "#555")
    for k, color in enumerate(COLORS):
        d.box(200, 172+18*k, 18, 14, fill=color, r=0)
        d.text(224, 179+18*k, f"index {k}", 11, anchor="start")
    d.text(406, 150, "look the colour up", 11, "#555")
    for k, color in enumerate(COLORS):
        d.box(352, 172+18*k, 18, 14, fill=color, r=0)
        rgb = tuple(int(color[i:i+2], 16) for i in (1, 3, 5))
        d.text(376, 179+18*k, f"{rgb} is {k}".replace(" ", "\u00a0"), 11, anchor="start")
    d.text(566, 150, "255 is class 1,\nor void: look at the codes", 11, "#555")
    d.line((668, 90), (712, 90))
    d.text(800, 16, "class indices", 14, bold=True)
    d.text(800, 33, "what the network is given", 9.5, "#555")
    for r, row in enumerate(CLASSES):
        for c, k in enumerate(row): d.box(734+33*c, 44+30*r, 33, 30, str(k), PALE, BLUE, size=12, r=0)
    d.text(800, 160, "uint8 (height, width)\nvoid is 255", 11, "#555")
    d.box(20, 250, 860, 36, fill="white", stroke=RED)
    d.text(450, 268, "A PNG file does not say which of the four was meant: a list of names, or a table of colours, "
           "has to come with it.", 12.5, "#222")
    d.save("mask_encodings")
