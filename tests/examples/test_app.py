"""The web page's functions, and the page itself in a headless browser."""

import json
import os
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
import zlib
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from keras_vqvae2 import VQVAE2, HierarchicalImageGenerator, PixelSnailPrior
from keras_vqvae2.evaluation import LabelClassifier
from keras_vqvae2.features import FeatureExtractor

EXAMPLES = Path(__file__).parents[2] / "examples"
OWN = {"seed": 3}


@pytest.fixture(scope="module")
def playground():
    """The module, which lies beside the scripts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        import playground

        yield playground


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    """Directory of a tiny generator with two labels, and a classifier that loves bright pixels."""
    keras.utils.set_random_seed(0)
    vqvae = VQVAE2((32, 32, 3), num_embeddings=8, hidden_units=8, residual_units=4)
    sizes = {"hidden_units": 8, "residual_units": 4, "num_blocks": 1, "block_layers": 1}
    sizes |= {"num_classes": 2, "num_embeddings": 8, "output_blocks": 0, "attention_heads": 2}
    top = PixelSnailPrior((4, 4), level="top", image_shape=(32, 32, 3), **sizes)
    bottom = PixelSnailPrior((8, 8), level="bottom", condition_factors={"top": 2}, **sizes)
    generator = HierarchicalImageGenerator(vqvae, [top, bottom], ["cat", "dog"])
    folder = tmp_path_factory.mktemp("presets") / "tiny"
    generator.save_to_preset(folder)
    weights = np.random.default_rng(0).normal(size=(1281, 2), scale=0.2)
    extractor = FeatureExtractor(None, name="EfficientNetLite0")
    LabelClassifier(extractor, weights, ["cat", "dog"]).save(folder / "classifier.npz")
    return folder


@pytest.fixture(scope="module")
def opened(playground, preset):
    return playground.open_preset(str(preset))


def test_invented_pictures_are_the_generators(playground, opened):
    steps = list(playground.draw(opened, playground.EVERY_LABEL, 11, **OWN))
    assert [len(pairs) for pairs in steps] == [8, 11]
    assert [label for _, label in steps[1]] == [["cat", "dog"][i % 2] for i in range(11)]
    expected = opened.generator.generate(11, verbose=0, **OWN)
    pictures = np.stack([picture for picture, _ in steps[1]])
    assert pictures.dtype == np.uint8
    np.testing.assert_allclose(pictures / 255, expected, atol=0.6 / 255)

    ((_, label), *_), *_ = playground.draw(opened, "dog", 1, temperature=0.5, **OWN)
    assert label == "dog"


def test_rejection_keeps_the_best_candidates(playground, opened):
    reports = []
    kept = playground.draw_best(opened, "dog", 8, 0.5, lambda *n: reports.append(n), **OWN)
    assert reports == [(0, 16), (8, 16), (16, 16)]
    *_, candidates = playground.draw(opened, "dog", 16, **OWN)
    pictures = np.stack([picture for picture, _ in candidates])
    scores = opened.classifier(pictures)[:, 1]
    best = np.argsort(-scores, kind="stable")[:8]
    np.testing.assert_array_equal(np.stack([picture for picture, _ in kept]), pictures[best])
    assert [caption for _, caption in kept] == [f"dog, {score:.0%}" for score in scores[best]]


@pytest.mark.parametrize("count", [0, 65, 10**9, 8.5, float("nan"), None])
def test_numbers_of_images_that_the_page_does_not_offer(playground, opened, count):
    with pytest.raises(ValueError, match="Expected 1 to 64 images"):
        next(playground.draw(opened, "dog", count, **OWN))
    with pytest.raises(ValueError, match="Expected 1 to 64 images"):
        playground.draw_best(opened, "dog", count, 0.5, print, **OWN)


def test_labels_that_the_page_does_not_offer(playground, opened):
    with pytest.raises(ValueError, match="one of the labels cat, dog. Received: cow"):
        next(playground.draw(opened, "cow", 8, **OWN))


def test_why_there_is_no_rejection(playground, preset, tmp_path):
    shutil.copytree(preset, tmp_path / "tiny")
    (tmp_path / "tiny" / "classifier.npz").unlink()
    opened = playground.open_preset(str(tmp_path / "tiny"))
    assert opened.classifier is None
    assert opened.why_not == f"fit_classifier.py has not written {tmp_path}/tiny/classifier.npz"


def test_half_painted_pixels_are_to_be_invented(playground):
    layer = np.zeros((64, 64, 4), "uint8")
    layer[:32, :16] = 255
    layer[40:42, 40] = 255  # two of the four that make one pixel
    layer[50, 50] = 255  # one of four
    expected = np.zeros((32, 32), bool)
    expected[:16, :8] = expected[20, 20] = True
    np.testing.assert_array_equal(playground.painted([layer], (32, 32)), expected)
    for layers in ([], [np.zeros((64, 64, 4), "uint8")]):
        with pytest.raises(ValueError, match="Paint over the part"):
            playground.painted(layers, (32, 32))


def test_completions_keep_what_is_not_painted(playground, opened, rng):
    picture = rng.integers(256, size=(32, 32, 3), dtype="uint8")
    mask = np.zeros((32, 32), bool)
    mask[16:] = True
    pairs = playground.complete(opened, picture, mask, "cat", **OWN)
    captions = [caption for _, caption in pairs]
    assert captions == ["before", "kept", *["cat"] * 8]
    np.testing.assert_array_equal(pairs[0][0], picture)
    assert (pairs[1][0][16:] == 128).all()
    for completed, _ in pairs[2:]:
        np.testing.assert_array_equal(completed[:16], picture[:16])
        assert (completed[16:] != picture[16:]).any()


def test_look_inside_has_a_map_and_a_row_for_each_level(playground, opened, rng):
    picture = rng.integers(256, size=(32, 32, 3), dtype="uint8")
    versions, maps, table = playground.look_inside(opened, picture)
    names = [caption.split(",")[0] for _, caption in versions]
    assert names == ["original", "reconstruction", "top only"]
    np.testing.assert_array_equal(versions[0][0], picture)
    codes = opened.vqvae.encode(picture[None])
    for (colours, _), level in zip(maps, ("top", "bottom")):
        assert colours.shape == (*codes[level].shape[1:], 3)
        used = np.unique(codes[level])
        assert len(np.unique(colours.reshape(-1, 3), axis=0)) == len(used)
    assert [row[0] for row in table] == ["top", "bottom"]
    assert [row[3] for row in table] == ["6", "24"]  # 16 and 64 codes of 3 bits
    assert table[1][4] == versions[1][1].split()[1]  # PSNR of the reconstruction


def save(path, size=(60, 40), mode="RGB", **options):
    Image.new(mode, size, 200 if mode in "LP1" else (200, 100, 50, 255)[: len(mode)]).save(
        path, **options
    )
    return path


def promise(path, size):
    """A few bytes of a PNG that says it has that many rows and columns."""

    def chunk(kind, data):
        return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)

    header = size.to_bytes(4) * 2 + bytes([8, 2, 0, 0, 0])  # 8 bits, RGB
    data = zlib.compress(bytes(1000))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data))
    return path


def test_uploads_of_the_right_kinds_are_read(playground, tmp_path):
    for name, mode in (("a.png", "RGBA"), ("b.jpg", "L"), ("c.webp", "RGB"), ("d.jpg", "CMYK")):
        picture = playground.read_upload(save(tmp_path / name, mode=mode), (32, 32), 10**6)
        assert picture.shape == (32, 32, 3) and picture.dtype == np.uint8
    assert abs(playground.read_upload(tmp_path / "a.png", (32, 32), 10**6)[0, 0, 1] - 100.0) < 2


def test_other_uploads_are_refused_in_a_sentence(playground, tmp_path):
    text, half = tmp_path / "text.png", tmp_path / "half.jpg"
    text.write_text("not a picture")
    noise = np.random.default_rng(0).integers(256, size=(200, 200, 3), dtype="uint8")
    Image.fromarray(noise).save(half)
    half.write_bytes(half.read_bytes()[: half.stat().st_size // 2])
    refused = {
        text: "PNG, JPEG or WebP",
        save(tmp_path / "a.gif"): "PNG, JPEG or WebP",
        save(tmp_path / "renamed.png", format="GIF"): "PNG, JPEG or WebP",
        promise(tmp_path / "large.png", 7000): "at most 40 million pixels",
        promise(tmp_path / "bomb.png", 100_000): "at most 40 million pixels",
        save(tmp_path / "ribbon.png", (900, 20)): "eight times",
        half: "does not decode",
    }
    for path, sentence in refused.items():
        with pytest.raises(ValueError, match=sentence):
            playground.read_upload(path, (32, 32), 10**6)
    with pytest.raises(ValueError, match="at most 0.5 MiB"):
        (tmp_path / "heavy.png").write_bytes(bytes(2**20))
        playground.read_upload(tmp_path / "heavy.png", (32, 32), 2**19)


# === In a browser ===


@pytest.fixture(scope="module")
def chromium():
    """A page of a headless Chromium that is installed here; none is downloaded."""
    pytest.importorskip("gradio", reason="the page needs Gradio")
    api = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip(f"needs a browser on PATH: one of {', '.join(names)}")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def serve(*options):
    """Starts the script. Returns its process and the address of the page."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, EXAMPLES / "app.py", f"--port={port}", *options],
        env={**os.environ, "KERAS_BACKEND": keras.backend.backend()},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("The page is at "):
            return process, f"http://127.0.0.1:{port}"
    process.wait()
    raise AssertionError("".join(lines[-30:]))


