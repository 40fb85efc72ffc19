"""Drives the pages in chromium, as .ci/browser says: python3 browser.py BINARY FOLDER-FOR-SCREENSHOTS.

Chromium is spoken to over two pipes in its DevTools protocol, so nothing but Python's own library is needed. What a person
would do is done with keys and mouse, so that it works the same with scripts switched off.
"""

import base64
import contextlib
import datetime
import json
import os
import pathlib
import random
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request

BINARY, SHOTS = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2])
PATIENCE = 60  # seconds until something that must happen counts as not happening

passed, failed = 0, 0


def check(what, holds, shown=""):
    global passed, failed
    if holds:
        passed += 1
    else:
        failed += 1
        print(f"FAILED {what} {shown}".rstrip(), flush=True)


def wait(condition, patience=PATIENCE):
    """Asks again until it holds; its last answer. A page that is just being exchanged has none."""
    end = time.monotonic() + patience
    while True:
        try:
            answer = condition()
        except RuntimeError:
            answer = None
        if answer or time.monotonic() > end:
            return answer
        time.sleep(0.1)


def fetch(url, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read().decode()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


# ---- The world: invented customers, each with another trouble. ----


class World:
    def __init__(self, folder, stack):
        self.folder, self.stack = folder, stack
        self.ports, self.sections = {}, []
        self.port = free_port()

    def start(self, *arguments):
        # As where it is installed: found by its name, with its configuration where it looks for it.
        environment = dict(os.environ, PATH=f"{BINARY.parent}:{os.environ['PATH']}", TORQ_CONNECTOR_CONFIG=str(self.folder / "config.toml"))
        process = subprocess.Popen(
            [BINARY, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=open(self.folder / "log", "a"), cwd=self.folder,
            env=environment,
        )

        def end():
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()

        self.stack.callback(end)

    def customer(self, name, people, *options, secret="sandbox-torq-secret", interval="10s", more=""):
        port = self.ports[name] = free_port()
        self.start("sandbox", "--listen", f"127.0.0.1:{port}", "--people", str(people), "--every", "off",
                   "--seed", str(len(self.ports)), *options)
        base = f"http://127.0.0.1:{port}"
        self.sections.append(f"""
[connectors.{name}]
poll_interval = "{interval}"
[connectors.{name}.torq]
region = "us"
api_url = "{base}/torq/public/v1alpha"
token_url = "{base}/torq/v1/auth/token"
client_id = "sandbox-torq-id"
client_secret = "{secret}"
{more}
[connectors.{name}.jumpcloud]
region = "us"
console_url = "{base}/jumpcloud"
token_url = "{base}/jumpcloud/oauth2/token"
client_id = "sandbox-jumpcloud-id"
client_secret = "sandbox-jumpcloud-secret"
""")

    def control(self, name, verb, body):
        return fetch(f"http://127.0.0.1:{self.ports[name]}/sandbox/{verb}", body)

    def command(self, *arguments):
        return subprocess.run([BINARY, "--config", self.folder / "config.toml", *arguments], capture_output=True, text=True, timeout=300)

    def url(self, path):
        return f"http://127.0.0.1:{self.port}{path}"

    def build(self):
        soon = datetime.date.today() + datetime.timedelta(days=5)
        self.customer("acme", 640, "--existing-share", "0.85", "--directory-share", "0.93", interval="30s")
        self.customer("globex", 60, "--existing-share", "0.8")
        self.customer("initech", 40, "--existing-share", "0.9", "--fault", "422:account-create", interval="30s")
        self.customer("umbrella", 20, secret="revoked")
        self.customer("hooli", 3000, "--fault", "delay=2s:users", interval="30s")
        self.customer("wayne", 30, "--existing-share", "1")
        self.customer("stark", 25, "--existing-share", "1", interval="30s", more=f"key_expires = {soon}")
        for name in ["aperture", "cyberdyne", "soylent", "tyrell", "vandelay"]:
            self.customer(name, 12, "--existing-share", "1", interval="30s")
        text = f'state_dir = "state"\n[http]\nlisten = "127.0.0.1:{self.port}"\n' + "".join(self.sections)
        config = self.folder / "config.toml"
        config.write_text(text)
        config.chmod(0o600)
        for port in self.ports.values():
            wait(lambda: reachable(port))
        self.command("sync", "acme", "globex", "initech")
        self.control("globex", "leave", {"count": 20})
        self.command("sync", "globex")
        self.command("sync", "globex")
        self.command("pause", "wayne")
        age(self.folder / "state" / "acme.db")
        self.start("run")

        def settled():
            try:
                states = {one["name"]: one["state"] for one in json.loads(fetch(self.url("/api/status")))["connectors"]}
            except OSError:
                return None
            wanted = {"umbrella": "reconnect_required", "globex": "held", "wayne": "paused", "hooli": "collecting", "vandelay": "connected"}
            return states if all(states.get(name) == state for name, state in wanted.items()) else None

        check("the world is as it should be", wait(settled), (self.folder / "log").read_text()[-2000:])


def reachable(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def age(file):
    """Gives a connector a past: runs over eleven weeks in which people came and went, and users known since then."""
    chance = random.Random(7)
    now = datetime.datetime.now(datetime.timezone.utc)
    stamp = lambda at: at.strftime("%Y-%m-%dT%H:%M:%S.000Z")
    with contextlib.closing(sqlite3.connect(file)) as db, db:
        db.execute("UPDATE runs SET no = no + 10000")
        users = db.execute("SELECT count(*) FROM users").fetchone()[0]
        changes = [(day, max(0, round(chance.gauss(1.6, 2.2))), max(0, round(chance.gauss(0.2, 1.1)))) for day in range(76, 0, -1) if day % 7 > 1]
        first = users - sum(came - went for _, came, went in changes)
        db.execute("UPDATE runs SET appeared = 0")
        for no, (day, came, went) in enumerate([(77, first, 0), *changes], 1):
            at = stamp(now - datetime.timedelta(days=day))
            db.execute("INSERT INTO runs (no, started, finished, outcome, appeared, disappeared) VALUES (?, ?, ?, 'done', ?, ?)", (no, at, at, came, went))
        for (no,) in db.execute("SELECT no FROM users").fetchall():
            at = stamp(now - datetime.timedelta(days=chance.choice([77] * 5 + list(range(1, 77)))))
            db.execute("UPDATE users SET first_seen = ? WHERE no = ?", (at, no))
            db.execute("UPDATE events SET at = ? WHERE user_id = (SELECT id FROM users WHERE no = ?)", (at, no))


# ---- The browser. ----


class Browser:
    FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--force-color-profile=srgb", "--remote-debugging-pipe"]

    def __init__(self, profile, stack):
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        self.process = subprocess.Popen(
            ["sh", "-c", f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}', "sh", "chromium", *self.FLAGS, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(theirs_in, theirs_out), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(theirs_in)
        os.close(theirs_out)
        self.reader, self.writer = os.fdopen(ours_in, "rb"), os.fdopen(ours_out, "wb")
        self.last, self.rest = 0, b""
        stack.callback(self.end)

    def end(self):
        with contextlib.suppress(OSError):
            self.writer.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()

    def message(self):
        while b"\0" not in self.rest:
            more = os.read(self.reader.fileno(), 1 << 20)
            if not more:
                raise EOFError("chromium ended")
            self.rest += more
        text, self.rest = self.rest.split(b"\0", 1)
        return json.loads(text)

    def send(self, method, parameters, session, heard):
        self.last += 1
        number = self.last
        request = {"id": number, "method": method, "params": parameters}
        if session:
            request["sessionId"] = session
        self.writer.write(json.dumps(request).encode() + b"\0")
        self.writer.flush()
        while True:
            message = self.message()
            if message.get("id") == number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]
            heard(message)

    def tab(self, world, scripts=True, width=1280, height=900, dark=False):
        return Tab(self, world, scripts, width, height, dark)


class Tab:
    """A tab of its own, with what the browser complained about in it."""

    def __init__(self, browser, world, scripts, width, height, dark):
        self.browser, self.world = browser, world
        self.complaints, self.loads, self.session = [], 0, None
        self.target = browser.send("Target.createTarget", {"url": "about:blank"}, None, self.hear)["targetId"]
        self.session = browser.send("Target.attachToTarget", {"targetId": self.target, "flatten": True}, None, self.hear)["sessionId"]
        for domain in ["Page", "Runtime", "Log", "DOM"]:
            self.ask(f"{domain}.enable")
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500)
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self.ask("Emulation.setFocusEmulationEnabled", enabled=True)
        if not scripts:
            self.ask("Emulation.setScriptExecutionDisabled", value=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.browser.send("Target.closeTarget", {"targetId": self.target}, None, self.hear)

    def hear(self, message):
        if message.get("sessionId") != self.session:
            return
        method, parameters = message["method"], message["params"]
        if method == "Page.loadEventFired":
            self.loads += 1
        elif method == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            self.complaints.append(parameters["entry"]["text"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(parameters["exceptionDetails"].get("exception", {}).get("description", "exception"))
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning", "assert"):
            self.complaints.append(str(parameters["args"]))

    def ask(self, method, **parameters):
        return self.browser.send(method, parameters, self.session, self.hear)

    def value(self, expression):
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def loading(self, act):
        before = self.loads
        act()
        if not wait(lambda: self.value("document.readyState") and self.loads > before, 30):
            raise TimeoutError("the page does not load")

    def go(self, path):
        self.loading(lambda: self.ask("Page.navigate", url=self.world.url(path)))

    def click(self, selector):
        root = self.ask("DOM.getDocument")["root"]["nodeId"]
        node = self.ask("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.ask("DOM.scrollIntoViewIfNeeded", nodeId=node)
        quad = self.ask("DOM.getContentQuads", nodeId=node)["quads"][0]
        place = {"x": sum(quad[0::2]) / 4, "y": sum(quad[1::2]) / 4, "button": "left", "clickCount": 1}
        self.ask("Input.dispatchMouseEvent", type="mousePressed", **place)
        self.ask("Input.dispatchMouseEvent", type="mouseReleased", **place)

    def key(self, name, code, text=None):
        press = {"key": name, "code": name, "windowsVirtualKeyCode": code}
        self.ask("Input.dispatchKeyEvent", type="keyDown", **press, **({"text": text} if text else {}))
        self.ask("Input.dispatchKeyEvent", type="keyUp", **press)

    def type(self, selector, text):
        self.click(selector)
        self.ask("Input.insertText", text=text)

    def enter(self):
        self.key("Enter", 13, "\r")

    def shot(self, name, whole=True):
        picture = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        (SHOTS / f"{name}.png").write_bytes(base64.b64decode(picture["data"]))


# ---- What is looked at. ----

# Text that is too faint on its ground: WCAG AA asks for 4.5 to 1.
FAINT = """(() => {
  const rgb = (text) => { const n = text.match(/[\\d.]+/g).map(Number); return n[3] === 0 ? null : n.slice(0, 3); };
  const light = (c) => { const [r, g, b] = c.map((v) => { v /= 255; return v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; });
    return .2126 * r + .7152 * g + .0722 * b; };
  const ground = (e) => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c) return c; } return [255, 255, 255]; };
  const faint = [];
  for (const e of document.querySelectorAll("body *")) {
    if (![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()) || !e.getClientRects().length || e.closest("svg")) continue;
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(ground(e))].sort((x, y) => y - x);
    const ratio = (a + .05) / (b + .05);
    if (ratio < 4.5) faint.push(`${e.tagName} ${e.className} ${ratio.toFixed(2)} ${e.textContent.slice(0, 30)}`);
  }
  return faint;
})()"""

# What the keyboard must reach, in the order of the document.
REACHABLE = """(() => {
  const all = [...document.querySelectorAll("a[href], button, input:not([type=hidden]), select, summary, .scroll")];
  window.reachable = all.filter((e) => e.checkVisibility({ contentVisibilityAuto: true, visibilityProperty: true }));
  return window.reachable.length;
})()"""


def rows(tab, table):
    return tab.value(f"[...document.querySelectorAll('#{table} tbody tr:not(.said)')].map((row) => [...row.cells].map((cell) => cell.innerText.trim()))")


def look(browser, world, pages):
    """Every page in every dress: nothing to complain about, nothing sticks out, everything can be read."""
    for dress, options in {
        "light": {},
        "dark": {"dark": True},
        "phone": {"width": 360, "height": 740},
        "phone-dark": {"width": 360, "height": 740, "dark": True},
    }.items():
        for name, path in pages.items():
            with browser.tab(world, **options) as tab:
                tab.go(path)
                check(f"{name} {dress}: nothing to complain about", not tab.complaints, tab.complaints)
                wide = tab.value("document.documentElement.scrollWidth - document.documentElement.clientWidth")
                check(f"{name} {dress}: nothing sticks out", wide <= 0, wide)
                faint = tab.value(FAINT)
                check(f"{name} {dress}: everything can be read", not faint, faint)
                tab.shot(f"{name}-{dress}")
    # For the documentation: what fits on a screen.
    for name, page, height, dark in [("status-page", "overview", 690, False), ("connector-page", "connector", 690, True), ("users-page", "users", 560, False)]:
        with browser.tab(world, width=1000, height=height, dark=dark) as tab:
            tab.go(pages[page])
            # As where the configuration is at its usual place.
            tab.value("document.querySelectorAll('code.command').forEach(code => code.textContent = code.textContent.replace(/ --config \\S+/, ''))")
            tab.shot(name, whole=False)
    for name in ["users", "connector"]:
        with browser.tab(world, width=794, height=1123) as tab:
            tab.ask("Emulation.setEmulatedMedia", media="print")
            tab.go(pages[name])
            seen = tab.value("[...document.querySelectorAll('form, button, nav')].filter((e) => e.getClientRects().length).length")
            check(f"{name} on paper: no forms and buttons", seen == 0, seen)
            tab.shot(f"{name}-paper", whole=False)


def keyboard(browser, world, pages):
    """The tab key reaches everything, in order, and where it is can be seen."""
    for name, path in pages.items():
        with browser.tab(world) as tab:
            tab.go(path)
            count = tab.value(REACHABLE)
            reached, unseen = [], []
            # A date has fields of its own.
            for _ in range(count + 3 * tab.value("document.querySelectorAll('input[type=date]').length")):
                tab.key("Tab", 9)
                here = tab.value("window.reachable.indexOf(document.activeElement)")
                if here not in reached[-1:]:
                    reached.append(here)
                if tab.value("getComputedStyle(document.activeElement).outlineStyle") == "none":
                    unseen.append(here)
            check(f"{name}: the tab key reaches everything in order", reached == list(range(count)), reached)
            check(f"{name}: the focus can be seen", not unseen, unseen)
    with browser.tab(world) as tab:
        tab.go("/")
        tab.key("Tab", 9)
        tab.enter()
        check("the skip link leads to the content", wait(lambda: tab.value("document.activeElement.id") == "main", 5))


def ask(browser, world, scripts):
    """Searching, filtering, sorting and paging, with scripts and without."""
    how = "with scripts" if scripts else "without scripts"
    with browser.tab(world, scripts=scripts) as tab:
        tab.go("/connectors/acme/users")
        everyone = rows(tab, "users")
        check(f"{how}: a page of users", len(everyone) == 50, len(everyone))
        tab.loading(lambda: tab.click("a[rel=next]"))
        second = rows(tab, "users")
        check(f"{how}: the next page has others", second and second[0][0] > everyone[-1][0], second[:1])
        check(f"{how}: it is said which page", "Page 2 of 13" in tab.value("document.querySelector('.pager').innerText"))
        tab.loading(lambda: tab.click("#users thead th:nth-child(5) a"))
        check(f"{how}: sorted by last login", rows(tab, "users")[0][4] == "never", rows(tab, "users")[:1])
        sorted_by = tab.value("document.querySelector('th[aria-sort]').innerText")
        check(f"{how}: it is said by what", sorted_by.startswith("Last login"), sorted_by)
        someone = everyone[7][0]
        tab.type("input[name=search]", someone.split("@")[0])
        tab.loading(tab.enter)
        found = rows(tab, "users")
        check(f"{how}: searched", [row[0] for row in found] == [someone], found)
        check(f"{how}: the search stays in its field", tab.value("document.querySelector('input[name=search]').value") == someone.split("@")[0])
        tab.loading(lambda: tab.click("#users tbody a"))
        check(f"{how}: a user's page", someone in tab.value("document.querySelector('h1').innerText"))
        check(f"{how}: with a history", len(rows(tab, "history")) > 0)
        tab.go("/connectors/acme/users")
        tab.click("input[name=unmatched]")
        tab.loading(lambda: tab.click("form.filters button"))
        unmatched = rows(tab, "users")
        check(f"{how}: filtered", unmatched and all(row[7] == "not there" for row in unmatched), unmatched[:2])
        tab.go("/connectors/acme/users")
        tab.click("select[name=sso]")
        tab.key("ArrowDown", 40)
        tab.key("ArrowDown", 40)
        tab.enter()
        tab.loading(lambda: tab.click("form.filters button"))
        check(f"{how}: filtered by a choice", {row[2] for row in rows(tab, "users")} == {"local"}, rows(tab, "users")[:1])
        tab.go("/connectors/acme/events?kind=account_created")
        first = rows(tab, "events")
        check(f"{how}: a page of events", len(first) == 50 and {row[1] for row in first} == {"account created"}, len(first))
        tab.loading(lambda: tab.click("a[rel=next]"))
        check(f"{how}: older events", rows(tab, "events") and rows(tab, "events")[0] != first[0])
        tab.go("/")
        worst = [row[0] for row in rows(tab, "connectors")]
        check(f"{how}: what is wrong comes first", worst[0] == "umbrella", worst)
        tab.type("input[name=search]", "tyr")
        tab.loading(tab.enter)
        check(f"{how}: connectors are searched", [row[0] for row in rows(tab, "connectors")] == ["tyrell"])
        buttons = tab.value("document.querySelectorAll('button.copy').length")
        check(f"{how}: commands can be copied" if scripts else f"{how}: no button that does nothing", bool(buttons) == scripts, buttons)
        check(f"{how}: nothing to complain about", not tab.complaints, tab.complaints)


def live(browser, world):
    """Pages that live are renewed, and nobody who is typing or reading is disturbed."""
    progress = "document.querySelector('.progress')?.innerText"
    stamp = "document.querySelector('body > header time').dateTime"
    with browser.tab(world) as tab:
        tab.go("/connectors/hooli")
        before, loads = tab.value(progress), tab.loads
        check("a first collection says how far it is", "Reading Torq" in (before or ""), before)
        check("its progress is renewed by the script", wait(lambda: tab.value(progress) != before))
        check("without loading the page again", tab.loads == loads)
        check("nothing to complain about while it lives", not tab.complaints, tab.complaints)
    with browser.tab(world, scripts=False) as tab:
        tab.go("/connectors/hooli")
        before, loads = tab.value(stamp), tab.loads
        check("without scripts it is loaded again", wait(lambda: tab.value(stamp) != before and tab.loads > loads))
    with browser.tab(world) as tab:
        tab.go("/")
        before = tab.value(stamp)
        tab.type("input[name=search]", "half a na")
        check("the list is renewed while somebody types", wait(lambda: tab.value(stamp) != before))
        check("what was typed stays", tab.value("document.querySelector('input[name=search]').value") == "half a na")
        check("and so does the focus", tab.value("document.activeElement.name") == "search")
    with browser.tab(world) as tab:
        tab.go("/connectors/acme")
        before = tab.value(stamp)
        tab.click("summary")
        tab.click("h1")
        check("a page with an opened table is renewed", wait(lambda: tab.value("document.activeElement === document.body || document.activeElement.blur()") and tab.value(stamp) != before))
        check("and the table stays open", tab.value("document.querySelector('#course-table').open"))
    with browser.tab(world) as tab:
        browser.send("Browser.grantPermissions", {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"], "origin": world.url("")}, None, tab.hear)
        tab.go("/connectors/globex")
        tab.click("button.copy")
        check("a command is copied", wait(lambda: tab.value("document.querySelector('button.copy').innerText") == "Copied", 10))
        # The policy bites: nothing can be made of text, and nothing inline runs.
        check("no markup is made of text", tab.value("(() => { try { document.body.innerHTML = '<p>'; return false } catch { return true } })()"))
        tab.value("(() => { const s = document.createElement('style'); s.append('h1 { color: rgb(1, 2, 3) }'); document.head.append(s) })()")
        check("no inline style is applied", tab.value("getComputedStyle(document.querySelector('h1')).color") != "rgb(1, 2, 3)")


def main():
    SHOTS.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="torq-connector-browser-", ignore_cleanup_errors=True)))
        world = World(folder, stack)
        world.build()
        browser = Browser(folder / "profile", stack)
        someone = json.loads(fetch(world.url("/api/users?connector=acme&unmatched=true")))["users"][0]["id"]
        pages = {
            "overview": "/",
            "connector": "/connectors/acme",
            "users": "/connectors/acme/users",
            "user": f"/connectors/acme/users/{someone}",
            "events": "/connectors/acme/events",
            "held": "/connectors/globex",
            "parked": "/connectors/initech/users?account=parked",
            "refused": "/connectors/umbrella",
            "collecting": "/connectors/hooli",
        }
        look(browser, world, pages)
        keyboard(browser, world, {name: pages[name] for name in ["overview", "connector", "events", "user", "held"]})
        ask(browser, world, scripts=True)
        ask(browser, world, scripts=False)
        live(browser, world)
        with browser.tab(world) as tab:
            tab.ask("Page.navigate", url=world.url("/connectors/nobody"))
            check("a page that is not there says so", wait(lambda: tab.value("document.querySelector('h1')?.innerText") == "No such connector", 10))


try:
    main()
except Exception as error:  # whatever it is, what was seen until then is told
    check("the checks come to their end", False, repr(error))
print(f"{passed} passed, {failed} failed")
sys.exit(1 if failed or not passed else 0)
