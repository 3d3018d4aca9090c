"""Diagrams of the chapter on data loaders."""
from drawing import BLUE, GREEN, GREY, PALE, RED, Drawing


def path_of_a_batch():
    "From files to the network: what happens once, and what happens for each batch"
    d = Drawing(900, 250)
    stages = [(20, "files", "PNG, JPEG", PALE, GREY), (205, "frames", "uint8, in memory\nor in a file", "#eaf4e6", GREEN),
              (390, "batch", "uint8 (B,3,H,W)\nand (B,H,W)", PALE, BLUE),
              (575, "crops", "float 0..1 (B,3,h,w)\nint64 (B,h,w)", PALE, BLUE), (760, "network", "", "white", GREY)]
    for x, name, about, fill, stroke in stages:
        d.box(x, 70, 120, 76, fill=fill, stroke=stroke)
        d.text(x+60, 92 if about else 108, name, 13.5, bold=True)
        d.text(x+60, 120, about, 10.5, "#555")
    for x, what in ((140, "decode"), (325, "draw"), (510, "augment"), (695, "")):
        d.line((x+3, 108), (x+62, 108)).text(x+33, 96, what, 10.5, "#555")
    d.line((22, 172), (322, 172), color=GREEN, arrow=False).text(172, 190, "once, in threads, before the first epoch", 12, GREEN)
    d.line((342, 172), (878, 172), color=BLUE, arrow=False).text(610, 190, "for every batch, new random crops each time", 12, BLUE)
    d.line((450, 40), (450, 66), color=RED).text(450, 28, "moves to the GPU here, as bytes", 12, RED)
    d.text(450, 232, "Validation batches are whole frames: no SegAugment, in the order of the files.", 12, "#555")
    d.save("path_of_a_batch")
