"""`segnb serve` against what a server meets: crowds, strangers, damaged and hostile files, and its own sudden end."""
import base64
import io
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from hypothesis import HealthCheck, given, settings, strategies as st

httpx = pytest.importorskip("httpx")
pytest.importorskip("fasthtml")
from starlette.testclient import TestClient

from segnb.all import SegModel, UNet
from segnb.canvas import to_runs
from segnb.feedback import Feedback
from segnb.masks import Codes
from segnb.serve import make_app

root = Path(__file__).resolve().parent.parent
OWNER = "0123456789abcdef"


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    torch.manual_seed(0)
    model = SegModel(UNet(3, 3, width=4, depth=2, pad=True), Codes(["sky", "road", "tree"]), size=(32, 32))
    return model.save(tmp_path_factory.mktemp("model") / "tiny.safetensors")


def photo(size=(32, 32), kind="PNG", seed=0, mode="RGB", **kw):
    a, out = np.random.default_rng(seed).integers(0, 255, (*size[::-1], 3), dtype=np.uint8), io.BytesIO()
    Image.fromarray(a).convert(mode).save(out, kind, **kw)
    return out.getvalue()


@pytest.fixture
def app(model_file, tmp_path):
    with Feedback(tmp_path / "store") as store:
        app = make_app(model_file, store, most_pixels=100_000, per_minute=100_000)
        app.state.store = store
        yield app


@pytest.fixture
def client(app): return TestClient(app, base_url="http://localhost:8000", raise_server_exceptions=False)


def send(client, data=None, path="/predict", headers=None, **fields):
    return client.post(path, files=dict(image=photo() if data is None else data), data=fields, headers=headers)


def leave(client, verdict="right", mask=None, **fields):
    files = dict(image=photo(), **({} if mask is None else dict(mask=json.dumps(mask).encode())))
    fields = dict(dict(agreed="yes", owner=OWNER, model=send(client).json()["model"], verdict=verdict), **fields)
    return client.post("/feedback", files=files, data={k: v for k, v in fields.items() if v is not None})


# ---- what it answers

def test_predict_says_what_the_model_says(client, model_file):
    from segnb.all import load_model
    got = send(client, photo((40, 24))).json()
    mask = np.array(Image.open(io.BytesIO(base64.b64decode(got["mask"]))))
    np.testing.assert_array_equal(mask, load_model(model_file, device="cpu").predict(Image.open(io.BytesIO(photo((40, 24))))))
    assert got["size"] == [24, 40] == list(mask.shape) and sum(got["shares"].values()) == pytest.approx(1)
    assert got["shares"]["road"] == pytest.approx((mask == 1).mean())
    assert client.get("/health").json()["status"] == "ok"
    assert "POST /predict" in client.get("/docs").text and "<li>sky</li>" in client.get("/docs").text.replace(" ", "")


def test_an_upright_photograph(client):
    exif = Image.Exif()
    exif[274] = 6                                                   # a phone held upright
    assert send(client, photo((40, 24), "JPEG", exif=exif)).json()["size"] == [40, 24]


def test_an_onnx_file(tmp_path, model_file):
    pytest.importorskip("onnxruntime"); pytest.importorskip("onnx")
    from segnb.all import export_onnx, load_model
    client = TestClient(make_app(export_onnx(load_model(model_file), tmp_path / "m.onnx")), base_url="http://localhost")
    assert send(client).json()["shares"].keys() == {"sky", "road", "tree"}


def test_the_page_needs_nothing_from_elsewhere(client):
    texts = [client.get(p).text for p in ("/", "/docs", "/static/page.js", "/static/canvas.js", "/static/page.css")]
    assert not [u for t in texts for u in re.findall(r"https?://[^\s\"'<)]+", t) if not re.match(r"http://(www\.w3\.org|localhost)", u)]
    policy = client.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy and "'unsafe-inline'" not in policy.split("script-src")[1].split(";")[0]


# ---- what is kept

def test_nothing_is_kept_without_agreement(client, app):
    assert send(client).status_code == 200
    assert leave(client, agreed=None).status_code == 403
    assert leave(client, agreed="no").status_code == 403
    assert leave(client, owner="short").status_code == 400
    assert len(app.state.store.rows()) == 0


