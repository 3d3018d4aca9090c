"""The view of `annotate` in a browser, with a kernel that can be taken away: what becomes of strokes that nobody answers.
`tests/test_live.py` has the same view in JupyterLab."""
import json

import numpy as np
import pytest
from PIL import Image

from segnb.annotate import Annotate, Labels
from test_canvas import at, drag

PAGE = """<!doctype html><body style="margin:0"><div id=c style="width:640px"></div><script type=module>
import view from './view.js';
const heard = [], traits = TRAITS;
const model = {get: k => traits[k], on: (_, f) => heard.push(f), off: () => {}, send: m => told(m)};
window.hear = (message, image) => heard.forEach(f => f(message, image ? [Uint8Array.from(atob(image), c => c.charCodeAt(0)).buffer] : []));
view.render({model, el: document.querySelector('#c')});
</script>"""


class Kernel:
    "What stands between view and files: it may be dead, and messages that are sent then are lost"
    def __init__(self, page, folder):
        import base64
        self.page, self.alive, self.inbox = page, True, []
        page.expose_function("told", lambda m: self.inbox.append(m))
        self.start(folder)
        self.b64 = lambda buffers: base64.b64encode(buffers[0]).decode() if buffers else None

    def start(self, folder):
        self.view, self.answers = Annotate(Labels(folder, ["sky", "road", "tree"])), []
        self.view.send = lambda message, buffers=None: self.answers.append((json.loads(json.dumps(message)), buffers))

    def work(self, until=None):
        "Answer what has come, until the view shows some text"
        for _ in range(100):
            self.page.wait_for_timeout(50)
            while self.inbox:
                message = self.inbox.pop(0)
                if self.alive: self.view.told(message)
            while self.answers:
                message, buffers = self.answers.pop(0)
                self.page.evaluate("([m, b]) => hear(m, b)", [message, self.b64(buffers)])
            if until and until in self.page.inner_text("body"): return
        assert not until, self.page.inner_text("body")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    for name in "ab": Image.new("RGB", (64, 48)).save(tmp_path / "images" / f"{name}.png")
    return tmp_path


@pytest.fixture
def kernel(browser, folder):                                        # noqa: F811
    page, errors = browser.new_page(viewport=dict(width=660, height=900)), []
    page.on("pageerror", lambda e: errors.append(str(e)))
    kernel = Kernel(page, folder)
    traits = json.dumps({k: getattr(kernel.view, k) for k in ("classes", "colors", "folder", "total")})

    def fulfill(route):
        js = route.request.url.endswith(".js")
        route.fulfill(body=Annotate._esm if js else PAGE.replace("TRAITS", traits), content_type="text/javascript" if js else "text/html")
    page.route("http://annotate/*", fulfill)
    page.goto("http://annotate/")
    kernel.work("image 1 of 2")
    page.evaluate("""() => { window.c = {}; }""")
    yield kernel
    page.close()
    assert not errors, errors


def mask(folder, name="a"): return np.asarray(Image.open(folder / f"labels/{name}.png"))


def paint(page, y):
    box = page.locator(".sgc-view").bounding_box()
    page.mouse.move(box["x"]+.2*box["width"], box["y"]+y*box["height"])
    page.mouse.down()
    page.mouse.move(box["x"]+.8*box["width"], box["y"]+y*box["height"], steps=5)
    page.mouse.up()


def kept(page): return page.evaluate("Object.keys(localStorage).length")


def test_strokes_outlive_the_kernel(kernel, folder):
    page = kernel.page
    page.locator(".sgc-view").focus()
    page.keyboard.press("2")
    paint(page, .3)
    kernel.work("saved a.png")
    before = mask(folder)
    assert (before == 1).sum() > 300 and kept(page) == 0
    kernel.alive = False
    paint(page, .6)
    assert kept(page) == 1                                          # at once, before anything is sent
    kernel.work("kept in this browser")
    page.keyboard.press("PageDown")                                 # to an image that nobody can show now
    paint(page, .8)                                                 # so this is still on the first one
    np.testing.assert_array_equal(mask(folder), before)
    kernel.alive = True                                             # it was busy: what it was sent it answers late
    kernel.work("saved a.png")
    assert kept(page) == 0 and (mask(folder) == 1).sum() > 2.5*(before == 1).sum()
    kernel.work("image 2 of 2")
    kernel.alive = False                                            # this time it has died, and the page is opened again
    page.locator(".sgc-view").focus()
    page.keyboard.press("3")
    paint(page, .5)
    page.wait_for_timeout(400)
    assert kept(page) == 1 and not (folder / "labels/b.png").exists()
    kernel.start(folder)
    kernel.inbox.clear()
    kernel.alive = True
    page.reload()
    kernel.work("kept by this browser")
    assert kept(page) == 0 and set(mask(folder, "b").flat) == {2, 255}


@pytest.mark.parametrize("mine", [True, False])
def test_a_file_that_changed_is_asked_for(kernel, folder, mine):
    page = kernel.page
    page.locator(".sgc-view").focus()
    page.keyboard.press("2")
    paint(page, .3)
    kernel.work("saved a.png")
    Image.fromarray(np.full((48, 64), 2, np.uint8)).save(folder / "labels/a.png")
    paint(page, .6)
    kernel.work("has changed since it was opened")
    assert set(mask(folder).flat) == {2} and kept(page) == 1
    page.locator(f"button:has-text('{'keep what I painted' if mine else 'keep the file'}')").click()
    if mine:
        kernel.work("saved a.png")
        assert set(mask(folder).flat) == {1, 255}
    else:
        kernel.work()
        assert set(mask(folder).flat) == {2}
        paint(page, .6)                                             # goes on from the file
        kernel.work("saved a.png")
        assert set(mask(folder).flat) == {1, 2}
    assert kept(page) == 0


def test_a_mask_that_cannot_be_read_is_not_touched(kernel, folder):
    (folder / "labels").mkdir()
    (folder / "labels/b.png").write_bytes(b"not a mask")
    kernel.page.locator("button:has-text('next')").first.click()
    kernel.work("cannot be read as a mask")
    paint(kernel.page, .5)
    kernel.work()
    assert (folder / "labels/b.png").read_bytes() == b"not a mask"


def test_a_busy_kernel_gets_two_strokes(kernel, folder):
    "The second is sent before it has answered the first, so with what the file was before that"
    page = kernel.page
    page.locator(".sgc-view").focus()
    page.keyboard.press("2")
    paint(page, .3)
    page.wait_for_timeout(500)
    paint(page, .6)
    page.wait_for_timeout(4500)
    assert [m["base"] for m in kernel.inbox if "save" in m] == [None, None]
    kernel.work("saved a.png")
    kernel.work()
    assert kept(page) == 0 and page.locator("button:has-text('keep the file')").count() == 0
    m = mask(folder)
    assert (m[10:20] == 1).any() and (m[25:35] == 1).any()
