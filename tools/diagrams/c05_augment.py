"""Diagrams of the chapter on augmentation."""
from drawing import BLUE, GREEN, PALE, RED, Drawing


def crop_to_frame():
    "Where in the frame a pixel of the crop comes from: source = c + M (p - centre)"
    import math
    d = Drawing(900, 300)
    d.text(215, 16, "frame", 14, bold=True)
    d.box(40, 34, 350, 240, fill=PALE, stroke=BLUE, r=0)
    cx, cy, a, w, h = 240, 160, math.radians(-14), 75, 56
    turn = lambda x, y: (cx+x*math.cos(a)-y*math.sin(a), cy+x*math.sin(a)+y*math.cos(a))
    corners = [turn(x, y) for x, y in ((-w,-h), (w,-h), (w,h), (-w,h), (-w,-h))]
    d.curve(corners, RED)
    d.text(cx-2, cy+12, "c", 14, RED, bold=True)
    d.box(cx-2.5, cy-2.5, 5, 5, fill=RED, stroke=RED, r=2)
    sx, sy = turn(45, -28)
    d.box(sx-3, sy-3, 6, 6, fill=GREEN, stroke=GREEN, r=3)
    d.text(sx+8, sy-14, "source", 12.5, GREEN, bold=True)
    d.text(700, 16, "crop", 14, bold=True)
    d.box(560, 50, 280, 210, fill="white", stroke=RED, r=0)
    d.box(697.5, 152.5, 5, 5, fill=RED, stroke=RED, r=2)
    d.text(700, 168, "centre", 12.5, RED)
    px, py = 700+45*280/150, 155-28*210/112
    d.box(px-3, py-3, 6, 6, fill=GREEN, stroke=GREEN, r=3)
    d.text(px+16, py, "p", 14, GREEN, bold=True)
    d.line((700, 155), (px-4, py+3), color=GREEN)
    d.line((cx, cy), (sx-3, sy+2), color=GREEN)
    d.line((px-8, py-4), (sx+12, sy-1), dash=True)
    d.text(475, 52, "M shrinks, turns\nand mirrors p - centre", 12, "#555")
    d.text(475, 284, "for every pixel p of the crop:  source = c + M (p - centre)", 13.5, bold=True)
    d.save("crop_to_frame")