def test_verdicts_and_corrections(client, app):
    m = np.random.default_rng(0).choice([0, 1, 2, 255], (32, 32)).astype(np.uint8)
    assert leave(client, comment="good").status_code == 200
    assert leave(client, "corrected", to_runs(m), who="Ada").status_code == 200
    store = app.state.store
    rows = store.rows()
    assert rows.verdict.tolist() == ["right", "corrected"] and rows.who[1] == "Ada" and rows.who.isna()[0] and rows.comment[0] == "good"
    np.testing.assert_array_equal(store.mask(int(rows.id[1])), m)
    np.testing.assert_array_equal(np.asarray(store.image(int(rows.id[1]))), np.asarray(Image.open(io.BytesIO(photo()))))
    assert leave(client, "corrected", to_runs(m[:31])).status_code == 400          # of another size
    assert leave(client, "corrected", [3, 1024]).status_code == 400               # there is no class 3
    assert leave(client, "corrected").status_code == 400 and leave(client, "wrong").status_code == 400
    assert leave(client, model="0"*64).status_code == 409                         # said of another version
    assert len(store.rows()) == 2
    assert client.post("/forget", data=dict(owner="f"*16)).json() == dict(deleted=0)
    assert client.post("/forget", data=dict(owner=OWNER)).json() == dict(deleted=2)
    assert len(store.rows()) == 0


def test_a_new_version_answers_and_a_broken_one_does_not(model_file, tmp_path):
    from segnb.all import load_model
    fn = tmp_path / "m.safetensors"
    fn.write_bytes(model_file.read_bytes())
    client = TestClient(make_app(fn), base_url="http://localhost")
    first = send(client).json()
    (tmp_path / "broken").write_bytes(b"no model")
    os.replace(tmp_path / "broken", fn)
    assert send(client).json() == first
    model = load_model(model_file)
    model.info = dict(version=7)
    model.save(fn)
    now = send(client).json()
    assert now["version"] == 7 and now["model"] != first["model"]


# ---- strangers

@pytest.mark.parametrize("headers, status", [
    (dict(Origin="https://elsewhere.example"), 403), (dict(Origin="null"), 403), (dict(Origin="http://localhost:9999"), 403),
    ({"Sec-Fetch-Site": "cross-site"}, 403), ({"Sec-Fetch-Site": "same-site"}, 403), (dict(Host="elsewhere.example"), 421),
    (dict(Host="elsewhere.example:8000", Origin="http://elsewhere.example:8000"), 421), (dict(Host=""), 421),
    (dict(Host="192.168.1.7:8000"), 421), (dict(Host="[::1]:8000"), 200), (dict(Host="127.0.0.1"), 200),
    ({"Origin": "http://localhost:8000", "Sec-Fetch-Site": "same-origin"}, 200), ({"Content-Length": "-1"}, 413)])
def test_posts_from_elsewhere(client, app, headers, status):
    for path in ("/predict", "/feedback", "/forget"):
        got = send(client, path=path, headers=headers)
        assert got.status_code == status or (status == 200 and path != "/predict" and got.status_code in (400, 403))
    if status == 421: assert client.get("/", headers=headers).status_code == 421
    assert len(app.state.store.rows()) == 0


def test_a_token(model_file):
    app = make_app(model_file, token="sesame", hosts={"box", None})
    client = TestClient(app, base_url="http://192.168.1.7:8000", follow_redirects=False)
    assert client.get("/health").status_code == 200
    for path in ("/", "/docs", "/static/page.js", "/?token=wrong", "/?token=%C3%A9", "/docs?token=sesame"): assert client.get(path).status_code == 401
    assert send(client).status_code == 401 and client.post("/forget").status_code == 401
    assert send(client, headers=dict(Authorization="Bearer sesame")).status_code == 200
    got = client.get("/?token=sesame")
    assert got.status_code == 303 and "HttpOnly" in got.headers["set-cookie"] and "samesite=lax" in got.headers["set-cookie"].lower()
    assert client.get("/").status_code == 200 and send(client).status_code == 200     # the cookie


def test_paths_do_not_reach_files(client):
    for path in ("/static/../serve.py", "/static/%2e%2e/serve.py", "/static/..%2f..%2fetc/passwd", "/static//etc/passwd", "/etc/passwd", "/.env"):
        got = client.get(path)
        assert got.status_code == 404 and "root:" not in got.text
    name = "../../../tmp/evil.png"
    got = client.post("/predict", files=dict(image=(name, photo())))
    assert got.status_code == 200 and not Path("/tmp/evil.png").exists()


# ---- files

def chunk(name, data): return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name+data).to_bytes(4, "big")


def bomb(w, h):
    "A PNG that says it is huge, and is a few kilobytes"
    head = chunk(b"IHDR", w.to_bytes(4, "big") + h.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0]))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b"")


