"""The canvas on which masks are painted, in a real browser: what each tool leaves in the mask, pixel by pixel."""
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("playwright.sync_api")
root = Path(__file__).resolve().parent.parent

PAGE = """<!doctype html><body style="margin:0"><div id=c style="width:640px"></div><script type=module>
import {Canvas, toRuns, fromRuns} from './canvas.js';
const image = new OffscreenCanvas(64, 48);
image.getContext('2d').fillStyle = '#457'; image.getContext('2d').fillRect(0, 0, 64, 48);
window.changes = 0;
window.c = new Canvas(document.querySelector('#c'), {classes: ['sky','road','tree'], colors: [[1,2,3],[200,0,0],[0,200,0]],
  height: () => 480, onchange: () => changes++});
c.load({image, width: 64, height: 48, mask: new Uint8Array(64*48)});
Object.assign(window, {toRuns, fromRuns, ready: true});
</script>"""


@pytest.fixture
def page(browser):
    page, errors = browser.new_page(viewport=dict(width=660, height=900)), []
    page.on("pageerror", lambda e: errors.append(str(e)))
    js = (root / "segnb/static/canvas.js").read_text()
    page.route("http://canvas/*", lambda r: r.fulfill(body=js if r.request.url.endswith(".js") else PAGE,
                                                      content_type="text/javascript" if r.request.url.endswith(".js") else "text/html"))
    page.goto("http://canvas/")
    page.wait_for_function("window.ready")
    yield page
    page.close()
    assert not errors, errors


def mask(page): return np.array(page.evaluate("[...c.mask]"), dtype=np.uint8).reshape(48, 64)


def at(page, x, y):
    "Where a pixel's centre is on the screen"
    box = page.locator(".sgc-view").bounding_box()
    s, ox, oy = page.evaluate("[c.scale, c.x, c.y]")
    return box["x"]+ox+(x+.5)*s, box["y"]+oy+(y+.5)*s


def drag(page, *points, button="left"):
    page.mouse.move(*at(page, *points[0]))
    page.mouse.down(button=button)
    for p in points[1:]: page.mouse.move(*at(page, *p), steps=5)
    page.mouse.up(button=button)


def disc(points, d):
    "Pixels whose centres are at most half of `d` from a line through the centres of pixels"
    y, x = np.mgrid[:48, :64].astype(float)
    out = np.zeros((48, 64), bool)
    for (x0, y0), (x1, y1) in zip(points, points[1:] or points):
        dx, dy = x1-x0, y1-y0
        f = np.clip(((x-x0)*dx+(y-y0)*dy)/max(dx*dx+dy*dy, 1e-9), 0, 1)
        out |= (x-x0-f*dx)**2+(y-y0-f*dy)**2 <= d*d/4
    return out


def test_brush_eraser_undo_redo(page):
    page.locator(".sgc-view").focus()
    page.keyboard.press("2")
    drag(page, (10, 10), (40, 10))
    one = mask(page)
    np.testing.assert_array_equal(one, disc([(10, 10), (40, 10)], 9))           # class 1, nothing between 0 and 1
    page.keyboard.press("3")
    for _ in range(20): page.keyboard.press("[")                                # a brush of one pixel
    page.mouse.click(*at(page, 20, 30))
    two = mask(page)
    assert (two != one).sum() == 1 and two[30, 20] == 2
    page.keyboard.press("e")
    page.mouse.click(*at(page, 20, 30))
    np.testing.assert_array_equal(mask(page), one)                              # what was there at the start
    page.keyboard.press("Control+z"); np.testing.assert_array_equal(mask(page), two)
    page.keyboard.press("Control+z"); np.testing.assert_array_equal(mask(page), one)
    page.keyboard.press("Control+z"); assert not mask(page).any()
    page.keyboard.press("Control+z"); assert not mask(page).any()
    for _ in range(2): page.keyboard.press("Control+y")
    np.testing.assert_array_equal(mask(page), two)
    page.locator("button[aria-label=Undo]").click()
    np.testing.assert_array_equal(mask(page), one)
    page.keyboard.press("0")                                                    # void
    page.keyboard.press("b")
    page.mouse.click(*at(page, 50, 40))
    assert mask(page)[40, 50] == 255
    assert page.locator("button[aria-label=Redo]").is_disabled()                # a new stroke ends what could be redone
    assert page.evaluate("changes") == 10


