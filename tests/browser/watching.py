"""What a page does that it should not."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from playwright.sync_api import ConsoleMessage, Dialog, Page, Request


class Watch:
    """Collects complaints in the console, requests to other origins, and dialogs."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.num_requests = 0
        self._allowed: list[str] = []

    def allow(self, pattern: str) -> None:
        """Complaints that the test brings about itself, as a regular expression."""
        self._allowed.append(pattern)

    def over(self, page: Page, url: str) -> None:
        origin = urlsplit(url)[:2]

        def requested(request: Request) -> None:
            self.num_requests += 1
            target = urlsplit(request.url)
            if target.scheme != "blob" and target[:2] != origin:
                self.faults.append(f"asks another origin: {request.url}")

        def said(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning"):
                self.faults.append(f"{message.type} in the console: {message.text}")

        def asked(dialog: Dialog) -> None:
            self.faults.append(f"dialog: {dialog.message}")
            dialog.dismiss()

        page.on("request", requested)
        page.on("console", said)
        page.on("dialog", asked)
        page.on("pageerror", lambda error: self.faults.append(f"exception: {error}"))

    def check(self) -> None:
        assert self.num_requests
        faults = [fault for fault in self.faults if not any(re.search(each, fault) for each in self._allowed)]
        assert faults == []