@pytest.fixture(scope="module")
def server(preset):
    pytest.importorskip("gradio", reason="the page needs Gradio")
    process, address = serve(f"--preset={preset}", "--max_upload_mib=1")
    yield process, address
    process.terminate()
    process.wait()


@pytest.fixture
def page(chromium, server):
    """The page, opened; every request that it makes goes to the server."""
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(60_000)
    hosts = set()
    page.on("request", lambda request: hosts.add(urllib.parse.urlparse(request.url).hostname))
    page.goto(server[1])
    page.get_by_role("button", name="Invent", exact=True).wait_for()
    yield page
    assert hosts - {None} == {"127.0.0.1"}
    page.close()


@pytest.mark.slow
def test_the_page_invents(page):
    assert page.locator("img").count() < 8
    page.get_by_role("button", name="Invent", exact=True).click()
    page.locator("img").nth(15).wait_for(state="attached")


@pytest.mark.slow
def test_the_page_completes_what_is_painted_over(page):
    page.get_by_role("tab", name="Complete").click()
    button = page.get_by_role("button", name="Complete", exact=True)
    button.click()
    page.get_by_text("Paint over the part of the picture").wait_for()  # nothing is painted yet
    box = page.locator("canvas:visible").first.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 40, y)
    page.mouse.down()
    for step in range(9):
        page.mouse.move(x - 40 + 10 * step, y)
    page.mouse.up()
    page.wait_for_timeout(500)  # until the editor has sent its layer
    button.click()
    page.locator("#completed img").nth(9).wait_for()  # before, what is kept, eight completions
    assert page.locator("#completed img").count() == 10