def moving(kind):
    frames, out = [Image.new("RGB", (8, 8), c) for c in ("red", "blue")], io.BytesIO()
    frames[0].save(out, kind, save_all=True, append_images=frames[1:])
    return out.getvalue()


HOSTILE = dict(
    empty=(b"", {400, 415}), text=(b"hello", {415}), svg=(b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', {415}),
    pdf=(b"%PDF-1.4", {415}), eps=(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", {415}), zip=(b"PK\3\4"+bytes(99), {415}),
    bomb=(bomb(50_000, 50_000), {413}), bomb_max=(bomb(2**31-1, 2**31-1), {413, 415}), lies=(bomb(300, 300), {200, 415}), zero=(bomb(0, 9), {415}),
    long_line=(photo((3000, 1)), {200, 422}), one=(photo((1, 1)), {200, 422}), truncated=(photo((90, 90))[:9000], {415}), head=(photo()[:30], {415}),
    jpeg=(photo((90, 90), "JPEG")[:800], {415}), gif=(moving("GIF"), {415}), webp=(moving("WEBP"), {415}), apng=(moving("PNG"), {415}),
    tiff=(moving("TIFF"), {415}), text_bomb=(b"\x89PNG\r\n\x1a\n" + photo()[8:33] + chunk(b"zTXt", b"a\0\0"+zlib.compress(bytes(10**8))) + photo()[33:], {200, 415}),
    **{f"good_{kind}": (photo(kind=kind), {200}) for kind in ("JPEG", "WEBP", "BMP", "GIF", "TIFF")}, grey=(photo(mode="L"), {200}), alpha=(photo(mode="RGBA"), {200}), bits=(photo(mode="1"), {200}), palette=(photo(mode="P"), {200}),
    cmyk=(photo(kind="JPEG", mode="CMYK"), {200}), deep=(photo(mode="I", kind="TIFF"), {200}), floats=(photo(mode="F", kind="TIFF"), {200}))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_gets_a_message(client, name):
    data, statuses = HOSTILE[name]
    got = send(client, data)
    assert got.status_code in statuses, got.text[:300]
    if got.status_code != 200:
        says = got.json()["error"]
        assert 10 < len(says) < 200 and "Traceback" not in says and "/" not in says.replace(", ", "")
    assert client.get("/health").json()["waiting"] == 0 and send(client).status_code == 200        # and it goes on


def test_too_long(model_file):
    client = TestClient(make_app(model_file, most_bytes=50_000), base_url="http://localhost")
    assert send(client, bytes(60_000)).status_code == 413

    def stream():                                                                   # without saying how long it is
        yield b"--x\r\ncontent-disposition: form-data; name=image; filename=a\r\n\r\n"
        for _ in range(100): yield bytes(1000)
    got = client.post("/predict", content=stream(), headers={"content-type": "multipart/form-data; boundary=x"})
    assert got.status_code == 413
    assert client.get("/health").json()["waiting"] == 0


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_fuzz(client, data):
    "Any bytes, as any form, at any address: a status that says whose fault it was, never a trace and never a 500"
    path = data.draw(st.sampled_from(["/predict", "/feedback", "/forget", "/", "/health", "/nowhere"]))
    body = data.draw(st.one_of(st.binary(max_size=300), st.just(None)))
    if body is None:                                                                # a form that is nearly right
        good = bytearray(photo((8, 8), data.draw(st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"]))))
        for _ in range(data.draw(st.integers(0, 6))): good[data.draw(st.integers(0, len(good)-1))] = data.draw(st.integers(0, 255))
        text = st.text(max_size=20)
        fields = dict(verdict=data.draw(st.sampled_from(["right", "corrected", "x"])), agreed="yes", owner=data.draw(st.one_of(text, st.just(OWNER))), who=data.draw(text))
        mask = data.draw(st.one_of(st.binary(max_size=40), st.lists(st.integers(-9, 2**70), max_size=6).map(lambda v: json.dumps(v).encode()), st.just(b"[" * 9999)))
        got = client.post(path, files=dict(image=bytes(good), mask=mask), data=fields)
    else:
        kind = data.draw(st.sampled_from(["multipart/form-data; boundary=x", "multipart/form-data", "application/json", "application/x-www-form-urlencoded", "", "x\u00ff"]))
        got = client.post(path, content=b"--x\r\n"*data.draw(st.integers(0, 1))+body, headers={"content-type": kind.encode("latin-1")})
    assert got.status_code in (200, 400, 403, 404, 405, 409, 413, 415, 422), (got.status_code, got.text[:300])
    assert "Traceback" not in got.text and 'File "' not in got.text
    assert client.get("/health").json()["waiting"] == 0


# ---- crowds, and the end

class Server:
    "`segnb serve` in a process of its own"
    def __init__(self, model, store, *args):
        code = "import torch; torch.set_num_threads(1); from segnb.cli import main; import sys; sys.exit(main(sys.argv[1:]))"
        self.process = subprocess.Popen([sys.executable, "-c", code, "serve", model, "--port", "0", "--store", store, "--per-minute", "1000000", *args], stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True, cwd=root, env={**os.environ, "OMP_NUM_THREADS": "1"})
        self.url = self.process.stdout.readline().strip().rstrip("/")
        if not self.url.startswith("http://"): pytest.fail(self.url + self.process.stdout.read())
        for _ in range(600):
            try: httpx.get(self.url + "/health", timeout=60); return
            except httpx.TransportError: time.sleep(.1)

    def memory(self): return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{self.process.pid}/status").read_text())[1])/1024
    def end(self, sig=signal.SIGTERM):
        self.process.send_signal(sig)
        self.process.wait(30)
        self.process.stdout.close()


def crowd(url, clients, each, data):
    "So many clients at once, each with so many requests: statuses, and seconds of each"
    got, lock = [], threading.Lock()

    def one(k):
        with httpx.Client(base_url=url, timeout=120) as c:
            for _ in range(each):
                start = time.perf_counter()
                r = c.post("/predict", files=dict(image=data))
                with lock: got.append((r.status_code, time.perf_counter()-start, r.headers.get("retry-after"), r.json()))
    threads = [threading.Thread(target=one, args=(k,)) for k in range(clients)]
    for t in threads: t.start()
    for t in threads: t.join()
    return got


def test_a_crowd_and_a_sudden_end(model_file, tmp_path):
    server, data = Server(model_file, tmp_path / "store", "--waiting", "8"), photo((320, 240), "JPEG")
    try:
        crowd(server.url, 4, 5, data)                                               # warm
        before, got = server.memory(), crowd(server.url, 20, 10, data)
        statuses = [s for s, *_ in got]
        assert len(got) == 200 and set(statuses) <= {200, 503} and statuses.count(200) >= 10 and statuses.count(503) >= 1
        answers = {json.dumps(a, sort_keys=True) for s, _, _, a in got if s == 200}
        assert len(answers) == 1                                                    # everybody's answer is the right one
        assert all(int(after) >= 1 and "waiting" in a["error"] for s, _, after, a in got if s == 503)
        assert server.memory()-before < 60
        assert httpx.get(server.url + "/health").json()["waiting"] == 0

        confirmed, which = [], httpx.post(server.url + "/predict", files=dict(image=data)).json()["model"]
        def correct(k):
            with httpx.Client(base_url=server.url, timeout=60) as c:
                for n in range(100):
                    value = (k*100+n) % 3
                    try: r = c.post("/feedback", files=dict(image=photo(seed=k*100+n), mask=json.dumps([value, 1024]).encode()),
                                    data=dict(agreed="yes", owner=OWNER, verdict="corrected", model=which))
                    except httpx.TransportError: return                             # it was killed
                    if r.status_code == 200: confirmed.append((r.json()["saved"], k*100+n, value))
        threads = [threading.Thread(target=correct, args=(k,)) for k in range(4)]
        for t in threads: t.start()
        while len(confirmed) < 12: time.sleep(.02)
        server.end(signal.SIGKILL)
        for t in threads: t.join()
    finally:
        if server.process.poll() is None: server.end(signal.SIGKILL)
    with Feedback(tmp_path / "store", create=False) as store:
        assert len(confirmed) >= 12 and sqlite3.connect(tmp_path / "store/feedback.sqlite").execute("PRAGMA integrity_check").fetchone() == ("ok",)
        for id, seed, value in confirmed:
            assert set(store.mask(id).flat) == {value}
            np.testing.assert_array_equal(np.asarray(store.image(id)), np.asarray(Image.open(io.BytesIO(photo(seed=seed)))))


def test_a_port_that_is_taken(model_file, tmp_path):
    import socket
    from conftest import segnb
    with socket.create_server(("127.0.0.1", 0)) as s:
        got = segnb("serve", model_file, "--port", s.getsockname()[1], "--store", tmp_path / "s")
    assert got.returncode == 2 and "cannot listen" in got.stderr and "--port" in got.stderr
