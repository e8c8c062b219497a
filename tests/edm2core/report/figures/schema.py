"""Whether a figure is what Vega-Lite's schema allows."""

import json

import altair

from edm2core.report.figures import Figure


def valid(figure: Figure) -> bool:
    """True; raises what is wrong otherwise. Only a few rows are looked at, since every row is one record."""
    drawing = figure.drawing()
    (inner,) = drawing["vconcat"]
    drawing["vconcat"] = [{**inner, "data": {"values": inner["data"]["values"][:3]}}]
    json.dumps(figure.drawing(), allow_nan=False)
    altair.Chart.from_dict(drawing, validate=True)
    return True
