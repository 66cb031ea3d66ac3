# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet's page in a browser: what it shows, how it is used, and what a hostile record can do to it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fleets import record, write
from playwright.sync_api import Browser, Locator, Page

ROOT = Path(__file__).resolve().parents[2]
SHOTS = ROOT / ".build" / "report"
MOST_BYTES, MOST_SECONDS = 5_000_000, 2.0
EVIL = "</script><script>window.pwned=1</script><img src=x onerror='window.pwned=1'>\"'`{{7*7}}\u202e"
# WCAG's contrast of two colours, for the text of every element with text of its own
CONTRAST = """() => {
  const lum = (c) => { const v = c.match(/[\\d.]+/g).slice(0, 3).map((n) => { n /= 255;
    return n <= 0.03928 ? n / 12.92 : Math.pow((n + 0.055) / 1.055, 2.4); });
    return 0.2126 * v[0] + 0.7152 * v[1] + 0.0722 * v[2]; };
  const ground = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
    if (!/, 0\\)$|transparent/.test(c)) return c; } return "rgb(255, 255, 255)"; };
  const found = [];
  for (const e of document.querySelectorAll("body *")) {
    if (!Array.from(e.childNodes).some((n) => n.nodeType === 3 && n.textContent.trim()) || !e.offsetParent) continue;
    const a = lum(getComputedStyle(e).color), b = lum(ground(e));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5)
      found.push(e.tagName + "." + e.className + " " + ratio.toFixed(2) + " " + e.textContent.slice(0, 30));
  }
  return found; }"""


