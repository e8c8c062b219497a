from edm2core.report.notes import as_html


def test_markdown_becomes_headings_below_the_pages_own_lists_tables_and_links() -> None:
    html = as_html("# Why\n\n*G* is [better](https://arxiv.org/abs/2312.02696)\n\n| a | b |\n|---|---|\n| 1 | 2 |\n")
    assert "<h3>Why</h3>" in html
    assert "<em>G</em>" in html
    assert '<a href="https://arxiv.org/abs/2312.02696" rel="noopener noreferrer" target="_blank">' in html
    assert "<td>1</td>" in html


def test_html_scripts_and_pictures_stay_text() -> None:
    html = as_html("<script>alert(1)</script> <img src=x onerror=alert(1)>\n\n[x](javascript:alert(1)) ![p](http://example.org/p.png)")
    assert "<script" not in html
    assert "<img" not in html
    assert 'href="javascript' not in html
