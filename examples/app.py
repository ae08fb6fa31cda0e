"""A web page to play with generators: invents images, completes painted-over ones, looks inside.

    pip install -e '.[app,features]'
    python examples/app.py

The page is at http://127.0.0.1:7860, for this machine alone; docs/app.md shows it. --preset lists
the presets to choose from, names or directories. --host=0.0.0.0 lets in everybody who reaches this
machine: there is no password.
"""

import contextlib
import logging
import sys

import command_line
import playground
from absl import flags
from doorkeeper import Doorkeeper
from PIL import Image
from reports import markdown_table

import keras_vqvae2

try:
    import gradio as gr
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
except ImportError:
    sys.exit("app: the page needs Gradio. Install it with `pip install -e '.[app]'`.")

FLAGS = flags.FLAGS
command_line.define("register")
flags.DEFINE_list(
    "preset",
    ["cartoonset_128", "clothing_64", "eurosat_64", "imagenette_128"],
    "HierarchicalImageGenerator presets to offer.",
)
flags.DEFINE_string("host", "127.0.0.1", "Address to listen at; 0.0.0.0 is all of the machine's.")
flags.DEFINE_integer("port", 7860, "Port to listen at.", lower_bound=1, upper_bound=65535)
flags.DEFINE_list(
    "allowed_hosts",
    [],
    "Names that the page may be asked for by, such as *.example.org; by default those of --host.",
)
flags.DEFINE_integer("max_upload_mib", 8, "Larger uploads are refused.", lower_bound=1)

SIZE = 384  # pixels of the canvas to paint on and of the code maps, about
CANDIDATES = [("all", 1.0), ("1 of 2", 0.5), ("1 of 4", 0.25), ("1 of 8", 0.125)]
# Fonts of the visitor's own system: none are fetched.
THEME = gr.themes.Default(primary_hue="teal", font="system-ui", font_mono="monospace")
GALLERY = {
    "show_label": False,
    "height": "max-content",
    "format": "png",
    "object_fit": "contain",
    "buttons": ["fullscreen"],
    "interactive": False,
}
PROGRESS = gr.Progress()  # a default that asks Gradio for the request's own
# What runs a model waits for its turn: no two visitors use one at the same time.
TURN = {"concurrency_limit": 1, "concurrency_id": "models", "api_visibility": "private"}


@contextlib.contextmanager
def told():
    """Tells the visitor in a sentence what is wrong with a request."""
    try:
        yield
    except ValueError as error:
        raise gr.Error(str(error), print_exception=False) from error


def sampling(own, temperature, top_p, guidance_scale, seed):
    """Keywords of `generate`."""
    settings = {"temperature": temperature, "top_p": top_p, "guidance_scale": guidance_scale}
    return {**({} if own else settings), "seed": seed or 0}


def label_choices(opened):
    names = opened.generator.class_names
    choices = [playground.EVERY_LABEL, *names]
    return {"choices": choices, "value": choices[0], "interactive": bool(names)}


def candidate_choices(opened):
    info = "Rejection sampling: those whose label a classifier recognises best."
    if opened.classifier is None:
        info = f"Rejection sampling is off: {opened.why_not}."
    return {"value": 1.0, "info": info, "interactive": opened.classifier is not None}