def make(directory: Path, *expected: str) -> Path:
    """The page of the records in a directory, by the program that users run."""
    target = directory / "fleet.html"
    options = [word for host in expected for word in ("--expect", host)]
    program = str(ROOT / "tools" / "fleet-report")
    subprocess.run([sys.executable, program, str(directory), "--output", str(target), *options], check=True)
    return target


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four GB200 hosts, one of them with less memory, three GH200 hosts, one of them given back and one failed, a host
    without a record, and a file that is none."""
    directory = tmp_path_factory.mktemp("records")
    narrow = record("gb200", "gb200-4")
    narrow["devices"][0]["memory"]["seen"] -= 1 << 30
    write(directory, *(record("gb200", f"gb200-{number}") for number in (1, 2, 3)), narrow,
          record("gh200", "gh200-1"), record("c2c", "gh200-2"),
          record("gh200", "gh200-10", outcome="failed", failure="Bind the GPUs: a VM holds 0000:00:10.0."))
    (directory / "broken.json").write_text("{")
    return make(directory, "gh200-1", "gh200-99")


@pytest.fixture
def page(browser: Browser, target: Path) -> Iterator[Page]:
    """The page, opened. What goes wrong in it, and what it asks of a network, fails the test."""
    yield from opened(browser, target)


def opened(browser: Browser, target: Path, **options: Any) -> Iterator[Page]:
    wrong: list[str] = []
    page = browser.new_page(**{"viewport": {"width": 1300, "height": 900}, **options})
    page.set_default_timeout(10_000)
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: None if request.url == target.as_uri() else wrong.append(request.url))
    page.goto(target.as_uri())
    yield page
    page.close()
    assert wrong == []


def shown(page: Page) -> list[str]:
    return [cell.inner_text().strip() for cell in page.locator("#table tbody tr[data-index]:visible th").all()]


def host(page: Page, name: str) -> Locator:
    page.get_by_role("button", name=name, exact=True).click()
    return page.locator("tr.details")


def test_the_summary_says_what_needs_a_look(page: Page) -> None:
    assert page.locator(".outcomes").inner_text().split() == ["1", "failed", "1", "quarantined", "5", "verified"]
    text = page.locator(".stopped").inner_text()
    assert "C2C link status is 0x0" in text and "It is given back as it was before." in text
    assert "a VM holds 0000:00:10.0" in text
    assert "gh200-99" in text and "There is no record of this host yet." in text
    assert "broken.json" in text and "it is not JSON" in text


def test_a_gpu_unlike_the_others_of_its_product_is_named(page: Page) -> None:
    text = page.get_by_role("heading", name="Unlike the others of their product").locator("..").inner_text()
    assert "gb200-4 0000:00:10.0: GPU memory is" in text and "3 of 4 GB200" in text


def test_the_bar_map_is_drawn_to_scale(page: Page) -> None:
    details = host(page, "gh200-1")
    widths = {}
    for picture in details.locator(".bars svg").all():
        name = (picture.get_attribute("aria-label") or "").split(",")[0]
        widths[name] = {part.get_attribute("class"): part.evaluate("e => e.getBoundingClientRect().width")
                        for part in picture.locator("rect").all()}
    whole = sum(widths["BAR4"].values())
    assert widths["BAR4"]["usemem"] / whole == pytest.approx(0.75, abs=0.01)
    assert widths["BAR4"]["hole"] / whole == pytest.approx(0.25, abs=0.01)
    assert widths["BAR2"]["resmem"] / whole == pytest.approx(0.5, abs=0.01)
    assert "1.5 GiB of 2 GiB" in details.inner_text()


def test_details_have_checks_with_remedies_numa_and_the_host(page: Page) -> None:
    text = host(page, "gb200-1").inner_text()
    for part in ("iommufd", "CONFIG_VFIO_DEVICE_CDEV", "Node 0", "memory of GPU 0000:00:10.0", "IOMMU group",
                 "arm-smmu-v3", "gpu_kmod", "nvgrace_gpu_vfio_pci"):
        assert part.lower() in text.lower(), part
    assert "capability 243" not in text
    page.locator("tr.details summary", has_text="checks that are ok").click()
    assert "capability 243" in page.locator("tr.details").inner_text()


def test_sorting_is_by_number_where_there_are_numbers(page: Page) -> None:
    page.get_by_role("button", name="Host", exact=True).click()
    assert shown(page) == ["gb200-1", "gb200-2", "gb200-3", "gb200-4", "gh200-1", "gh200-2", "gh200-10"]
    assert page.locator("th[aria-sort]").inner_text().startswith("Host")
    page.get_by_role("button", name="Memory seen").click()
    assert shown(page)[0] == "gh200-1" and shown(page)[-1] == "gh200-2"


def test_filters_go_together(page: Page) -> None:
    page.fill("#find", "GB200 verified")
    assert shown(page) == ["gb200-1", "gb200-2", "gb200-3", "gb200-4"]
    page.fill("#find", "gh200")
    page.locator(".outcome.quarantined button").click()
    assert shown(page) == ["gh200-2"]
    assert page.locator("#count").inner_text() == "1 of 7 hosts"
    page.locator(".outcome.quarantined button").click()
    page.fill("#find", "")
    page.select_option("#product", label="GB200 (186 GiB HBM3e)")
    assert len(shown(page)) == 4


def test_the_keyboard_is_enough(page: Page) -> None:
    page.get_by_role("button", name="gh200-1", exact=True).focus()
    page.keyboard.press("Enter")
    assert page.locator("tr.details").count() == 1
    page.keyboard.press("Enter")
    assert page.locator("tr.details").count() == 0


def test_a_name_in_the_summary_leads_to_its_host(page: Page) -> None:
    page.fill("#find", "gb200")
    page.locator(".stopped a", has_text="gh200-2").click()
    assert "C2C link status" in page.locator("tr.details").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_dark(browser: Browser, target: Path, scheme: str) -> None:
    SHOTS.mkdir(parents=True, exist_ok=True)
    for page in opened(browser, target, color_scheme=scheme):
        host(page, "gh200-1")
        assert page.evaluate(CONTRAST) == []
        page.screenshot(path=SHOTS / f"fleet-{scheme}.png", full_page=True)


def test_a_narrow_screen_needs_no_scrolling_sideways(browser: Browser, target: Path) -> None:
    for page in opened(browser, target, viewport={"width": 390, "height": 800}):
        host(page, "gh200-1")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.screenshot(path=SHOTS / "fleet-narrow.png", full_page=True)


def test_print_leaves_the_controls_out_and_opens_what_needs_a_look(page: Page) -> None:
    page.pdf(path=SHOTS / "fleet.pdf")
    page.emulate_media(media="print")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert not page.locator(".controls").is_visible()
    assert page.locator("tr.details").count() == 2
    assert page.evaluate(CONTRAST) == []


def test_without_scripts_the_summary_and_the_hosts_are_there(browser: Browser, target: Path) -> None:
    for page in opened(browser, target, java_script_enabled=False):
        assert len(page.locator("#table tbody tr").all()) == 7
        assert "need JavaScript" in page.locator("noscript").inner_text()


def test_what_a_host_says_is_text(browser: Browser, tmp_path: Path) -> None:
    evil = record("c2c", EVIL, failure=EVIL, after_failure=EVIL)
    evil["host"]["kernel"]["release"] = EVIL
    evil["host"]["kernel"]["cmdline"] = EVIL
    evil["checks"] = [{"id": EVIL, "status": "fail", "why": EVIL, "remedy": EVIL, "accepted": False}]
    evil["gpus"][0].update(product=EVIL, driver=EVIL)
    evil["domains"] = [{"name": EVIL, "state": EVIL, "warnings": [EVIL], "features": [], "restart_required": True}]
    target = make(write(tmp_path, evil))
    for page in opened(browser, target):
        assert page.evaluate("window.pwned") is None
        assert page.locator("img").count() == 0
        assert page.locator("tr.details").inner_text().count("window.pwned=1") >= 5
        assert "\u202e" not in page.content()


def test_a_thousand_hosts_are_a_small_page_that_opens_at_once(browser: Browser, tmp_path: Path) -> None:
    def entry(number: int) -> dict[str, Any]:
        made = record(("gb200", "gh200", "c2c")[number % 3], f"rack{number // 18:02}-tray{number % 18:02}")
        gpu, device = made["gpus"][0], made["devices"][0] if made["devices"] else None
        addresses = [f"{domain:04x}:01:00.0" for domain in (8, 9, 0x18, 0x19)]
        made["gpus"] = [{**gpu, "address": address} for address in addresses]
        made["devices"] = [{**device, "address": address, "verified_at": f"2026-11-25T12:{number % 60:02}:00Z"}
                           for address in addresses] if device else []
        return made

    target = make(write(tmp_path, *(entry(number) for number in range(1000))))
    size = target.stat().st_size
    times = []
    for _ in range(3):
        for page in opened(browser, target):
            begun = time.monotonic()
            page.reload()
            page.locator("#count", has_text="1000 of 1000 hosts").wait_for()
            times.append(time.monotonic() - begun)
            begun = time.monotonic()
            page.fill("#find", "rack07-tray03")
            assert shown(page) == ["rack07-tray03"]
            found = time.monotonic() - begun
    print(f"\n1000 hosts, 4000 GPUs: {size / 1e6:.2f} MB, open in {min(times):.2f} s, found in {found:.2f} s")
    assert size < MOST_BYTES
    assert min(times) < MOST_SECONDS