def test_polygon_and_fill(page):
    page.locator(".sgc-view").focus()
    page.keyboard.press("2"); page.keyboard.press("o")
    corners = [(10, 10), (50, 12), (30, 40)]
    for p in corners: page.mouse.click(*at(page, *p))
    page.mouse.click(*at(page, *corners[0]))
    m, (xs, ys) = mask(page), np.array(corners).T+.5
    edge = np.abs(m.sum() - .5*abs(np.dot(xs, np.roll(ys, 1))-np.dot(ys, np.roll(xs, 1))))
    assert set(np.unique(m)) == {0, 1} and edge < 5                             # its area, to the pixels that it cuts
    assert m[20, 30] == 1 and m[11, 12] == 1 and m[39, 20] == 0
    page.keyboard.press("3"); page.keyboard.press("f")
    page.mouse.click(*at(page, 30, 20))
    np.testing.assert_array_equal(mask(page), m*2)                              # the area, and no pixel beside it
    page.keyboard.press("o")
    page.mouse.click(*at(page, 1, 1)); page.mouse.click(*at(page, 5, 1)); page.keyboard.press("Escape")
    page.mouse.click(*at(page, 60, 1)); page.mouse.click(*at(page, 63, 1)); page.mouse.click(*at(page, 60, 9)); page.keyboard.press("Backspace")
    page.keyboard.press("Enter")
    np.testing.assert_array_equal(mask(page), m*2)
    page.keyboard.press("f"); page.keyboard.press("Control+z")
    np.testing.assert_array_equal(mask(page), m)


def test_keys_alone(page):
    view = page.locator(".sgc-view")
    view.focus()
    for _ in range(20): page.keyboard.press("[")
    page.keyboard.press("2")
    page.keyboard.press("Shift+ArrowRight"); page.keyboard.press("ArrowDown"); page.keyboard.press("Space")
    assert np.argwhere(mask(page)).tolist() == [[25, 42]]
    page.keyboard.press("f"); page.keyboard.press("3"); page.keyboard.press("ArrowRight"); page.keyboard.press("Space")
    assert (mask(page) == 2).sum() == 64*48-1
    assert "column 43" in page.locator(".sgc-says").inner_text()


def test_zoom_and_pan_change_no_pixel(page):
    before = page.evaluate("[c.scale, c.x, c.y]")
    page.mouse.move(*at(page, 32, 24))
    page.mouse.wheel(0, -500)
    page.wait_for_function("c.scale > 15")
    drag(page, (32, 24), (36, 26), button="middle")
    page.locator(".sgc-view").focus()
    for _ in range(20): page.keyboard.press("[")
    page.keyboard.press("2")
    assert not mask(page).any()
    page.mouse.click(*at(page, 33, 25))
    assert np.argwhere(mask(page)).tolist() == [[25, 33]]                       # the pixel under the pointer
    page.keyboard.press("Home")
    assert page.evaluate("[c.scale, c.x, c.y]") == pytest.approx(before)


def test_mask_in_and_out_is_exact(page):
    m = np.random.default_rng(0).choice([0, 1, 2, 255], (48, 64)).astype(np.uint8)
    page.evaluate("m => c.load({image: c.image, width: 64, height: 48, mask: Uint8Array.from(m)})", m.ravel().tolist())
    np.testing.assert_array_equal(mask(page), m)
    runs = page.evaluate("toRuns(c.mask)")
    np.testing.assert_array_equal(np.repeat(runs[::2], runs[1::2]).reshape(48, 64), m)
    assert page.evaluate("r => fromRuns(r, 64*48).every((v, k) => v === c.mask[k])", runs)
    png = bytes(page.evaluate("c.png().then(b => b.arrayBuffer()).then(b => [...new Uint8Array(b)])"))
    im = Image.open(io.BytesIO(png))
    np.testing.assert_array_equal(np.asarray(im), m)
    assert im.mode == "P" and im.getpalette()[3:6] == [200, 0, 0]


def test_a_second_finger_moves_and_does_not_paint(page):
    page.evaluate("c.choose(1)")
    fire = """([kind, id, x, y]) => c.view.dispatchEvent(new PointerEvent(kind, {pointerId: id, pointerType: 'touch', clientX: x, clientY: y, bubbles: true}))"""
    page.evaluate("c.view.setPointerCapture = () => {}")
    for k in (["pointerdown", 1, 300, 200], ["pointermove", 1, 320, 220], ["pointerdown", 2, 400, 300], ["pointermove", 2, 440, 340],
              ["pointerup", 2, 440, 340], ["pointerup", 1, 320, 220]): page.evaluate(fire, k)
    assert not mask(page).any() and page.evaluate("changes") == 0
    assert page.evaluate("c.scale > c.fitScale")
