"""The live views in JupyterLab, in a real browser: sliders are moved and images and values change."""
import json, os, re, socket, subprocess, sys, time, urllib.request
from pathlib import Path

import pytest

playwright = pytest.importorskip("playwright.sync_api")

SETUP = """from segnb.all import *
curve = LRCurve(np.geomspace(1e-6, 1, 200), 2-np.tanh(np.linspace(-3, 3, 200))+.05*np.random.default_rng(0).standard_normal(200))
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    "A JupyterLab of its own: its address and the folder it serves"
    pytest.importorskip("jupyterlab")
    root = tmp_path_factory.mktemp("lab")
    port = free_port()
    env = {**os.environ, "JUPYTER_CONFIG_DIR": str(root / "config"), "JUPYTER_DATA_DIR": str(root / "data"), "JUPYTER_PLATFORM_DIRS": "1"}
    (root / "nbs").mkdir()
    with open(root / "log", "w") as log:
        server = subprocess.Popen([sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}", "--ServerApp.port_retries=0",
                                   "--IdentityProvider.token=", "--ServerApp.password=", f"--ServerApp.root_dir={root / 'nbs'}", "--LabApp.news_url=",
                                   "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"], env=env, stdout=log, stderr=subprocess.STDOUT)
    try:
        for _ in range(240):
            try: urllib.request.urlopen(f"http://127.0.0.1:{port}/api", timeout=1).close(); break
            except OSError: time.sleep(.25)
            if server.poll() is not None: break
        else: pytest.fail("JupyterLab did not start:\n" + (root / "log").read_text()[-3000:])
        assert server.poll() is None, (root / "log").read_text()[-3000:]
        yield f"http://127.0.0.1:{port}", root / "nbs"
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture
def notebook(lab, browser):
    "Opens cells as a notebook, runs them, and yields a function that does so; errors of the page's console fail the test"
    address, folder = lab
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    errors = []
    page.on("pageerror", lambda e: errors.append(str(e)))
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" and not re.search("favicon|404|Failed to load resource|WebSocket", m.text) else None)

    def show(name, *cells):
        code = lambda i, s: dict(cell_type="code", id=f"cell{i}", metadata={}, source=s, outputs=[], execution_count=None)
        nb = dict(cells=[code(i, s) for i, s in enumerate(cells)], nbformat=4, nbformat_minor=5,
                  metadata=dict(kernelspec=dict(name="python3", display_name="Python 3", language="python")))
        (folder / f"{name}.ipynb").write_text(json.dumps(nb))
        page.goto(f"{address}/lab/tree/{name}.ipynb?reset")
        page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
        page.wait_for_selector(".jp-StatusBar-TextItem:has-text('| Idle')", timeout=60_000)      # the kernel has answered
        page.click(".lm-MenuBar-item:has-text('Run')")
        page.click(".lm-Menu-item:has-text('Run All Cells')")
        return page

    yield show
    page.close()
    assert not errors, errors


def cell(page, n): return page.locator(".jp-Notebook .jp-Cell").nth(n)


def run(page, n, source):
    "Types `source` into cell `n`, runs it, and returns what it printed"
    editor = cell(page, n).locator(".cm-content")
    editor.click()
    page.keyboard.press("Control+A")
    page.keyboard.insert_text(source)
    page.keyboard.press("Control+Enter")
    out = cell(page, n).locator(".jp-OutputArea-output pre")
    out.wait_for(timeout=30_000)
    return out.inner_text().strip()


def test_inspector(notebook):
    page = notebook("inspector", SETUP + "view = curve.inspect(); view", "")
    view = cell(page, 0)
    picture, text = view.locator("img"), view.locator("span[aria-live]")
    picture.wait_for(timeout=60_000)
    before, said = picture.get_attribute("src"), text.inner_text()
    handle = view.locator(".noUi-handle").first             # position along the curve
    handle.focus()
    for _ in range(5): page.keyboard.press("ArrowRight")
    page.wait_for_function("([old]) => document.querySelector('span[aria-live]').innerText != old", arg=[said], timeout=15_000)
    page.wait_for_timeout(500)
    assert picture.get_attribute("src") != before
    assert picture.get_attribute("alt") == text.inner_text()
    moved = picture.get_attribute("src")
    view.locator("input[type=checkbox]").first.click()      # valley's mark off
    page.wait_for_function("([old]) => document.querySelector('img[alt]').src != old", arg=[moved], timeout=15_000)
    picked = float(run(page, 1, "print(curve.picked)"))
    assert f"rate {picked:.2e}" in text.inner_text()
    assert float(run(page, 1, "print(np.flatnonzero(curve.lrs == curve.picked)[0] - np.abs(np.log(curve.lrs/curve.lr)).argmin())")) == 5


def test_explorer(notebook):
    page = notebook("explorer", SETUP + "view = explore_schedule(); view", "", "")
    view = cell(page, 0)
    view.locator("img").wait_for(timeout=60_000)
    call, before = view.locator("input[type=text]").last, view.locator("img").get_attribute("src")
    assert call.input_value() == "learn.fit_one_cycle(8, 0.004)"
    view.locator(".noUi-handle").nth(0).focus()             # epochs
    page.keyboard.press("ArrowRight"); page.keyboard.press("ArrowRight")
    page.wait_for_function("([old]) => document.querySelector('img[alt]').src != old", arg=[before], timeout=15_000)
    view.locator("button:has-text('linear')").click()
    wanted = "learn.fit_one_cycle(10, 0.004, anneal='linear')"
    page.wait_for_function("([s]) => [...document.querySelectorAll('input[type=text]')].some(o => o.value == s)", arg=[wanted], timeout=15_000)
    into = view.locator("button:has-text('into the next cell')")
    below = cell(page, 1).locator(".cm-content")
    into.click()
    playwright.expect(below).to_have_text(wanted, timeout=10_000)
    view.locator("button:has-text('cos')").click()          # the call is replaced, not added
    page.wait_for_timeout(800)
    into.click()
    playwright.expect(below).to_have_text("learn.fit_one_cycle(10, 0.004)", timeout=10_000)
    below.click(); page.keyboard.press("Control+A"); page.keyboard.insert_text("learn.unfreeze()")
    into.click()                                            # somebody's own line stays
    playwright.expect(below).to_contain_text("learn.unfreeze()", timeout=10_000)
    playwright.expect(below).to_contain_text("learn.fit_one_cycle(10, 0.004)", timeout=10_000)


DATA = """from segnb.all import *
path = streets(n_clips=4, n_frames=4, size=(96,128), n_valid=2)
dls = SegDataLoaders.from_path(path, crop=(64,96), bs=4, device='cpu')
"""


def changed(page, selector, old, get="innerText"):
    "Waits until what `selector` finds is no longer `old`"
    page.wait_for_function(f"([s, old]) => {{ const o = document.querySelector(s); return o && o.{get} != old }}", arg=[selector, old], timeout=15_000)


def said(page): return page.locator("span[aria-live]").first.inner_text()


def test_overlay_browser(notebook):
    page = notebook("overlays", DATA + "ds = find_pairs(path)[0]; view = browse(ds); view", "", "batch = browse(dls); batch")
    view = cell(page, 0)
    view.locator("img[data-point]").first.wait_for(timeout=60_000)
    assert view.locator("img[data-point]").count() == 3
    text, src = said(page), view.locator("img").nth(2).get_attribute("src")
    view.locator("button[title=next]").click()
    changed(page, "span[aria-live]", text)
    assert "(2 of 16)" in said(page)
    src = view.locator("img").nth(2).get_attribute("src")
    view.locator(".noUi-handle").nth(1).focus()                     # opacity
    for _ in range(4): page.keyboard.press("ArrowRight")
    changed(page, "figure:nth-child(3) img", src, "src")
    mask = view.locator("img").nth(1).get_attribute("src")
    road = view.locator("label:has-text('Road') input")
    road.focus()
    page.keyboard.press("Space")
    changed(page, "figure:nth-child(2) img", mask, "src")
    assert not view.locator("label:has-text('Road') input").is_checked()
    assert page.evaluate("document.activeElement.dataset.key") == "3"          # the focus survives the redraw
    page.wait_for_timeout(500)
    box = view.locator("img").first.bounding_box()
    view.locator("img").first.click(position=dict(x=box["width"]*64.5/128, y=box["height"]*.9))          # the middle of pixel 64
    page.wait_for_function("() => document.querySelector('span[aria-live]').innerText.includes('column 64: Road')", timeout=15_000)
    page.keyboard.press("Tab")
    view.locator("img").nth(1).focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.querySelector('span[aria-live]').innerText.includes('column 65')", timeout=15_000)
    assert run(page, 1, "print(view.values['on'])") == str([k for k in range(11) if k != 3])
    batch = cell(page, 2)
    old = batch.locator("img").first.get_attribute("src")
    batch.locator("button:has-text('next batch')").click()
    page.wait_for_function("([old]) => document.querySelectorAll('.jp-Cell')[2].querySelector('img').src != old", arg=[old], timeout=15_000)


def test_results_browser(notebook):
    page = notebook("results", DATA + "torch.manual_seed(0)\nlearn = seg_learner(dls)\nwith learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-2)\n"
                    "res = learn.results(); view = res.browse(); view", "")
    view = cell(page, 0)
    view.locator("img[data-point]").first.wait_for(timeout=120_000)
    assert view.locator("img[data-point]").count() == 5
    best = run(page, 1, "print(res.frames.ds.images[res.order('accuracy')[0]].stem, res.frames.ds.images[res.order()[0]].stem)").split()
    assert best[1] in said(page)
    view.locator("select").first.select_option("accuracy")
    page.wait_for_function("([s]) => document.querySelector('span[aria-live]').innerText.includes(s)", arg=[best[0]], timeout=15_000)
    pair = run(page, 1, "p = res.most_confused(1).iloc[0]; print(p['ground truth'], p.predicted, p.images)").split()
    view.locator(f"button[title^='{pair[0]} taken for {pair[1]}']").click()
    page.wait_for_function("([s]) => document.querySelector('span[aria-live]').innerText.startsWith(s)", arg=[f"{pair[0]} taken for {pair[1]}"], timeout=15_000)
    assert f"of {pair[2]})" in said(page)
    pressed = view.locator("button[aria-pressed=true]")
    assert pressed.count() == 1
    row = int(pressed.get_attribute("data-row"))
    pressed.focus()
    page.keyboard.press("ArrowDown" if row == 0 else "ArrowUp")                # the focus walks through the matrix
    assert int(page.evaluate("document.activeElement.dataset.row")) == (1 if row == 0 else row-1)
    pressed.click()                                                            # clicked again: everything is back
    page.wait_for_function("() => document.querySelector('span[aria-live]').innerText.includes('of 8)')", timeout=15_000)
    view.locator("select").nth(1).select_option("Pole")
    holding = run(page, 1, "print(len(res.matching('accuracy', None, 'Pole')))")
    page.wait_for_function("([s]) => document.querySelector('span[aria-live]').innerText.includes(s)", arg=[f"of {holding})"], timeout=15_000)


def test_monitor_stops_a_training(notebook):
    page = notebook("monitor", DATA + "torch.manual_seed(0)\nlearn = seg_learner(dls)\nmonitor = Monitor()\nlearn.fit_one_cycle(500, 1e-3, cbs=monitor)", "")
    view = cell(page, 0)
    view.locator("img").wait_for(timeout=60_000)
    first, text = view.locator("img").get_attribute("src"), said(page)
    changed(page, "img[alt]", first, "src")                                    # it is drawn while it trains
    changed(page, "span[aria-live]", text)
    view.locator("button:has-text('stop')").click()
    page.wait_for_function("() => document.querySelector('span[aria-live]')?.innerText.includes('the model is what it was then')", timeout=30_000)
    done = int(run(page, 1, "print(monitor.history.done)"))
    assert 0 < done < 1000 and f"stopped after {done} of" in said(page)
    assert run(page, 1, "with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)\nprint('trained on')") == "trained on"


def test_coverage(notebook):
    page = notebook("coverage", DATA + "explore_coverage(dls)")
    view = cell(page, 0)
    view.locator("img").wait_for(timeout=60_000)
    src = view.locator("img").get_attribute("src")
    view.locator("button:has-text('images')").click()
    changed(page, "img[alt]", src, "src")
    src = view.locator("img").get_attribute("src")
    view.locator("label:has-text('rarest first') input").click()
    changed(page, "img[alt]", src, "src")


PHOTOS = """import os
from pathlib import Path
import numpy as np
from PIL import Image
from segnb.annotate import annotate
for name in 'abc' if not Path('NAME').exists() else '':
    Path('NAME/images').mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)).save(f'NAME/images/{name}.jpg')