@pytest.mark.slow
def test_the_page_refuses_other_uploads(page, tmp_path):
    page.get_by_role("tab", name="Look inside").click()
    upload = page.locator("input[type=file]:not([disabled])").last
    text = tmp_path / "text.png"
    text.write_text("not a picture")
    upload.set_input_files(text)
    page.get_by_text("Expected a PNG, JPEG or WebP picture").first.wait_for()
    upload.set_input_files(promise(tmp_path / "large.png", 7000))
    page.get_by_text("at most 40 million pixels").first.wait_for()
    heavy = tmp_path / "heavy.png"
    heavy.write_bytes(bytes(2 * 2**20))
    upload.set_input_files(heavy)
    page.get_by_text("exceed the maximum allowed size").first.wait_for()


@pytest.mark.slow
def test_the_page_looks_inside(page):
    page.get_by_role("tab", name="Look inside").click()
    page.locator("#maps img").nth(1).wait_for()  # a map a level
    assert page.locator("#maps img").count() == 2
    page.get_by_text("PSNR up to here, dB").wait_for()


@pytest.mark.parametrize(
    "host, allowed",
    [("::1", "[::1]"), ("fe80::1", "[fe80::1]"), ("127.0.0.1", "127.0.0.1"), ("::", "*")],
)
def test_addresses_of_both_kinds(host, allowed):
    pytest.importorskip("gradio", reason="the page needs Gradio")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        import app
    assert allowed in app.allowed_hosts(host, [])
    assert app.in_url(host) == (f"[{host}]" if ":" in host else host)


@pytest.mark.slow
def test_it_listens_on_this_machine_alone(server):
    psutil = pytest.importorskip("psutil")
    listening = [
        connection.laddr.ip
        for connection in psutil.Process(server[0].pid).net_connections()
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening and set(listening) == {"127.0.0.1"}


def ask(address, path, host=None, **question):
    """The status and the body of an answer of the page's server."""
    request = urllib.request.Request(
        address + path,
        data=json.dumps(question).encode() if question else None,
        headers={"Content-Type": "application/json", **({"Host": host} if host else {})},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.slow
def test_it_answers_its_own_page_alone(server):
    address = server[1]
    assert ask(address, "/", host="elsewhere.example")[0] == 400
    assert ask(address, "/", host="localhost")[0] == 200
    config = json.loads(ask(address, "/config")[1])
    names = [dependency["api_name"] for dependency in config["dependencies"]]
    for path in ("/gradio_api/run/invent", "/gradio_api/call/invent", "/gradio_api/api/invent"):
        status, body = ask(address, path, data=[])
        assert status == 404 and "The page has nothing" in body
    join, question = "/gradio_api/queue/join", {"session_hash": "me", "data": []}
    status, body = ask(address, join, fn_index=len(names), **question)
    assert status == 400 and f"below {len(names)}" in body
    # Who asks and never listens keeps no place.
    statuses = [
        ask(address, join, fn_index=names.index("invent"), session_hash=f"gone{i}", data=[])[0]
        for i in range(10)
    ]
    assert statuses.count(429) >= 2 and set(statuses) == {200, 429}
