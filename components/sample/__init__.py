"""What Kubeflow shows of samples: the first ones, as one picture."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from components.kubeflow_task import Done, stage_component
from components.viewer_output import show_page

if TYPE_CHECKING:
    from kfp.dsl import HTML, Output


def show_grid(done: Done, pictures: Output[HTML]) -> None:
    picture = base64.b64encode(done.read("grid.png")).decode()
    show_page(done.manifest.title, f'<img alt="the first samples" src="data:image/png;base64,{picture}">', pictures)


component = stage_component("sample", show_grid)