view = annotate('NAME', ['background', 'leaf', 'stem']); view"""


def stroke(page, x0, x1, y):
    "Paint from left to right, in shares of the canvas"
    page.locator(".sgc-view").evaluate("o => o.scrollIntoView({block: 'center'})")
    box = page.locator(".sgc-view").bounding_box()
    page.mouse.move(box["x"] + x0*box["width"], box["y"] + y*box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + x1*box["width"], box["y"] + y*box["height"], steps=8)
    page.mouse.up()


def annotator(notebook, name):
    page = notebook(name, PHOTOS.replace("NAME", name), "")
    wait_for_text(page, ".segnb-annotate", "image 1 of 3")
    return page


def wait_for_text(page, selector, text):
    page.wait_for_function("([s, t]) => document.querySelector(s)?.innerText.includes(t)", arg=[selector, text], timeout=60_000)


def mask_of(lab, name, image):
    from PIL import Image
    import numpy as np
    fn = lab[1] / name / "labels" / f"{image}.png"
    return np.asarray(Image.open(fn)) if fn.exists() else None


def test_annotate_saves_each_stroke(lab, notebook):
    page = annotator(notebook, "painted")
    assert mask_of(lab, "painted", "a") is None                      # looked at, not painted
    page.locator(".sgc-view").focus()
    page.keyboard.press("2")
    stroke(page, .2, .8, .5)
    wait_for_text(page, ".segnb-annotate", "saved a.png")
    m = mask_of(lab, "painted", "a")
    rows, cols = (m == 1).nonzero()
    assert set(m.flat) == {1, 255} and rows.min() == 30-4 and rows.max() == 30+4 and 16-5 <= cols.min() <= 16-3 and 64+3 <= cols.max() <= 64+5
    page.keyboard.press("0")
    page.keyboard.press("Control+z")
    page.wait_for_function("() => document.querySelector('.sgc-classes').innerText.includes('100.0%')")
    page.wait_for_timeout(1500)
    assert set(mask_of(lab, "painted", "a").flat) == {255}
    page.keyboard.press("PageDown")
    wait_for_text(page, ".segnb-annotate", "image 2 of 3; 1 of 3 have a mask")
    page.locator("button:has-text('done, next')").click()            # as it is
    wait_for_text(page, ".segnb-annotate", "image 3 of 3; 2 of 3 have a mask")
    assert set(mask_of(lab, "painted", "b").flat) == {255} and mask_of(lab, "painted", "c") is None


def test_annotate_loses_no_stroke_to_a_dead_kernel(lab, notebook):
    import signal
    import numpy as np
    page = annotator(notebook, "killed")
    page.locator(".sgc-view").focus()
    page.keyboard.press("2")
    stroke(page, .2, .5, .3)
    wait_for_text(page, ".segnb-annotate", "saved a.png")
    before = mask_of(lab, "killed", "a")

    os.kill(int(run(page, 1, "print(os.getpid())")), signal.SIGKILL)
    page.locator(".sgc-view").focus()
    stroke(page, .2, .8, .7)
    wait_for_text(page, ".segnb-annotate", "is kept in this browser")
    np.testing.assert_array_equal(mask_of(lab, "killed", "a"), before)
    page.keyboard.press("Escape")
    if page.locator(".jp-Dialog button").count(): page.locator(".jp-Dialog button").last.click()
    page.wait_for_selector(".jp-StatusBar-TextItem:has-text('| Idle')", timeout=60_000)      # JupyterLab has started another one
    page.click(".lm-MenuBar-item:has-text('Run')")
    page.click(".lm-Menu-item:has-text('Run All Cells')")
    wait_for_text(page, ".segnb-annotate", "painted before, kept by this browser")
    after = mask_of(lab, "killed", "a")
    assert (after[before == 1] == 1).all() and (after == 1).sum() > 1.5*(before == 1).sum()
    assert not page.evaluate("Object.keys(localStorage).filter(k => k.startsWith('segnb:')).length")


PLANES = """import numpy as np, pandas as pd, SimpleITK as sitk
from segnb.planes import browse_planes
from segnb.scans import Scan
a = np.random.default_rng(0).integers(-1000, 400, (8, 24, 32)).astype(np.int16)
scan = Scan(sitk.GetImageFromArray(a))
found = pd.DataFrame(scan.millimetres([(2, 5, 7), (6, 20, 25)]), columns=['coordX','coordY','coordZ']).assign(probability=[.9, .4])
view = browse_planes(scan, (a > 300).astype(np.uint8), ['other','dense'], found); view
"""


def test_planes(notebook):
    page = notebook("planes", PLANES, "")
    view = cell(page, 0)
    images = view.locator("img[data-point]")
    images.nth(2).wait_for(timeout=60_000)
    assert images.count() == 3 and "finding 1 of 2, probability 0.90. x 7.0, y 5.0, z 2.0 mm" in said(page)
    old, text = [images.nth(k).get_attribute("src") for k in range(3)], said(page)
    view.locator("button[title=next]").click()                                 # finding by finding
    changed(page, "span[aria-live]", text)
    assert "finding 2 of 2" in said(page) and "x 25.0, y 20.0, z 6.0 mm" in said(page)
    page.wait_for_function("([old]) => [...document.querySelectorAll('img[data-point]')].every((o, k) => o.src != old[k])", arg=[old], timeout=15_000)
    box = images.nth(1).bounding_box()                                         # the coronal plane: head up
    images.nth(1).click(position=dict(x=box["width"]*10.5/32, y=box["height"]*1.5/8))
    page.wait_for_function("() => document.querySelector('span[aria-live]').innerText.includes('x 10.0, y 20.0, z 6.0 mm')", timeout=15_000)
    images.nth(0).focus()                                                      # the cross-hair is linked: axial goes on from there
    page.keyboard.press("ArrowDown")
    page.wait_for_function("() => document.querySelector('span[aria-live]').innerText.includes('x 10.0, y 21.0, z 6.0 mm')", timeout=15_000)
    src = images.nth(2).get_attribute("src")
    view.locator(".noUi-handle").nth(1).focus()                                # width of the window
    for _ in range(5): page.keyboard.press("ArrowLeft")
    page.wait_for_function("([old]) => document.querySelectorAll('img[data-point]')[2].src != old", arg=[src], timeout=15_000)
    assert run(page, 1, "print(view.state.at)") == "(6, 21, 10)"
