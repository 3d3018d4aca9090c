"""The page of `segnb serve` in a real browser: a stranger uploads images, looks, corrects, agrees; the model improves and answers."""
import io
import re
import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("playwright.sync_api")
uvicorn = pytest.importorskip("uvicorn")
httpx = pytest.importorskip("httpx")
from segnb.all import SegModel, UNet
from segnb.feedback import Feedback
from segnb.improve import improve_model
from segnb.masks import Codes
from segnb.serve import make_app


def halves(k):
    "Red on the left, blue on the right, the border somewhere; and where it is"
    rng, a, x = np.random.default_rng(k), np.zeros((32, 40, 3), np.uint8), 12 + k % 16
    a[:, :x, 0] = a[:, x:, 2] = 200
    return Image.fromarray(a + rng.integers(0, 40, a.shape, dtype=np.uint8)), x


def truth(x): return (np.arange(40)[None] >= x).astype(np.uint8).repeat(32, 0)


@pytest.fixture
def served(tmp_path):
    "A model that has learned nothing, the data that it should have learned, a store, and a server"
    for d in ("data/images", "data/labels", "new"): (tmp_path / d).mkdir(parents=True)
    for k in range(16):
        im, x = halves(k)
        im.save(tmp_path / f"data/images/{k:02}.png")
        Image.fromarray(truth(x)).save(tmp_path / f"data/labels/{k:02}.png")
    (tmp_path / "data/codes.txt").write_text("red\nblue\n")
    (tmp_path / "data/valid.txt").write_text("".join(f"{k:02}.png\n" for k in range(12, 16)))
    for k in range(100, 112): halves(k)[0].save(tmp_path / f"new/{k}.png")
    torch.manual_seed(1)
    model = SegModel(UNet(3, 2, width=8, depth=2, pad=True), Codes(["red", "blue"]), size=(32, 40), scale=1., info=dict(data=str(tmp_path / "data")))
    fn = model.save(tmp_path / "m.safetensors")
    with Feedback(tmp_path / "store") as store:
        server = uvicorn.Server(uvicorn.Config(make_app(fn, store), port=0, log_level="error"))
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started: time.sleep(.05)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}", fn, store, tmp_path
        server.should_exit = True
        thread.join()


def polygon(page, *corners):
    "Corners in shares of the image"
    page.keyboard.press("o")
    box = page.locator(".sgc-view").bounding_box()
    s = min(box["width"]/40, box["height"]/32)
    left, top = box["x"] + (box["width"]-40*s)/2, box["y"] + (box["height"]-32*s)/2
    for x, y in corners: page.mouse.click(left+x*40*s, top+y*32*s)
    page.keyboard.press("Enter")


def test_upload_correct_agree_improve(browser, served):             # noqa: F811
    url, fn, store, folder = served
    page, errors = browser.new_page(viewport=dict(width=1280, height=900), accept_downloads=True), []
    page.on("pageerror", lambda e: errors.append(str(e)))
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" and "409" not in m.text and "415" not in m.text else None)
    page.goto(url)
    assert "blue" in page.inner_text("#about")
    files = sorted((folder / "new").glob("*.png"))
    broken = dict(name="broken.png", mimeType="image/png", buffer=b"no image")
    page.set_input_files("#files", [str(files[0]), str(files[1])])
    page.wait_for_selector("aside h2:has-text('100.png')")
    page.set_input_files("#files", [broken])
    page.wait_for_selector("#says.bad:has-text('broken.png: This is not an image')")

    shown = page.inner_text(".sgc-classes")
    shares = [float(s) for s in re.findall(r"([\d.]+)%", shown)]
    assert sum(shares) == pytest.approx(100, abs=.3) and len(store.rows()) == 0
    page.click("button:has-text('Uncertainty')"); page.click("button[data-layer=mask]")
    page.locator("input[aria-label='show red']").uncheck()
    page.locator("input[aria-label='show red']").check()
    with page.expect_download() as d: page.click("button:has-text('Download mask')")
    got = np.asarray(Image.open(d.value.path()))
    assert got.shape == (32, 40) and set(got.flat) <= {0, 1}
    with page.expect_download() as d: page.click("button:has-text('Download overlay')")
    assert Image.open(d.value.path()).size == (40, 32)

    page.click("button:has-text('Correct it')")
    x = halves(100)[1]/40
    page.keyboard.press("1"); polygon(page, (.005, .005), (x, .005), (x, .995), (.005, .995))
    page.keyboard.press("2"); polygon(page, (x, .005), (.995, .005), (.995, .995), (x, .995))
    page.click("button:has-text('Save the correction')")
    page.wait_for_selector(".told.bad:has-text('agreement')")
    assert len(store.rows()) == 0                                   # nothing without it
    page.check("#agreed")
    page.fill("textarea", "the border was wrong")
    page.click("button:has-text('Save the correction')")
    page.wait_for_selector(".told.good:has-text('correction is saved')")
    row = store.rows().iloc[0]
    assert row.verdict == "corrected" and row.comment == "the border was wrong" and row.version == 1
    assert np.asarray(store.image(int(row.id))).tolist() == np.asarray(Image.open(files[0])).tolist()
    assert (store.mask(int(row.id)) == truth(halves(100)[1])).mean() > .97

    owner = page.evaluate("localStorage.getItem('segnb-owner')")
    for k in range(102, 112):                                       # others do the same
        im, x = halves(k)
        id = store.add(im, truth(0), "of the model", 1, owner=f"somebody else {k}")
        store.judge(id, "corrected", truth(x))
    table, version = improve_model(fn, folder / "store", epochs=8, lr=.02)
    assert version == 2, table

    page.click("#items button:has-text('101.png')")
    page.click("button:has-text('Yes, it is right')")               # said of the first version: look again
    page.wait_for_selector("#model:has-text('model version 2')")
    page.wait_for_selector("aside p:has-text('model version 2')")
    answer = httpx.post(url+"/predict", files=dict(image=files[1].read_bytes())).json()
    assert answer["version"] == 2 and answer["shares"]["red"] == pytest.approx(halves(101)[1]/40, abs=.08)
    page.click("button:has-text('Yes, it is right')")
    page.wait_for_selector(".told.good:has-text('Saved as right')")
    assert store.rows().verdict.tolist()[-1] == "right" and store.rows().version.tolist()[-1] == 2

    page.on("dialog", lambda d: d.accept())
    page.click("button:has-text('Delete all that I have left here')")
    page.wait_for_selector(".told.good:has-text('Deleted: 2')")
    assert len(store.rows()) == 10 and owner
    page.close()
    assert not errors, errors


def test_by_drop_and_paste_on_a_phone(browser, served):             # noqa: F811
    url, *_ = served
    out = io.BytesIO()
    halves(3)[0].save(out, "PNG")
    page = browser.new_page(viewport=dict(width=390, height=844))
    page.goto(url)
    event = """([kind, bytes]) => {
      const t = new DataTransfer();
      t.items.add(new File([Uint8Array.from(bytes)], kind + '.png', {type: 'image/png'}));
      dispatchEvent(kind === 'drop' ? new DragEvent('drop', {dataTransfer: t, cancelable: true}) : new ClipboardEvent('paste', {clipboardData: t}));
    }"""
    for kind in ("drop", "paste"):
        page.evaluate(event, [kind, list(out.getvalue())])
        page.wait_for_selector("aside h2:has-text('drop.png')" if kind == "drop" else "#items button:has-text('paste.png') img")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390                 # nothing sticks out
    page.close()
