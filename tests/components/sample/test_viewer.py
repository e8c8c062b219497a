from pathlib import Path

from kfp.dsl import HTML

from components.kubeflow_task import Done
from components.sample import show_grid


def test_a_grid_stands_inside_its_page(done: Done, page: HTML) -> None:
    done.store.write(done.manifest.path("grid.png"), b"\x89PNG")
    show_grid(done, page)
    text = Path(page.path).read_text()
    assert 'src="data:image/png;base64,iVBORw=="' in text
    assert "http" not in text
