"""Reports: runs, sweeps, pipelines and models as one page that opens anywhere, without a network.

`gather` asks the API, `charts` draws, `page` writes the HTML.
"""
