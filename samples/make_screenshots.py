"""Draw the README's screenshots: python samples/make_screenshots.py (writes samples/screenshots/*.svg).

The app runs without a terminal on two of the samples; what is drawn is what a terminal would show.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from specinspect.engine import open_source
from specinspect.settings import Settings
from specinspect.tui.app import Inspector

HERE = Path(__file__).parent
SIZE = (140, 38)
SHOTS = (
    ("find-the-sick-layer", "sick.pt", ("w", "n", "n", "1")),
    ("skip-against-chain", "digits_chain.pt", ("w", "2", "right_square_bracket", "left_square_bracket")),
)
"""Name of the picture, the sample, and the keys that are pressed once everything is computed."""


def main() -> None:
    """Write every picture."""
    folder = HERE / "screenshots"
    folder.mkdir(exist_ok=True)
    for name, sample, keys in SHOTS:
        path = folder / f"{name}.svg"
        path.write_text(asyncio.run(picture(HERE / sample, keys)), encoding="utf-8")
        sys.stdout.write(f"{path}\n")


async def picture(sample: Path, keys: Sequence[str]) -> str:
    """Return the app's screen as SVG, once it has come to rest."""
    app = Inspector(open_source(str(sample), Settings(spectra=True, jobs=1)))
    async with app.run_test(size=SIZE) as pilot:
        while not app.at_rest:
            await pilot.pause(0.1)
        for key in keys:
            await pilot.press(key)
        for _ in range(20):
            await pilot.pause(0.1)
        while not app.at_rest:
            await pilot.pause(0.1)
        app.freeze_clock()
        await pilot.pause(0.1)
        return app.export_screenshot(title=f"specinspect open {sample.name}")


if __name__ == "__main__":
    main()
