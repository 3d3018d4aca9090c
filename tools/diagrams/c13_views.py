"""Diagrams of the chapter on live views."""
from drawing import BLUE, GREEN, GREY, PALE, RED, Drawing


def view():
    "Controls, a plain function, and what it draws"
    d = Drawing(900, 200)
    d.text(130, 18, "controls", 13.5, bold=True)
    for k, (name, at) in enumerate((("learning rate", .6), ("smoothing", .3), ("from, to", .8))):
        y = 48+44*k
        d.text(24, y, name, 12, anchor="start")
        d.box(120, y-3, 120, 6, fill=PALE, stroke=GREY, r=3)
        d.box(120+120*at-6, y-8, 12, 16, fill=BLUE, stroke=BLUE, r=3)
    d.line((258, 92), (326, 92)).text(292, 78, "values", 11, "#555")
    d.box(330, 56, 220, 74, fill="#eaf4e6", stroke=GREEN)
    d.text(440, 80, "a plain function", 13.5, bold=True)
    d.text(440, 106, "draw(lr, smoothing, ends)", 12, "#555")
    d.line((554, 92), (622, 92)).text(588, 72, "figure\nor arrays", 11, "#555")
    d.box(626, 34, 250, 118, fill="white", stroke=BLUE)
    d.curve([(646+2.1*k, 124-60/(1+2.718**(-(k-52)/9))*0-(70 if k < 40 else max(18, 70-1.3*(k-40)) if k < 82 else 18+(k-82)**2*.22)) for k in range(100)], BLUE)
    d.line((772, 40), (772, 146), color=RED, arrow=False)
    d.text(450, 182, "The function can be called, tested and printed without a widget. The view only calls it again when a control moves.", 12, "#555")
    d.save("view")
