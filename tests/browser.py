# SPDX-License-Identifier: Apache-2.0
"""A real Chromium without a screen, driven over its DevTools protocol: pages as a user has them.

The few commands that the tests need, over the WebSocket client that the product's own HTTP library
brings: no browser driver, no browser of somebody else's build.
"""

import asyncio
import base64
import contextlib
import json
import os
import re
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

PROGRAM = "chromium-headless-shell"  # Debian's
START_SECONDS = 30.0
WAIT_SECONDS = 30.0
COMMAND_SECONDS = 60.0
LISTENING = re.compile(rb"DevTools listening on (ws://\S+)")
ARGUMENTS = (
    "--remote-debugging-port=0",
    "--no-sandbox",  # which root can't have; it sees our own pages alone
    "--ignore-certificate-errors",  # Cockpit makes its own
    "--no-first-run",
    "--disable-gpu",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
    "--lang=en-US",
)
KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32}
TEXT_OF_KEY = {"Enter": "\r", " ": " "}


class BrowserError(Exception):
    """The browser refused a command, or a script threw; the message has its words."""


class Browser:
    """One Chromium; a page each with its own storage. Use :func:`browser`."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._next_number = 1
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._pages: dict[str, Page] = {}
        self._receiving = asyncio.create_task(self._receive())

    async def command(
        self, method: str, session: str | None = None, **parameters: Any
    ) -> dict[str, Any]:
        """Run a command of the protocol; raises ``BrowserError`` where it is refused."""
        number, self._next_number = self._next_number, self._next_number + 1
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json(message)
        async with asyncio.timeout(COMMAND_SECONDS):
            result: dict[str, Any] = await answer
        return result

    async def open(self, address: str, *, width: int = 1280, height: int = 900) -> "Page":
        """A new page at ``address``, with cookies and storage of its own."""
        context = (await self.command("Target.createBrowserContext"))["browserContextId"]
        target = await self.command(
            "Target.createTarget", url="about:blank", browserContextId=context
        )
        attached = await self.command(
            "Target.attachToTarget", targetId=target["targetId"], flatten=True
        )
        page = self._pages[attached["sessionId"]] = Page(self, attached["sessionId"])
        for domain in ("Page", "Runtime", "Log"):
            await page.command(f"{domain}.enable")
        await page.resize(width, height)
        await page.command("Page.navigate", url=address)
        return page

    async def close(self) -> None:
        """Ask it to end, children and all."""
        with contextlib.suppress(BrowserError, TimeoutError, ConnectionError):
            await self.command("Browser.close")
        self._receiving.cancel()
        await asyncio.gather(self._receiving, return_exceptions=True)

    async def _receive(self) -> None:
        async for raw in self._socket:
            message = json.loads(raw.data)
            if "id" not in message:
                page = self._pages.get(message.get("sessionId", ""))
                if page is not None:
                    page.hear(message["method"], message["params"])
                continue
            answer = self._waiting.pop(message["id"])
            if answer.done():
                continue
            if "error" in message:
                answer.set_exception(BrowserError(message["error"]["message"]))
            else:
                answer.set_result(message["result"])


class Page:
    """One page.

    :ivar complaints: errors of scripts, of the content security policy, of loading.
    :ivar inside: a part of the address of the frame in which to look; empty: the page's own.
    """

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session
        self._addresses: dict[str, str] = {}  # by frame
        self._contexts: dict[int, str] = {}  # the frames of the contexts in which scripts run
        self.complaints: list[str] = []
        self.inside = ""

    async def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        return await self._browser.command(method, self._session, **parameters)

    def hear(self, method: str, parameters: dict[str, Any]) -> None:
        """Take note of an event."""
        if method == "Page.frameNavigated":
            self._addresses[parameters["frame"]["id"]] = parameters["frame"]["url"]
        elif method == "Runtime.executionContextCreated":
            context = parameters["context"]
            if context["auxData"]["isDefault"]:
                self._contexts[context["id"]] = context["auxData"]["frameId"]
        elif method == "Runtime.executionContextDestroyed":
            self._contexts.pop(parameters["executionContextId"], None)
        elif method == "Runtime.executionContextsCleared":
            self._contexts.clear()
        else:
            self._hear_complaint(method, parameters)

    def _hear_complaint(self, method: str, parameters: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            thrown = details.get("exception", {}).get("description", "")
            self.complaints.append(f"{details['text']} {thrown}")
        elif method == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            entry = parameters["entry"]
            self.complaints.append(f"{entry['text']} {entry.get('url', '')}")
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "assert"):
            words = [str(each.get("value", each.get("description"))) for each in parameters["args"]]
            self.complaints.append(" ".join(words))

    async def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, a promise's once it is kept.

        Raises ``BrowserError`` with what it threw, or where the frame isn't there.
        """
        where = {"contextId": self._context()} if self.inside else {}
        answer = await self.command(
            "Runtime.evaluate",
            expression=expression,
            awaitPromise=True,
            returnByValue=True,
            **where,
        )
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            thrown = details.get("exception", {}).get("description", details["text"])
            raise BrowserError(f"{expression[:300]}: {thrown}")
        return answer["result"].get("value")

    def _context(self) -> int:
        for context, frame in reversed(self._contexts.items()):
            if self.inside in self._addresses.get(frame, ""):
                return context
        raise BrowserError(f"no frame {self.inside!r} among {list(self._addresses.values())}")

    async def until(self, expression: str, seconds: float = WAIT_SECONDS) -> Any:
        """The value of an expression once it is true; looked at again and again."""
        error = text = ""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    try:
                        if value := await self.evaluate(expression):
                            return value
                    except BrowserError as thrown:  # a page in the midst of being loaded
                        error = str(thrown)
                    await asyncio.sleep(0.05)
        except TimeoutError:
            with contextlib.suppress(BrowserError):
                text = await self.evaluate("document.body?.innerText")
            if not text:  # there is no such frame: what the page itself says may tell why
                self.inside = ""
                text = await self.evaluate("document.body?.innerText")
            raise AssertionError(
                f"{expression} did not come true in {seconds} s {error}; "
                f"complaints: {self.complaints}; page:\n{text}"
            ) from None

    async def text(self, selector: str = "body") -> str:
        """The text of an element as it is seen."""
        return str(await self.evaluate(f"document.querySelector({selector!r})?.innerText ?? ''"))

    async def sees(self, text: str, seconds: float = WAIT_SECONDS) -> None:
        """Wait until the page shows ``text``."""
        wanted = json.dumps(" ".join(text.split()))
        shown = "document.body.innerText.replace(/\\s+/g, ' ')"
        await self.until(f"{shown}.includes({wanted})", seconds)

    async def click(self, selector: str, text: str = "") -> None:
        """Click the element that ``selector`` finds, the first whose name holds ``text``."""
        name = "(each.getAttribute('aria-label') ?? each.textContent)"
        found = f"[...document.querySelectorAll({selector!r})]"
        find = f"{found}.find((each) => {name}.includes({json.dumps(text)}))"
        await self.until(f"Boolean({find})")
        await self.evaluate(f"{find}.click()")

    async def press(self, key: str, *, shift: bool = False) -> None:
        """Press and release a key, where the focus is."""
        common = {
            "key": key,
            "code": "Space" if key == " " else key,
            "windowsVirtualKeyCode": KEYS[key],
            "modifiers": 8 if shift else 0,
        }
        text = TEXT_OF_KEY.get(key)
        down = {"type": "keyDown", "text": text} if text else {"type": "rawKeyDown"}
        await self.command("Input.dispatchKeyEvent", **common, **down)
        await self.command("Input.dispatchKeyEvent", **common, type="keyUp")

    async def prefer(self, scheme: str) -> None:
        """What the user's system prefers: ``light`` or ``dark``; no motion, so that it is shown."""
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        await self.command("Emulation.setEmulatedMedia", features=features)

    async def resize(self, width: int, height: int) -> None:
        await self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    async def screenshot(self) -> bytes:
        """A PNG of what is seen."""
        answer = await self.command("Page.captureScreenshot", format="png")
        return base64.b64decode(answer["data"])

    async def type(self, selector: str, text: str) -> None:
        """Write ``text`` into the field that ``selector`` finds."""
        await self.until(f"Boolean(document.querySelector({selector!r}))")
        await self.evaluate(f"document.querySelector({selector!r}).focus()")
        await self.command("Input.insertText", text=text)


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """A Chromium, gone afterwards with all that it kept."""
    folder = tempfile.mkdtemp(prefix="gpuwarden-browser-")
    process = await asyncio.create_subprocess_exec(
        PROGRAM,
        *ARGUMENTS,
        f"--user-data-dir={folder}",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(await _address(process), max_msg_size=0) as socket,
        ):
            chromium = Browser(socket)
            try:
                yield chromium
            finally:
                await chromium.close()
    finally:
        # A group of its own: its helpers would else hold the pipe that we wait for.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        shutil.rmtree(folder, ignore_errors=True)


async def _address(process: asyncio.subprocess.Process) -> str:
    """Where it says that it listens."""
    assert process.stderr is not None
    said = b""
    async with asyncio.timeout(START_SECONDS):
        while not (found := LISTENING.search(said)):
            line = await process.stderr.readline()
            assert line, f"{PROGRAM} ended: {said.decode(errors='replace')}"
            said += line
    return found[1].decode()
