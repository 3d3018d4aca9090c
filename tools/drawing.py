"""What the diagrams of the chapters are drawn with: SVG, without fonts or scripts from elsewhere."""
from common import root

BLUE, GREEN, RED, GREY, YELLOW, PALE = "#4c78a8", "#59a14f", "#e15759", "#8a8f98", "#edc948", "#eef2f7"


class Drawing:
    "SVG in pieces: everything has its place in pixels, the origin at the upper left"
    def __init__(self, width, height):
        self.size, self.parts = (width, height), []

    def add(self, part): self.parts.append(part); return self

    def box(self, x, y, w, h, text="", fill=PALE, stroke=GREY, color="#222", size=13, dash=False, r=4):
        style = ' stroke-dasharray="5 4"' if dash else ""
        self.add(f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="{r}" fill="{fill}" stroke="{stroke}"{style}/>')
        if text: self.text(x+w/2, y+h/2, text, size, color)
        return self

    def text(self, x, y, text, size=13, color="#222", anchor="middle", bold=False):
        lines = text.split("\n")
        weight = ' font-weight="bold"' if bold else ""
        for k, line in enumerate(lines):
            at = y+(k-(len(lines)-1)/2)*size*1.3+size*.35
            line = line.replace("&", "&amp;").replace("<", "&lt;")
            self.add(f'<text x="{x:g}" y="{at:g}" font-size="{size}" fill="{color}" text-anchor="{anchor}"{weight}>{line}</text>')
        return self

    def line(self, *points, color="#444", width=1.6, arrow=True, dash=False):
        at = " ".join(f"{x:g},{y:g}" for x, y in points)
        end = ' marker-end="url(#arrow)"' if arrow else ""
        style = ' stroke-dasharray="5 4"' if dash else ""
        return self.add(f'<polyline points="{at}" fill="none" stroke="{color}" stroke-width="{width}"{end}{style}/>')

    def curve(self, points, color=BLUE, width=2.2, dash=False):
        return self.line(*points, color=color, width=width, arrow=False, dash=dash)

    def save(self, name):
        w, h = self.size
        head = (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}" width="{w}" height="{h}" '
                'font-family="Helvetica, Arial, sans-serif">\n'
                '<defs><marker id="arrow" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
                'orient="auto"><path d="M0,0 L10,5 L0,10 z" fill="#444"/></marker></defs>\n'
                f'<rect width="{w}" height="{h}" fill="white"/>\n')
        (root/"nbs/images"/f"{name}.svg").write_text(head+"\n".join(self.parts)+"\n</svg>\n", encoding="utf-8")