def build_page(presets, max_bytes):
    """The page, with presets to choose from and uploads of up to `max_bytes`."""
    opened = playground.open_preset(presets[0])
    page = gr.Blocks(title="keras_vqvae2", analytics_enabled=False, delete_cache=(600, 3600))
    with page, gr.Row():
        with gr.Column(scale=1, min_width=260):
            gr.Markdown("## keras_vqvae2")
            preset = gr.Dropdown(presets, value=presets[0], label="Preset", filterable=False)
            about = gr.Markdown(playground.describe(opened))
            label = gr.Dropdown(**label_choices(opened), label="Label")
            own = gr.Checkbox(True, label="The preset's own settings")
            temperature = gr.Slider(0.1, 1.5, 1, step=0.05, label="Temperature", interactive=False)
            top_p = gr.Slider(0.05, 1, 1, step=0.05, label="Top-p", interactive=False)
            guidance = gr.Slider(0, 6, 1, step=0.25, label="Guidance", interactive=False)
            seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=2**31 - 1)
        request = [preset, label, own, temperature, top_p, guidance, seed]
        opening = [page.load, preset.change]
        with gr.Column(scale=4), gr.Tabs():
            with gr.Tab("Invent"):
                candidates = invent_tab(opened, request)
            with gr.Tab("Complete"):
                complete_tab(request, opening, max_bytes)
            with gr.Tab("Look inside"):
                inside_tab(request, opening, max_bytes)

        def open_preset(preset):
            opened = playground.open_preset(preset)
            return (
                playground.describe(opened),
                gr.update(**label_choices(opened)),
                gr.update(**candidate_choices(opened)),
            )

        preset.change(open_preset, preset, [about, label, candidates], **TURN)
        own.change(
            lambda own: [gr.update(interactive=not own)] * 3,
            *(own, [temperature, top_p, guidance]),
            api_visibility="private",
        )
    return page


def invent_tab(opened, request):
    """Samples. Returns the choice of rejection sampling, which a preset may lack."""
    with gr.Row(equal_height=True):
        count = gr.Slider(8, playground.MOST, 16, step=playground.BATCH, label="Images")
        candidates = gr.Radio(
            CANDIDATES, label="Keep of the candidates", **candidate_choices(opened), scale=2
        )
    with gr.Row():
        button = gr.Button("Invent", variant="primary")
        stop = gr.Button("Stop")
    gallery = gr.Gallery(label="Invented", columns=8, elem_id="invented", **GALLERY)

    def invent(
        preset, label, own, temperature, top_p, guidance, seed, count, rate, progress=PROGRESS
    ):
        opened = playground.open_preset(preset)
        settings = sampling(own, temperature, top_p, guidance, seed)
        with told():
            if rate == 1:
                for pairs in playground.draw(opened, label, count, **settings):
                    progress((len(pairs), count), unit="images")
                    yield pairs
                return
            if opened.classifier is None:
                raise ValueError(f"Rejection is off: {opened.why_not}.")

            def report(done, total):
                progress((done, total), unit="candidates")

            yield playground.draw_best(opened, label, count, rate, report, **settings)

    drawing = button.click(invent, [*request, count, candidates], gallery, **TURN)
    stop.click(None, cancels=[drawing])
    return candidates


def picture_chooser(request, opening, max_bytes, show, outputs):
    """Three ways to choose a picture: a photograph, an upload, an invented one.

    At the events `opening` it is the first photograph. `show`, of a `Playground` and a picture,
    returns values for `outputs`: components that whoever calls has made, and places.
    """
    preset = request[0]
    gr.Markdown("Choose a photograph, upload a picture, or let the generator invent one.")
    photographs = gr.Gallery(
        list(keras_vqvae2.data.sample_photographs(128)),
        columns=8,
        allow_preview=False,
        **{**GALLERY, "buttons": []},
    )
    with gr.Row():
        upload = gr.UploadButton(
            "Upload a picture", file_types=[".png", ".jpg", ".jpeg", ".webp"], size="sm"
        )
        button = gr.Button("Invent one", size="sm")

    def photograph(preset, number=0):
        opened = playground.open_preset(preset)
        return show(opened, keras_vqvae2.data.sample_photographs(opened.size)[number])

    def chosen(preset, event: gr.SelectData):
        return photograph(preset, event.index)

    def uploaded(preset, file):
        opened = playground.open_preset(preset)
        with told():
            return show(opened, playground.read_upload(file, opened.size, max_bytes))

    def invented(preset, label, *settings):
        opened = playground.open_preset(preset)
        with told():
            pairs = next(playground.draw(opened, label, 1, **sampling(*settings)))
            return show(opened, pairs[0][0])

    gr.on(opening, photograph, preset, outputs, **TURN)
    photographs.select(chosen, preset, outputs, **TURN)
    upload.upload(uploaded, [preset, upload], outputs, **TURN)
    button.click(invented, request, outputs, **TURN)


