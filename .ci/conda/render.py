"""Fill the conda recipe in from an sdist, and check that it renders.

    python .ci/conda/render.py dist recipe.yaml

`dist` holds one sdist; `recipe.yaml` is written, for the feedstock. Needs py-rattler-build.
"""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path

from rattler_build import RenderConfig, Stage0Recipe, VariantConfig

RECIPE = Path(__file__).with_name("recipe.yaml")


def filled(text: str, sdist: Path) -> str:
    """The recipe of that sdist."""
    version = sdist.name.removesuffix(".tar.gz").rsplit("-", 1)[1].replace("+", "_")
    sha256 = hashlib.sha256(sdist.read_bytes()).hexdigest()
    for key, value in (("version", version), ("sha256", sha256)):
        text, found = re.subn(rf'(?m)^(  {key}: )"0[0.]*"$', rf'\g<1>"{value}"', text)
        if found != 1:
            raise SystemExit(f"expected one line '  {key}: \"0...\"' in {RECIPE}, found {found}")
    return text


def main() -> None:
    folder, output = map(Path, sys.argv[1:])
    (sdist,) = folder.glob("*.tar.gz")
    text = filled(RECIPE.read_text("utf-8"), sdist)
    recipe = Stage0Recipe.from_yaml(text)
    (variant,) = recipe.render(VariantConfig(), RenderConfig())
    output.write_text(text, "utf-8")
    package = variant.recipe.package
    print(f"{package.name} {package.version}: {len(variant.recipe.requirements.run)} requirements")


if __name__ == "__main__":
    main()
