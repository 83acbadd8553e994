"""The page of `tools/serve.py`: a model in the browser, on this machine alone.

    photo       bytes of an upload to pixels, within limits
    settings    what the page asks for, checked
    outputs     what the network says of a photo, kept while the page plays with it
    config_model, onnx_model   two kinds of models behind one interface
    segments    a result as a map of segments and a table of them
    line        one network run at a time; others wait and know their place
    sessions    the photo and the outputs of each open page, bounded in memory
    app         addresses and answers; `page/` has what the browser loads
    ports       a free place to listen

Nothing that is uploaded is written to disk.
"""
