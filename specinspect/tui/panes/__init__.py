"""The detail panes: each is a widget with `show(view: PaneView)`, computes nothing and posts `tui.messages`.

spectrum.SpectrumPane, skip.SkipPane, bounds.BoundsPane, layer.LayerPane, network.NetworkPane.
"""
