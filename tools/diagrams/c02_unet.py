"""Diagrams of the chapter on the U-Net."""
from drawing import BLUE, GREEN, PALE, RED, Drawing


def unet():
    "Encoder, decoder and skip connections, with the sizes of the 2015 paper's figure"
    d = Drawing(900, 400)
    down = [(64, 568), (128, 280), (256, 136), (512, 64)]
    up = [(64, 388), (128, 196), (256, 100), (512, 52)]
    d.text(124, 18, "encoder", 15, BLUE, bold=True)
    d.text(776, 18, "decoder", 15, GREEN, bold=True)
    for k, ((c, size), (c2, size2)) in enumerate(zip(down, up)):
        x, x2, y, w = 70+66*k, 722-66*k, 40+78*k, 108
        d.box(x, y, w, 40, f"{c} x {size} x {size}", PALE, BLUE, size=11.5)
        d.box(x2, y, w, 40, f"{c2} x {size2} x {size2}", "#eaf4e6", GREEN, size=11.5)
        d.line((x+w+4, y+20), (x2-6, y+20), color=RED, dash=True)
        if k: d.text(x+50, y-20, "halve", 10.5, "#555", anchor="start").line((x+w/2-20, y-38), (x+w/2-20, y-2))
        if k: d.line((x2+w/2+20, y-2), (x2+w/2+20, y-36)).text(x2+w/2+26, y-18, "double", 10.5, "#555", anchor="start")
    d.text(450, 51, "skip connection: concatenated", 11.5, RED)
    d.line((322, 316), (322, 360), (394, 360)).line((506, 360), (578, 360), (578, 318))
    d.box(396, 340, 108, 40, "1024 x 28 x 28", "#fff4d6", "#b58900", size=11)
    d.text(34, 60, "image\n572 x 572", 11, "#555")
    d.text(864, 60, "1 x 1\nconvolution:\nclasses", 10.5, "#555")
    d.text(450, 392, "channels x height x width after the two convolutions of each step", 11.5, "#555")
    d.save("unet")