def complete_tab(request, opening, max_bytes):
    picture = gr.State()
    editor = gr.ImageEditor(
        label="Paint over the part that is to be invented",
        sources=(),
        transforms=(),
        layers=False,
        brush=gr.Brush(default_size=64, colors=["#e8590c"], color_mode="fixed"),
        canvas_size=(SIZE, SIZE),
        height=480,
        format="png",
        buttons=[],
        render=False,
    )

    def show(opened, picture):
        return picture, playground.enlarge(picture, SIZE)

    picture_chooser(request, opening, max_bytes, show, [picture, editor])
    with gr.Row():
        with gr.Column():
            editor.render()
        with gr.Column():
            button = gr.Button("Complete", variant="primary")
            gallery = gr.Gallery(label="Completed", columns=4, elem_id="completed", **GALLERY)

    def complete(preset, label, own, temperature, top_p, guidance, seed, picture, drawing):
        opened = playground.open_preset(preset)
        settings = sampling(own, temperature, top_p, guidance, seed)
        with told():
            if picture is None or drawing is None:
                raise ValueError("Choose a picture first.")
            mask = playground.painted(drawing["layers"], opened.size)
            return playground.complete(opened, picture, mask, label, **settings)

    button.click(complete, [*request, picture, editor], gallery, **TURN)


def inside_tab(request, opening, max_bytes):
    versions = gr.Gallery(columns=3, render=False, elem_id="versions", **GALLERY)
    maps = gr.Gallery(columns=3, render=False, elem_id="maps", **GALLERY)
    table = gr.Markdown(render=False)

    def show(opened, picture):
        versions, maps, rows = playground.look_inside(opened, picture)
        maps = [(playground.enlarge(colours, SIZE), caption) for colours, caption in maps]
        columns = ["level", "codes", "different ones", "bytes", "PSNR up to here, dB"]
        return versions, maps, markdown_table(columns, rows)

    picture_chooser(request, opening, max_bytes, show, [versions, maps, table])
    gr.Markdown("The picture from the codes of all levels, and from the upper ones alone:")
    versions.render()
    gr.Markdown("The codes. Like colours stand for like vectors of the level's codebook:")
    maps.render()
    table.render()


def allowed_hosts(host, names):
    """What a request may say it is for: else another page could let its visitors ask this one."""
    if names:
        return names
    if host in ("0.0.0.0", "::"):
        return ["*"]
    return ["127.0.0.1", "localhost", "::1", "[::1]", in_url(host)]


def in_url(host):
    """An address as it stands in a URL: that of IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def serve():
    host = FLAGS.host.strip("[]")
    Image.MAX_IMAGE_PIXELS = playground.MAX_PIXELS // 2  # Pillow raises at twice as many
    presets, max_bytes = FLAGS.preset, FLAGS.max_upload_mib * 2**20
    command_line.announce(
        f"generator {presets[0]}",
        command_line.parts(playground.open_preset(presets[0]).generator),
        f"bundled photographs, and uploads of up to {FLAGS.max_upload_mib} MiB",
        f"a web page with the presets {', '.join(presets)}",
        f"port {FLAGS.port} of {host}, until Ctrl-C",
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)  # Gradio's requests to itself
    page = build_page(presets, max_bytes)
    _, address, _ = page.queue(api_open=False, max_size=32).launch(
        server_name=in_url(host),
        server_port=FLAGS.port,
        max_file_size=max_bytes,
        theme=THEME,
        share=False,
        app_kwargs={
            "middleware": [
                Middleware(
                    TrustedHostMiddleware,
                    allowed_hosts=allowed_hosts(host, FLAGS.allowed_hosts),
                    www_redirect=False,
                ),
                Middleware(Doorkeeper, num_functions=len(page.fns)),
            ]
        },
        ssr_mode=False,
        run_history=False,
        enable_monitoring=False,
        footer_links=[],
        quiet=True,
        prevent_thread_lock=True,
    )
    print(f"The page is at {address}", flush=True)
    page.block_thread()


if __name__ == "__main__":
    command_line.run("app", serve)
