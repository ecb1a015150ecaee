"""What the tests of pages share: a page that is parsed, and a browser that looks at pages."""

import contextlib
import html.parser
import http.server
import json
import shutil
import subprocess
import tempfile
import threading

import pytest


class Page(html.parser.HTMLParser):
    """Checks that tags are closed in order; has every text, and the attributes of every tag."""

    VOID = frozenset({"br", "img", "meta"})

    def __init__(self, text):
        super().__init__()
        self.open, self.texts, self.tags = [], [], []
        self.inside = {}  # the text inside of each tag with an id
        self.ids = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append((tag, dict(attributes).get("id")))
        if name := dict(attributes).get("id"):
            self.ids.append(name)
            self.inside[name] = ""

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        self.texts.append(data)
        for _, name in self.open:
            if name:
                self.inside[name] += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


MEASURE = """
const all = [...document.querySelectorAll("iframe")].map((frame) => {
  const page = frame.contentDocument, root = page.documentElement;
  for (const part of page.querySelectorAll("details:not(td *)")) part.open = true;
  const measured = {
    needs: root.scrollWidth, has: root.clientWidth,
    narrowest: Math.min(...[...page.querySelectorAll("th[scope=row], .narrow li")]
      .map((one) => one.offsetWidth).filter((width) => width)),
    cut: [...page.querySelectorAll("body, body *")]
      .filter((one) => one.clientWidth && one.scrollWidth > one.clientWidth + 1)
      .map((one) => `${one.tagName} ${one.className}`),
    pictures: [...page.images].filter((image) => image.naturalWidth).length,
    asked: frame.contentWindow.performance.getEntriesByType("resource").map((one) => one.name),
    buttons: [...page.querySelectorAll("button")].filter((button) => button.offsetWidth).length,
  };
  const button = page.querySelector(".script button");
  if (button) button.click();
  return {...measured, selected: frame.contentWindow.getSelection().toString()};
});
document.getElementById("measured").textContent = JSON.stringify(all);
"""


class Browser:
    """A headless browser that sees these pages, and no network: its own requests end here, too."""

    def __init__(self, pages):
        self.pages = {f"http://report.test/{name}": text for name, text in pages.items()}

    def measure(self, names, width):
        """What a page of this width is like, for each of these."""
        frames = [f'<iframe src="/{name}" width="{width}" height="844"></iframe>' for name in names]
        self.pages["http://report.test/frames"] = (
            f'<!DOCTYPE html>{"".join(frames)}<p id="measured"></p>'
            f'<script>addEventListener("load", () => {{{MEASURE}}})</script>'
        )
        said = Page(self._run("--dump-dom", "http://report.test/frames")).inside["measured"]
        return dict(zip(names, json.loads(said), strict=True))

    def screenshot(self, name, width, height, file):
        self._run(
            f"--screenshot={file}", f"--window-size={width},{height}", f"http://report.test/{name}"
        )

    def _run(self, *arguments):
        browser = self

        class Proxy(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                text = browser.pages.get(self.path)
                self.send_response(404 if text is None else 200)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.end_headers()
                with contextlib.suppress(OSError):  # it has ended
                    self.wfile.write((text or "").encode())

            def do_CONNECT(self):
                self.send_error(502)

            def log_message(self, *arguments):
                pass

        with (
            tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
            http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server,
        ):
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                done = subprocess.run(
                    [
                        chromium(), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
                        "--disable-background-networking", "--disable-component-update",
                        "--hide-scrollbars", f"--user-data-dir={profile}",
                        f"--proxy-server=http://127.0.0.1:{server.server_port}",
                        "--proxy-bypass-list=<-loopback>", *arguments,
                    ],
                    capture_output=True, text=True, timeout=300, check=True,
                )  # fmt: skip
            finally:
                server.shutdown()
                thread.join()
        return done.stdout


def chromium():
    """The browser of this machine; skips the test where there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    pytest.skip("no browser: none of chromium, chromium-browser, google-chrome is installed")
    return None
